"""The share of a heat map inside boxes, for known maps and for a network on a phantom."""

import numpy as np
import pytest

from boneage_jax.predict.attention import covered, share, shares
from boneage_jax.predict.heatmap import Maps
from boneage_jax.predict.items import Item
from tests.predict.random_weights import hand, predictor


def test_pixels_are_covered_where_their_centres_lie_in_a_box():
    mask = covered(np.array([[1.0, 2, 3, 4], [2.6, 3, 9, 3.4]]), 6)
    assert np.argwhere(mask).tolist() == [[2, 1], [2, 2], [3, 1], [3, 2]]
    assert covered(np.array([[2.4, 3, 9, 3.6]]), 6).sum() == 4


def test_an_empty_list_of_boxes_covers_no_pixels():
    assert not covered(np.zeros((0, 4)), 6).any()


def test_share_of_a_known_map():
    values = np.zeros((4, 4))
    values[0, 0], values[3, 3] = 3, 1
    mask = covered(np.array([[0.0, 0, 1, 1]]), 4)
    assert share(values, mask) == 0.75
    assert share(np.zeros((4, 4)), mask) == 0


def test_boxes_over_the_whole_image_have_shares_that_add_up_to_one():
    ours = predictor(head="regression")
    pixels = hand(3)
    left, top, right, bottom = ours.preprocessing.window(pixels)
    middle = (left + right) / 2
    halves = np.array([[left, top, middle, bottom], [middle, top, right, bottom]])
    found = shares(ours, Maps(ours), Item(pixels, "F"), np.array([1, 3]), halves)
    for of in (found.map, found.area, found.brightness):
        assert of["all"] == pytest.approx(1, abs=1e-5)
        assert of["PIP"] + of["Radius"] == pytest.approx(1, abs=1e-5)
        assert of["Wrist"] == 0
    assert found.area["PIP"] == pytest.approx(0.5)
    assert 0 < found.map["PIP"] < 1
