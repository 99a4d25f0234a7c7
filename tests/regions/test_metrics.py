import numpy as np
import pytest

from boneage_jax.regions.metrics import Boxes, average_precision, compare, match

SQUARE = [0.0, 0, 10, 10]


def boxes(*rows, label=0):
    """Boxes from rows of (confidence, left, top, right, bottom)."""
    table = np.array(rows, np.float64).reshape(-1, 5)
    return Boxes(np.full(len(table), label), table[:, 1:], table[:, 0])


def test_a_true_box_is_matched_once_by_the_most_confident_prediction():
    found = np.array([[0.0, 0, 10, 9], [0, 0, 10, 10]])
    assert match(found, np.array([0.6, 0.9]), np.array([SQUARE])).tolist() == [-1, 0]
    assert match(found, np.array([0.9, 0.6]), np.array([SQUARE])).tolist() == [0, -1]


def test_a_match_needs_an_iou_of_one_half():
    truth = np.array([SQUARE])
    assert match(np.array([[0.0, 0, 10, 5]]), np.ones(1), truth).tolist() == [0]
    assert match(np.array([[0.0, 0, 10, 4.9]]), np.ones(1), truth).tolist() == [-1]


def test_without_true_boxes_nothing_matches():
    assert match(np.array([SQUARE]), np.ones(1), np.zeros((0, 4))).tolist() == [-1]


def test_average_precision_of_a_known_curve():
    # Right, wrong, right, wrong: precision 1, 1/2, 2/3, 1/2; at recalls 1/4 and 2/4 the envelope is 1 and 2/3.
    right = np.array([True, False, True, False])
    assert average_precision(np.array([0.9, 0.8, 0.7, 0.6]), right, truth=4) == pytest.approx((1 + 2 / 3) / 4)


def test_average_precision_ranks_by_confidence_not_by_input_order():
    right = np.array([False, True])
    assert average_precision(np.array([0.2, 0.9]), right, truth=1) == 1
    assert average_precision(np.array([0.9, 0.2]), right, truth=1) == 0.5


def test_average_precision_takes_the_highest_precision_of_later_recalls():
    right = np.array([False, True, True])
    assert average_precision(np.array([0.9, 0.8, 0.7]), right, truth=2) == pytest.approx(2 / 3)


def test_compare_counts_over_all_radiographs():
    truth = [boxes([1, *SQUARE], [1, 90, 0, 100, 10]), boxes([1, *SQUARE])]
    # An exact match, a low-confidence false positive and a miss; then a match shifted by 2 of 10: IoU 8 / 12.
    found = [boxes([0.9, *SQUARE], [0.4, 50, 50, 60, 60]), boxes([0.8, 2, 0, 12, 10])]
    agreement = compare(found, truth)["DIP"]
    assert agreement.count == 3
    assert agreement.precision == 1
    assert agreement.recall == pytest.approx(2 / 3)
    assert agreement.f1 == pytest.approx(0.8)
    assert agreement.average_precision == pytest.approx(2 / 3)
    assert agreement.iou == pytest.approx((1 + 8 / 12) / 2)
    # Off by 0 on a hand 100 wide and by 2 on one 10 wide.
    assert agreement.distance == pytest.approx(0.1)


def test_labels_are_compared_separately():
    agreement = compare([boxes([0.9, *SQUARE], label=1)], [boxes([1, *SQUARE], label=2)])
    assert agreement["PIP"].precision == 0
    assert agreement["MCP"].recall == 0
    assert agreement["MCP"].average_precision == 0
