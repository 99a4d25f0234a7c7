"""Does a network look where a reader looks? The share of a heat map that lies inside the ossification regions."""

import dataclasses

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int

from boneage_jax.predict.heatmap import SMOOTH, Maps
from boneage_jax.predict.items import Item
from boneage_jax.predict.predictor import Predictor
from boneage_jax.regions.boxes import LABELS, rescaled, whole


@dataclasses.dataclass(frozen=True)
class Shares:
    """Shares of one radiograph, from 0 to 1, inside the boxes of each label and of all labels ("all").

    Boxes overlap a little.

    Attributes:
      map: share of the heat map.
      area: share of the area that the network sees.
      brightness: share of the intensities that the network sees, blurred like a heat map; the baseline for a map that
        only follows bright bones.
    """

    map: dict[str, float]
    area: dict[str, float]
    brightness: dict[str, float]


def shares(
    predictor: Predictor, maps: Maps, item: Item, labels: Int[np.ndarray, "N"], boxes: Float[np.ndarray, "N 4"]
) -> Shares:
    """Measures one radiograph.

    Args:
      predictor: the predictor to measure.
      maps: the heat maps of this predictor.
      item: the upright radiograph and the sex.
      labels: for each box, the index into `LABELS`.
      boxes: left, top, right and bottom of each box in pixels of the radiograph.

    Raises:
      BoneAgeError: as `Maps.find`.
    """
    pixels = predictor.look(item.image).pixels
    size = predictor.preprocessing.size
    shown = rescaled(boxes, predictor.preprocessing.window(pixels), whole(size, size))
    bright = predictor.preprocessing.prepare(pixels).mean(axis=-1).astype(np.float32)
    smooth = cv2.GaussianBlur(bright, (0, 0), SMOOTH * size)
    found = maps.find(item)
    masks = {name: covered(shown[labels == label], size) for label, name in enumerate(LABELS)}
    masks["all"] = covered(shown, size)
    return Shares(
        {name: share(found, mask) for name, mask in masks.items()},
        {name: float(mask.mean()) for name, mask in masks.items()},
        {name: share(smooth, mask) for name, mask in masks.items()},
    )


def covered(boxes: Float[np.ndarray, "N 4"], size: int) -> Bool[np.ndarray, "size size"]:
    """Mask of the pixels of a square picture that have their centres in at least one of the boxes."""
    middles = np.arange(size) + 0.5
    across = (middles >= boxes[:, :1]) & (middles < boxes[:, 2:3])
    down = (middles >= boxes[:, 1:2]) & (middles < boxes[:, 3:])
    return np.asarray((down[:, :, None] & across[:, None, :]).any(axis=0))


def share(values: Float[np.ndarray, "size size"], mask: Bool[np.ndarray, "size size"]) -> float:
    """The fraction of the sum of non-negative values that lies inside the mask; 0 if the sum is 0."""
    total = float(values.sum())
    return float(values[mask].sum()) / total if total > 0 else 0.0
