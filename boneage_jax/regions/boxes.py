"""Boxes around ossification regions, as arrays `[..., 4]` of left, top, right, bottom."""

import numpy as np
from jaxtyping import Float

LABELS = ("DIP", "PIP", "MCP", "Radius", "Ulna", "Wrist")
"""Distal and proximal interphalangeal and metacarpophalangeal joints; the epiphyses of radius and ulna; the wrist."""

COUNTS = (4, 5, 5, 1, 1, 1)
"""Regions of each label in a whole hand. The thumb's interphalangeal joint is annotated as a PIP."""

REGIONS = sum(COUNTS)


def iou(first: Float[np.ndarray, "N 4"], second: Float[np.ndarray, "M 4"]) -> Float[np.ndarray, "N M"]:
    """Intersection over union of every box of `first` with every box of `second`; 0 for boxes without area."""
    corner = np.maximum(first[:, None, :2], second[None, :, :2])
    opposite = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.prod(np.clip(opposite - corner, 0, None), axis=-1)
    union = area(first)[:, None] + area(second)[None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def area(boxes: Float[np.ndarray, "... 4"]) -> Float[np.ndarray, "..."]:
    """Width times height; 0 where right and bottom do not lie beyond left and top."""
    return np.prod(np.clip(boxes[..., 2:] - boxes[..., :2], 0, None), axis=-1)


def centres(boxes: Float[np.ndarray, "... 4"]) -> Float[np.ndarray, "... 2"]:
    """The middle (x, y) of each box."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def moved(boxes: Float[np.ndarray, "N 4"], matrix: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "N 4"]:
    """Transforms boxes by an affine map.

    Each region is treated as the ellipse inscribed in its box, so that a rotated box does not grow because of its empty
    corners: with half sides (a, b) and the linear part M, the half sides become sqrt(M_i0^2 a^2 + M_i1^2 b^2).
    """
    linear = matrix[:, :2]
    middle = centres(boxes) @ linear.T + matrix[:, 2]
    half = np.sqrt(((boxes[:, 2:] - boxes[:, :2]) / 2) ** 2 @ (linear**2).T)
    return np.concatenate([middle - half, middle + half], axis=1)


def whole(width: int | float, height: int | float) -> tuple[float, float, float, float]:
    """The window that shows all of a picture."""
    return 0.0, 0.0, float(width), float(height)


def rescaled(
    boxes: Float[np.ndarray, "N 4"],
    source: tuple[float, float, float, float],
    target: tuple[float, float, float, float],
) -> Float[np.ndarray, "N 4"]:
    """Converts boxes to the coordinates of another picture, which shows the window `source` as its window `target`."""
    old, new = np.asarray(source, np.float64), np.asarray(target, np.float64)
    factor = (new[2:] - new[:2]) / (old[2:] - old[:2])
    return (boxes - np.tile(old[:2], 2)) * np.tile(factor, 2) + np.tile(new[:2], 2)
