"""Finds the 17 ossification regions of a hand in a radiograph, with the weights included in the package."""

import dataclasses
import math
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from boneage_jax.data.preprocess import Preprocessing, check_grey
from boneage_jax.errors import BoneAgeError
from boneage_jax.regions.boxes import COUNTS, LABELS, rescaled, whole
from boneage_jax.regions.decoding import decode
from boneage_jax.regions.fingers import NAMES, name_regions
from boneage_jax.regions.metrics import Boxes
from boneage_jax.regions.network import Maps, RegionNet
from boneage_jax.released import weights as released

FILE = Path(__file__).with_name("regions.safetensors")
"""The weights of the package; `regions.md` beside them is their model card."""

THRESHOLD = 0.5
"""Confidence from which a region counts as found."""


@dataclasses.dataclass(frozen=True)
class Region:
    """A region of a radiograph.

    Attributes:
      name: one of `NAMES`, or one of `LABELS` if the finger is ambiguous.
      label: one of `LABELS`.
      box: left, top, right, bottom in pixels; pixel (x, y) covers the area from x to x + 1 and y to y + 1.
      confidence: from `THRESHOLD` to 1.
    """

    name: str
    label: str
    box: tuple[float, float, float, float]
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        """JSON types: pixels to a tenth, confidence to a thousandth."""
        box = [round(side, 1) for side in self.box]
        return {"name": self.name, "label": self.label, "box": box, "confidence": round(self.confidence, 3)}


@dataclasses.dataclass(frozen=True)
class Regions:
    """The regions detected in one radiograph.

    Attributes:
      found: the most confident regions, at most as many of each label as a hand has, in the order of `NAMES`.
      surplus: how many more were found of each label.
    """

    found: tuple[Region, ...]
    surplus: dict[str, int]

    @property
    def completeness(self) -> float:
        """How much of a hand is visible: the sum of the confidences, at most the number of `NAMES`."""
        return math.fsum(one.confidence for one in self.found)

    @property
    def missing(self) -> dict[str, int]:
        """How many regions of each label are missing compared with a whole hand; complete labels are omitted."""
        counts = {label: sum(one.label == label for one in self.found) for label in LABELS}
        return {label: full - counts[label] for label, full in zip(LABELS, COUNTS, strict=True) if counts[label] < full}

    def centres(self) -> Float[np.ndarray, "17 2"]:
        """The centres (right, down) in the order of `NAMES`, in pixels to a tenth; NaN where a region was not found.

        The centre of the first pixel is (0, 0), as in `data.keypoints`.
        """
        points = dict.fromkeys(NAMES, (np.nan, np.nan))
        for one in self.found:
            if one.name in points:
                left, top, right, bottom = one.box
                points[one.name] = ((left + right) / 2 - 0.5, (top + bottom) / 2 - 0.5)
        return np.round(list(points.values()), 1)


class Detector:
    """The network that finds regions, with its preprocessing.

    For example::

        detector = Detector()
        for region in detector.find(pixels).found:
            print(region.name, region.box, region.confidence)

    Attributes:
      header: metadata of the weights.
      preprocessing: from a radiograph to the network's input.
      sha256: checksum of the weights file.
    """

    def __init__(self, path: Path = FILE):
        weights = released.read(path)
        if weights.header.model.get("name") != "region_net":
            raise BoneAgeError(f"{path} contains the network {weights.header.name!r}, expected a region detector")
        self.header = weights.header
        self.sha256 = weights.sha256
        self.preprocessing = Preprocessing.from_dict(weights.header.preprocessing)
        self._variables = jax.device_put(weights.variables)

    @cached_property
    def _network(self) -> Any:
        preprocessing, network = self.preprocessing, RegionNet()

        def maps(variables: Any, images: Any) -> Maps:
            found: Any = network.apply(variables, preprocessing.scale(images))
            return Maps(jax.nn.sigmoid(found.heat), found.boxes)

        return jax.jit(maps)

    def boxes(self, image: np.ndarray) -> Boxes:
        """Every decoded box in a single-channel image `[H, W]` (uint8 or uint16, square pixels), before `THRESHOLD`."""
        check_grey(image)
        size = self.preprocessing.size
        maps = self._network(self._variables, self.preprocessing.prepare(image)[None])
        labels, found, confidences = decode(np.asarray(maps.heat[0]), np.asarray(maps.boxes[0]))
        window = self.preprocessing.window(image)
        return Boxes(labels, rescaled(found, whole(size, size), window), confidences)

    def find(self, image: np.ndarray) -> Regions:
        """Finds and names the regions of a hand with fingers up in `[H, W]` (uint8 or uint16, square pixels)."""
        return named(self.boxes(image), image.shape)

    def completeness(self, image: np.ndarray) -> float:
        """How much of a hand with fingers up an image `[H, W]` (uint8 or uint16, square pixels) shows."""
        return self.find(image).completeness


@cache
def packaged() -> Detector:
    """The detector included in the package, loaded only once."""
    return Detector()


def named(found: Boxes, shape: tuple[int, ...]) -> Regions:
    """Chooses the regions of one hand, names them, and clips their boxes to the image."""
    sure = found.confidences >= THRESHOLD
    kept: list[np.ndarray] = []
    surplus: dict[str, int] = {}
    for label, count in enumerate(COUNTS):
        places = np.flatnonzero(sure & (found.labels == label))
        places = places[np.argsort(-found.confidences[places], kind="stable")]
        kept.append(places[:count])
        if len(places) > count:
            surplus[LABELS[label]] = len(places) - count
    chosen = np.concatenate(kept)
    labels, boxes = found.labels[chosen], found.boxes[chosen]
    names = name_regions(labels, boxes)
    regions = [
        Region(name, LABELS[label], _inside(box, shape), float(confidence))
        for name, label, box, confidence in zip(names, labels, boxes, found.confidences[chosen], strict=True)
    ]
    order = {name: place for place, name in enumerate((*NAMES, *LABELS[:3]))}
    return Regions(tuple(sorted(regions, key=lambda region: order[region.name])), surplus)


def _inside(box: Float[np.ndarray, "4"], shape: tuple[int, ...]) -> tuple[float, float, float, float]:
    height, width = shape
    left, top, right, bottom = np.clip(box, 0, (width, height, width, height)).tolist()
    return left, top, right, bottom
