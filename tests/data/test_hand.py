"""Finding the hand: on phantoms, whose joints are known, with borders, markers and grey backgrounds like real ones."""

import cv2
import numpy as np
import pytest

from boneage_jax.data.hand import SIDE, find_hand
from boneage_jax.data.phantom import render
from boneage_jax.data.preprocess import Preprocessing

CHILDREN = [(age, seed) for seed, age in enumerate(np.linspace(12, 216, 12))]


def window_of(box):
    left, top, right, bottom = box
    return (right - left) * (bottom - top)


@pytest.mark.parametrize(("age", "seed"), CHILDREN)
def test_all_joints_lie_in_the_box_and_little_else(age, seed):
    phantom = render(age, seed % 2, size=256, seed=seed)
    hand = find_hand(phantom.image)
    left, top, right, bottom = (edge * 256 for edge in hand.box)
    x, y = phantom.key_points.T
    assert ((x > left) & (x < right) & (y > top) & (y < bottom)).all()
    assert window_of(hand.box) < 0.75
    assert hand.mask.shape == (SIDE, SIDE)


def test_the_hand_is_the_same_in_a_dim_grey_a_large_and_a_16_bit_copy():
    image = render(120, 0, size=256, seed=3).image
    copies = {
        "dim": np.rint(image * 0.3 + 90).astype(np.uint8),
        "large": cv2.resize(image, (900, 1200), interpolation=cv2.INTER_LINEAR),
        "16 bit": image.astype(np.uint16) * 200 + 1000,
    }
    expected = find_hand(image).box
    for name, copy in copies.items():
        np.testing.assert_allclose(find_hand(copy).box, expected, atol=0.04, err_msg=name)


@pytest.mark.parametrize("level", [0, 77, 255])
def test_a_constant_picture_has_no_hand_and_is_taken_whole(level):
    image = np.full((90, 80), level, np.uint8)
    assert find_hand(image) is None
    np.testing.assert_array_equal(
        Preprocessing(size=32, region="hand").prepare(image), Preprocessing(size=32).prepare(image)
    )


def test_the_crop_shows_the_hand_larger_and_in_the_middle():
    phantom = render(150, 1, size=256, seed=5)
    small = cv2.copyMakeBorder(phantom.image, 128, 0, 128, 0, cv2.BORDER_REPLICATE)
    before = find_hand(small).box
    side = max(before[2] - before[0], before[3] - before[1]) * 1.06
    prepared = Preprocessing(size=128, region="hand", margin=0.06, clahe_clips=()).prepare(small)
    found = find_hand(prepared[..., 0]).box
    assert side < 0.7
    assert window_of(found) == pytest.approx(window_of(before) / side**2, rel=0.1)
    np.testing.assert_allclose([found[0] + found[2], found[1] + found[3]], [1, 1], atol=0.15)


def test_exposure_is_for_the_hand_whatever_surrounds_it():
    image = render(100, 0, size=256, seed=8).image
    framed = cv2.copyMakeBorder(image, 40, 40, 40, 40, cv2.BORDER_CONSTANT, value=255)
    preprocessing = Preprocessing(size=96, region="hand", clahe_clips=())
    whole = Preprocessing(size=96, clahe_clips=())
    middle = (slice(24, 72), slice(24, 72))

    def greys(prepare, picture):
        return np.percentile(prepare(picture)[middle], (10, 50, 90))

    def change(prepare):
        return np.abs(greys(prepare, image) - greys(prepare, framed)).max()

    assert change(preprocessing.prepare) < 12
    assert change(whole.prepare) > 2 * change(preprocessing.prepare)
