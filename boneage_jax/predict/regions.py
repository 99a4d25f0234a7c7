"""The ossification regions of a radiograph: their boxes, the bone age of each, and an overlay."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from boneage_jax.errors import BoneAgeError
from boneage_jax.predict.heatmap import displayed
from boneage_jax.predict.items import Item, Picture
from boneage_jax.predict.prediction import Prediction, RegionReading
from boneage_jax.predict.predictor import Predictor, load
from boneage_jax.regions.boxes import REGIONS
from boneage_jax.regions.detector import Region, Regions

COLOURS = {
    "DIP": (255, 191, 64),
    "PIP": (64, 220, 64),
    "MCP": (64, 200, 255),
    "Radius": (96, 96, 255),
    "Ulna": (255, 96, 255),
    "Wrist": (255, 255, 64),
}
"""Colour of the boxes by label: blue, green, red."""


MOST_MISSING = 4
"""Most missing regions without a warning: none of 30 good radiographs lacked more, and all half hands did."""

WEIGHTS = "accurate"
"""The released weights that read every region."""

APART = (
    "The bone ages of the hand's regions lie farther apart than in 99 of 100 radiographs; the hand may be unusual or "
    "the image damaged."
)

_FARTHEST = 24.0  # months of difference from the whole hand at which the colour scale saturates
_LEGEND = 28  # pixels


class RegionFinder:
    """Finds and reads the regions in images as a predictor reads them, with the corrections of its checks.

    Args:
        predictor: predicts the bone age, and reads the regions too if it can.
        reader: reads the regions instead; default: `predictor` if it can, otherwise the released weights `WEIGHTS`.
    """

    def __init__(self, predictor: Predictor, reader: Predictor | None = None):
        self._predictor = predictor
        self._reader = reader or (predictor if predictor.reads_regions else load(WEIGHTS))

    def find(self, item: Item) -> tuple[dict[str, Any], UInt8[np.ndarray, "h w 3"], tuple[str, ...]]:
        """Finds and reads the regions of one image.

        Returns:
            First, JSON types: "found", a list of `Region.to_dict` with boxes from `in_file`, plus the "months" and
            "interval" of each region, None if the sex is unknown, the region has no finger, or fewer than
            `items.LEAST_JOINTS` have one of `NAMES`; "missing" and "surplus", counts by label; "months" and "interval"
            of the whole hand, None if the sex is unknown or the weights cannot read it; and "weights", the name of the
            weights that read hand and regions. Second, the overlay (blue, green, red) of the image as it was read.
            Third, reasons not to rely on the image, in sentences.

        Raises:
            BoneAgeError: not an image, or a damaged one.
        """
        picture = self._predictor.look(item.image)
        regions = picture.find_regions()
        doubts = warnings(regions.missing, regions.surplus)
        try:
            inputs = item.inputs if self._reader is self._predictor else {}
            read = self._reader.predict(picture, sex=item.sex, inputs=inputs, accept_warnings=True)
        except BoneAgeError as error:
            reason = str(error).removeprefix(f"{picture.name}: ")  # doubts go into DICOM objects, without file names
            doubts = (*doubts, f"There is no reading of the regions: {reason}.")
            read = Prediction(None, None, None, "")
        if read.regions_disagree:
            doubts = (*doubts, APART)
        found = as_json(regions, picture, read) | {"weights": self._reader.header.name}
        return found, overlay(picture.pixels, regions, read), doubts


def as_json(regions: Regions, picture: Picture, read: Prediction) -> dict[str, Any]:
    """The regions of a picture and their readings as JSON types, with boxes from `in_file`."""
    found = [region.to_dict() | _figures(read.regions.get(region.name)) for region in in_file(regions.found, picture)]
    return {"found": found, "missing": regions.missing, "surplus": regions.surplus, **_figures(read)}


def _figures(read: Prediction | RegionReading | None) -> dict[str, Any]:
    """Months and interval, rounded to a tenth; None for values that do not exist."""
    if read is None or read.months is None:
        return {"months": None, "interval": None}
    interval = None if read.interval is None else [round(end, 1) for end in read.interval]
    return {"months": round(read.months, 1), "interval": interval}


def warnings(missing: Mapping[str, int], surplus: Mapping[str, int]) -> tuple[str, ...]:
    """Warnings from the counts of missing and surplus regions: an incomplete hand, or more than one hand."""
    found = []
    if (count := sum(missing.values())) > MOST_MISSING:
        found.append(
            f"{count} of {REGIONS} ossification regions were not found; the hand may be cut off, bent or covered."
        )
    if surplus:
        which = ", ".join(f"{count} {label}" for label, count in surplus.items())
        found.append(f"There are more ossification regions than one hand has ({which} too many); is it one hand alone?")
    return tuple(found)


def in_file(regions: tuple[Region, ...], picture: Picture) -> list[Region]:
    """Converts regions of the picture as it was read to pixels of the file, which need not be square or upright.

    If the file has an EXIF orientation, they are pixels of the image after that orientation.
    """
    height, width = picture.pixels.shape
    down, across = np.divide(picture.stored_shape, picture.unturned_shape).tolist()
    found = []
    for one in regions:
        left, top, right, bottom = _unturned(one.box, picture.turns, width, height)
        found.append(dataclasses.replace(one, box=(left * across, top * down, right * across, bottom * down)))
    return found


def _unturned(
    box: tuple[float, float, float, float], turns: int, width: int, height: int
) -> tuple[float, float, float, float]:
    """Undoes anticlockwise quarter turns of a box; `width` and `height` are those of the turned image."""
    for _ in range(turns):
        left, top, right, bottom = box
        box = (height - bottom, left, height - top, right)
        width, height = height, width
    return box


def overlay(pixels: np.ndarray, regions: Regions, read: Prediction) -> UInt8[np.ndarray, "h w 3"]:
    """The radiograph [H, W], scaled like a heat map picture, with a box around every region.

    If the regions have readings, the boxes are labelled with years and months and coloured from blue (younger than the
    whole hand) through white to red (older), with a legend below. Otherwise each label has its own colour.
    """
    grey = np.rint(displayed(pixels)).astype(np.uint8)
    shown = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
    across, down = grey.shape[1] / pixels.shape[1], grey.shape[0] / pixels.shape[0]
    thickness = max(1, round(max(grey.shape) / 400))
    scale = max(grey.shape) / 1800
    for region in regions.found:
        left, top, right, bottom = np.rint(np.array(region.box) * [across, down, across, down]).astype(int).tolist()
        reading = read.regions.get(region.name)
        if reading is None or read.months is None:
            colour, text = COLOURS[region.label], f"{region.name} {region.confidence:.2f}"
        else:
            colour, text = difference_colour(reading.months - read.months), _years_months(reading.months)
        cv2.rectangle(shown, (left, top), (right, bottom), colour, thickness)
        # A dark outline keeps the text readable on bright bones.
        for edge, ink in ((3, (0, 0, 0)), (1, colour)):
            place = (left, max(top - 2, 8))
            cv2.putText(shown, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, edge, cv2.LINE_AA)
    return np.concatenate([shown, _legend(shown.shape[1])]) if read.regions else shown


def difference_colour(months: float) -> tuple[int, int, int]:
    """Colour (blue, green, red) of a region by its difference from the hand in months: blue younger, red older."""
    share = float(np.clip(months / _FARTHEST, -1, 1))
    fades = round(255 * (1 - abs(share)))
    return (fades, fades, 255) if share > 0 else (255, fades, fades)


def _legend(width: int) -> UInt8[np.ndarray, "28 w 3"]:
    """The colour scale shown under the picture."""
    colours = [difference_colour(months) for months in np.linspace(-_FARTHEST, _FARTHEST, width)]
    strip = np.repeat(np.array(colours, np.uint8)[None], _LEGEND, axis=0)
    texts = (f"{_FARTHEST:.0f} months younger", "as the hand", f"{_FARTHEST:.0f} months older")
    scale = min(0.45, width / 1400)
    for text, share in zip(texts, (0.0, 0.5, 1.0), strict=True):
        wide = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0][0]
        place = (round(4 + share * (width - wide - 8)), _LEGEND - 9)
        cv2.putText(strip, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), 1, cv2.LINE_AA)
    return strip


def _years_months(months: float) -> str:
    years, rest = divmod(abs(round(months)), 12)
    return f"{'-' if round(months) < 0 else ''}{years}y {rest}m"
