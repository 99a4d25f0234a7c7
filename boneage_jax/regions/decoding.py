"""Decodes the maps of `RegionNet` to boxes with confidences."""

import numpy as np
from jaxtyping import Float, Int

from boneage_jax.regions.boxes import COUNTS, LABELS, iou

LEAST_CONFIDENCE = 0.05
SAME = 0.4  # IoU above which two boxes of one label show the same region
SPARE = 3  # boxes of each label beyond `COUNTS`, used to recognise several hands
_NEIGHBOUR = 0.5  # a cell beside a peak counts if its confidence is at least this share of the peak's


def decode(
    heat: Float[np.ndarray, "h w K"], boxes: Float[np.ndarray, "h w K 4"]
) -> tuple[Int[np.ndarray, "N"], Float[np.ndarray, "N 4"], Float[np.ndarray, "N"]]:
    """Finds the regions in the maps of one image.

    A region is a cell with the highest confidence in its 3 x 3 neighbourhood; its box is the mean of the boxes of these
    nine cells, weighted by their confidences (see `_NEIGHBOUR`).

    Args:
      heat: confidences from 0 to 1.
      boxes: of every cell and label.

    Returns:
      Labels (index into `LABELS`), boxes and confidences, per label in order of decreasing confidence; at most `SPARE`
      more of each label than a hand has.
    """
    found = [_of_label(heat[..., label], boxes[..., label, :], COUNTS[label]) for label in range(len(LABELS))]
    labels = np.repeat(np.arange(len(LABELS)), [len(confidence) for _, confidence in found])
    return labels, np.concatenate([box for box, _ in found]), np.concatenate([confidence for _, confidence in found])


def _of_label(heat: np.ndarray, boxes: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    height, width = heat.shape
    padded = np.pad(heat, 1)
    around = np.stack([padded[i : i + height, j : j + width] for i in range(3) for j in range(3)])
    rows, columns = np.nonzero((heat >= around.max(axis=0)) & (heat >= LEAST_CONFIDENCE))
    order = np.argsort(-heat[rows, columns], kind="stable")
    kept: list[np.ndarray] = []
    confidences: list[float] = []
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        box = _mean_box(heat, boxes, row, column)
        if kept and iou(box[None], np.array(kept)).max() > SAME:
            continue
        kept.append(box)
        confidences.append(float(heat[row, column]))
        if len(kept) == count + SPARE:
            break
    return np.array(kept).reshape(-1, 4), np.array(confidences)


def _mean_box(heat: np.ndarray, boxes: np.ndarray, row: int, column: int) -> np.ndarray:
    near = np.s_[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
    weight = np.where(heat[near] >= _NEIGHBOUR * heat[row, column], heat[near], 0.0)
    return (weight[..., None] * boxes[near]).sum(axis=(0, 1)) / weight.sum()
