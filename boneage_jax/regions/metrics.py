"""Agreement of boxes with those of a reader: average precision, F1, IoU and the distance between centres."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from boneage_jax.regions.boxes import LABELS, centres, iou

LEAST_IOU = 0.5


@dataclasses.dataclass(frozen=True)
class Boxes:
    """The boxes on one radiograph.

    Attributes:
      labels: index into `LABELS`.
      boxes: left, top, right, bottom, in the same pixel coordinates as the boxes to compare with.
      confidences: 0 to 1; 1 for a reader's boxes.
    """

    labels: Int[np.ndarray, "N"]
    boxes: Float[np.ndarray, "N 4"]
    confidences: Float[np.ndarray, "N"]


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Agreement of the boxes of one label, or the mean over the labels.

    Attributes:
      average_precision: area under the curve of precision against recall, from 0 to 1, at an IoU of 0.5.
      precision: share of the found boxes that match one of the reader's.
      recall: share of the reader's boxes that a found one matches.
      f1: harmonic mean of precision and recall.
      iou: mean over the matched boxes.
      distance: mean distance between the centres of matched boxes, as a fraction of the width of all the reader's boxes
        together.
      count: number of the reader's boxes.
    """

    average_precision: float
    precision: float
    recall: float
    f1: float
    iou: float
    distance: float
    count: int


def match(
    found: Float[np.ndarray, "N 4"],
    confidences: Float[np.ndarray, "N"],
    truth: Float[np.ndarray, "M 4"],
    least_iou: float = LEAST_IOU,
) -> Int[np.ndarray, "N"]:
    """For each found box, the index of the true box that it matches, or -1.

    As in PASCAL VOC, in order of decreasing confidence: each box takes the true box with the highest IoU, if that is at
    least `least_iou` and no earlier box took it.
    """
    matched = np.full(len(found), -1)
    if not len(truth):
        return matched
    overlap = iou(found, truth)
    for place in np.argsort(-confidences, kind="stable"):
        best = int(overlap[place].argmax())
        if overlap[place, best] >= least_iou and best not in matched:
            matched[place] = best
    return matched


def average_precision(confidences: Float[np.ndarray, "N"], right: Bool[np.ndarray, "N"], truth: int) -> float:
    """Area under the precision-recall curve, with the precision replaced by its maximum at this or a higher recall.

    This is the all-point rule of PASCAL VOC since 2010; `right` marks the matched boxes, `truth` counts the true ones.
    """
    order = np.argsort(-confidences, kind="stable")
    hits = np.cumsum(right[order])
    precision = hits / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[right[order]].sum() / truth) if truth else float("nan")


def compare(
    found: Sequence[Boxes], truth: Sequence[Boxes], threshold: float = 0.5, least_iou: float = LEAST_IOU
) -> dict[str, Agreement]:
    """Compares found boxes with a reader's, radiograph by radiograph.

    Args:
      found: boxes of any confidence, as average precision needs them all.
      truth: the reader's boxes of the same radiographs.
      threshold: confidence from which a box counts for all metrics except average precision.
      least_iou: IoU from which two boxes match.

    Returns:
      The agreement by label, and their mean as "mean".
    """
    by_label = {name: _of_label(found, truth, label, threshold, least_iou) for label, name in enumerate(LABELS)}
    fields = [field.name for field in dataclasses.fields(Agreement) if field.name != "count"]
    means = {field: _mean([getattr(one, field) for one in by_label.values()]) for field in fields}
    return {**by_label, "mean": Agreement(**means, count=sum(one.count for one in by_label.values()))}


def _mean(values: Sequence[float]) -> float:
    """The mean of the values that are not NaN; NaN if there are none."""
    numbers = [value for value in values if not np.isnan(value)]
    return float(np.mean(numbers)) if numbers else float("nan")


def _of_label(
    found: Sequence[Boxes], truth: Sequence[Boxes], label: int, threshold: float, least_iou: float
) -> Agreement:
    confidences, right, overlaps, distances, count = [], [], [], [], 0
    for ours, theirs in zip(found, truth, strict=True):
        mine, other = ours.labels == label, theirs.labels == label
        boxes, true = ours.boxes[mine], theirs.boxes[other]
        matched = match(boxes, ours.confidences[mine], true, least_iou)
        confidences.append(ours.confidences[mine])
        right.append(matched >= 0)
        count += len(true)
        pairs = (matched >= 0) & (ours.confidences[mine] >= threshold)
        partners = true[matched[pairs]]
        overlaps += [float(iou(a[None], b[None])[0, 0]) for a, b in zip(boxes[pairs], partners, strict=True)]
        width = theirs.boxes[:, 2].max(initial=0) - theirs.boxes[:, 0].min(initial=np.inf)
        distances += (np.linalg.norm(centres(boxes[pairs]) - centres(partners), axis=1) / width).tolist()
    confidence, hit = np.concatenate(confidences), np.concatenate(right)
    counted = confidence >= threshold
    boxes_counted = int(np.count_nonzero(counted))
    hits = int(np.count_nonzero(hit & counted))
    precision = hits / max(boxes_counted, 1)
    recall = hits / max(count, 1)
    return Agreement(
        average_precision=average_precision(confidence, hit, count),
        precision=precision,
        recall=recall,
        f1=2 * hits / max(boxes_counted + count, 1),
        iou=_mean(overlaps),
        distance=_mean(distances),
        count=count,
    )
