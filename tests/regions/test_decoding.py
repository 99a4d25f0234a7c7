import numpy as np

from boneage_jax.regions.boxes import COUNTS, LABELS
from boneage_jax.regions.decoding import SPARE, decode


def empty(side=24):
    heat = np.full((side, side, len(LABELS)), 0.01)
    boxes = np.zeros((side, side, len(LABELS), 4))
    boxes[..., 2:] = 1
    return heat, boxes


def test_without_a_peak_there_is_no_region():
    labels, boxes, confidences = decode(*empty())
    assert labels.shape == (0,)
    assert boxes.shape == (0, 4)
    assert confidences.shape == (0,)


def test_a_peak_gives_the_mean_box_of_the_confident_cells_around_it():
    heat, boxes = empty()
    heat[5, 7, 2], heat[5, 8, 2], heat[4, 7, 2] = 0.9, 0.6, 0.3  # the last is below half of the peak
    boxes[5, 7, 2], boxes[5, 8, 2], boxes[4, 7, 2] = [10, 10, 20, 20], [15, 10, 25, 20], [90, 90, 99, 99]
    labels, found, confidences = decode(heat, boxes)
    assert labels.tolist() == [2]
    assert confidences.tolist() == [0.9]
    np.testing.assert_allclose(found, [[12, 10, 22, 20]])


def test_peaks_within_one_box_are_merged_only_within_a_label():
    heat, boxes = empty()
    for row, label in ((5, 0), (7, 0), (5, 1)):
        heat[row, 5, label] = 0.9 - 0.01 * row
        boxes[row, 5, label] = [0, row, 20, row + 20]
    assert decode(heat, boxes)[0].tolist() == [0, 1]


def test_the_most_confident_peaks_are_kept():
    heat, boxes = empty()
    for i in range(10):
        row, column = 2 * (i % 5) + 2, 10 * (i // 5) + 2
        heat[row, column, 3] = 0.2 + 0.05 * i
        boxes[row, column, 3] = [100 * i, 0, 100 * i + 10, 10]
    _, found, confidences = decode(heat, boxes)
    assert len(found) == COUNTS[3] + SPARE
    np.testing.assert_allclose(confidences, [0.65, 0.6, 0.55, 0.5])
    assert found[0].tolist() == [900, 0, 910, 10]
