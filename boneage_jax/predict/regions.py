"""The ossification regions of a radiograph that is read: where they lie in the file's picture, and an overlay."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from boneage_jax.predict.heatmap import displayed
from boneage_jax.predict.predictor import Picture, Predictor, Source
from boneage_jax.regions.boxes import REGIONS
from boneage_jax.regions.detector import Detector, Region, Regions
from boneage_jax.released.checks import CORRECTED, QUARTER_TURNS

COLOURS = {
    "DIP": (255, 191, 64),
    "PIP": (64, 220, 64),
    "MCP": (64, 200, 255),
    "Radius": (96, 96, 255),
    "Ulna": (255, 96, 255),
    "Wrist": (255, 255, 64),
}
"""Blue, green and red of the boxes, by label."""


MOST_MISSING = 4
"""Missing regions that do not yet give a warning: of 30 good radiographs, none lacked more; of half hands, all did."""


class RegionFinder:
    """Finds the regions in images as a predictor reads them: corrected where its checks found them turned."""

    def __init__(self, predictor: Predictor, detector: Detector | None = None):
        self._predictor = predictor
        self._detector = detector or Detector()

    def find(self, source: Source) -> tuple[dict[str, Any], UInt8[np.ndarray, "h w 3"]]:
        """Finds the regions of one image.

        Returns:
            JSON types: "found", a list of `Region.to_dict` with boxes in pixels of the image as it came; "missing" and
            "surplus", numbers by label. And the overlay, blue, green and red, of the image as it was read.

        Raises:
            BoneAgeError: no image, or a damaged one.
        """
        picture = self._predictor.look(source)
        regions = self._detector.find(picture.pixels)
        return as_json(regions, picture), overlay(picture.pixels, regions)


def as_json(regions: Regions, picture: Picture) -> dict[str, Any]:
    """The regions of a picture as JSON types, with boxes in pixels of the image before its turn."""
    found = [region.to_dict() for region in before_turn(regions.found, picture)]
    return {"found": found, "missing": regions.missing, "surplus": regions.surplus}


def warnings(missing: Mapping[str, int], surplus: Mapping[str, int]) -> tuple[str, ...]:
    """What numbers of regions, by label, say about the image: a hand that is not whole, or more than one hand."""
    found = []
    if (count := sum(missing.values())) > MOST_MISSING:
        found.append(
            f"{count} of {REGIONS} ossification regions were not found; the hand may be cut off, bent or covered."
        )
    if surplus:
        which = ", ".join(f"{count} {label}" for label, count in surplus.items())
        found.append(f"There are more ossification regions than one hand has ({which} too many); is it one hand alone?")
    return tuple(found)


def before_turn(regions: tuple[Region, ...], picture: Picture) -> list[Region]:
    """Regions of the picture as it was read, in pixels of the image as it came."""
    turns = sum(QUARTER_TURNS.get(one.code, 0) for one in picture.findings if one.severity == CORRECTED) % 4
    height, width = picture.pixels.shape
    return [dataclasses.replace(one, box=_unturned(one.box, turns, width, height)) for one in regions]


def _unturned(
    box: tuple[float, float, float, float], turns: int, width: int, height: int
) -> tuple[float, float, float, float]:
    """A box before so many anticlockwise quarter turns of the image, which is now of this width and height."""
    for _ in range(turns):
        left, top, right, bottom = box
        box = (height - bottom, left, height - top, right)
        width, height = height, width
    return box


def overlay(pixels: np.ndarray, regions: Regions) -> UInt8[np.ndarray, "h w 3"]:
    """The radiograph [H, W], scaled as heat maps are, with a box in its label's colour around every region."""
    grey = np.rint(displayed(pixels)).astype(np.uint8)
    shown = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
    across, down = grey.shape[1] / pixels.shape[1], grey.shape[0] / pixels.shape[0]
    thickness = max(1, round(max(grey.shape) / 400))
    scale = max(grey.shape) / 1800
    for region in regions.found:
        left, top, right, bottom = np.rint(np.array(region.box) * [across, down, across, down]).astype(int).tolist()
        colour = COLOURS[region.label]
        cv2.rectangle(shown, (left, top), (right, bottom), colour, thickness)
        text = f"{region.name} {region.confidence:.2f}"
        cv2.putText(shown, text, (left, max(top - 2, 8)), cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA)
    return shown
