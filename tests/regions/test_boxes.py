import numpy as np
import pytest

from boneage_jax.regions.boxes import area, centres, iou, moved, rescaled, whole


def test_iou_matches_a_hand_calculation():
    first = np.array([[0.0, 0, 10, 10], [0, 0, 4, 2]])
    second = np.array([[0.0, 0, 10, 10], [5, 0, 15, 10], [10, 10, 20, 20], [2, 1, 4, 2]])
    # 50 of 150 shared; touching corners share nothing; 2 of 8.
    np.testing.assert_allclose(iou(first, second), [[1, 1 / 3, 0, 0.02], [0.08, 0, 0, 0.25]])


def test_iou_of_a_box_without_area_is_zero():
    np.testing.assert_array_equal(iou(np.array([[3.0, 3, 3, 9]]), np.array([[3.0, 3, 3, 9], [0, 0, 9, 9]])), [[0, 0]])


def test_area_and_centre():
    boxes = np.array([[1.0, 2, 4, 8], [4, 8, 1, 2]])
    np.testing.assert_array_equal(area(boxes), [18, 0])
    np.testing.assert_array_equal(centres(boxes), [[2.5, 5], [2.5, 5]])


def test_a_quarter_turn_swaps_the_sides_and_a_shift_keeps_them():
    boxes = np.array([[0.0, 0, 4, 2]])
    turn = np.array([[0.0, -1, 10], [1, 0, 20]])  # (x, y) to (10 - y, 20 + x)
    np.testing.assert_allclose(moved(boxes, turn), [[8, 20, 10, 24]], atol=1e-12)
    np.testing.assert_allclose(moved(boxes, np.array([[1.0, 0, 3], [0, 1, -1]])), [[3, -1, 7, 1]])


def test_a_rotated_square_keeps_the_bounds_of_its_inscribed_ellipse():
    cosine = sine = np.sqrt(0.5)
    turned = moved(np.array([[-3.0, -3, 3, 3]]), np.array([[cosine, -sine, 0], [sine, cosine, 0]]))
    np.testing.assert_allclose(turned, [[-3, -3, 3, 3]], atol=1e-12)


def test_rescaled_maps_boxes_from_one_window_to_another():
    boxes = np.array([[20.0, 10, 30, 30]])
    np.testing.assert_allclose(rescaled(boxes, (10.0, 0.0, 30.0, 40.0), whole(200, 100)), [[100, 25, 200, 75]])


@pytest.mark.parametrize("window", [(0.0, 0.0, 50.0, 80.0), (-20.0, 5.0, 30.0, 55.0)])
def test_rescaling_there_and_back_restores_the_boxes(window):
    boxes = np.array([[1.0, 2, 3, 4], [5, 6, 40, 41]])
    back = rescaled(rescaled(boxes, window, whole(208, 208)), whole(208, 208), window)
    np.testing.assert_allclose(back, boxes)
