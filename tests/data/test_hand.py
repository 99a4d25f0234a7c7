"""Finding the hand on phantoms, which have known joints, and borders, markers and backgrounds like real films."""

import cv2
import numpy as np
import pytest

from boneage_jax.data.hand import Hand, content, find_hand
from boneage_jax.data.phantom import render
from boneage_jax.data.preprocess import Preprocessing

CHILDREN = [(age, seed) for seed, age in enumerate(np.linspace(12, 216, 12))]


def found_in(image: np.ndarray) -> Hand:
    hand = find_hand(image)
    assert hand is not None
    return hand


def window_of(box):
    left, top, right, bottom = box
    return (right - left) * (bottom - top)


@pytest.mark.parametrize(("age", "seed"), CHILDREN)
def test_the_box_contains_all_joints_and_excludes_a_quarter_of_the_image(age, seed):
    phantom = render(age, seed % 2, size=256, seed=seed)
    hand = found_in(phantom.image)
    left, top, right, bottom = hand.box
    x, y = phantom.key_points.T
    assert ((x > left) & (x < right) & (y > top) & (y < bottom)).all()
    assert window_of(hand.box) < 0.75 * 256**2
    assert hand.black < hand.middle < hand.white


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_the_box_does_not_depend_on_exposure_bit_depth_or_size(seed):
    image = render(120, 0, size=256, seed=seed).image
    fractions = image / 255
    copies = {
        "dim": np.rint(image * 0.3 + 90).astype(np.uint8),
        "large": cv2.resize(image, (1024, 1024), interpolation=cv2.INTER_LINEAR),
        "12 bit": image.astype(np.uint16) * 16,
        "16 bit": image.astype(np.uint16) * 200 + 1000,
        "gamma 0.7": np.rint(65535 * fractions**0.7).astype(np.uint16),
        "gamma 1.4": np.rint(65535 * fractions**1.4).astype(np.uint16),
    }
    expected = np.array(found_in(image).box) / len(image)
    for name, copy in copies.items():
        np.testing.assert_allclose(np.array(found_in(copy).box) / len(copy), expected, atol=0.02, err_msg=name)


@pytest.mark.parametrize("level", [0, 200])
@pytest.mark.parametrize("sides", [(0, 0, 128, 128), (60, 0, 0, 0), (0, 100, 0, 0), (0, 0, 0, 90), (77, 0, 0, 31)])
def test_flat_padding_shifts_the_box_and_barely_changes_the_input(sides, level):
    image = render(120, 1, size=256, seed=6).image
    top, bottom, left, right = sides
    padded = cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=level)
    found, expected = found_in(padded), found_in(image)
    np.testing.assert_allclose(np.array(found.box) - [left, top, left, top], expected.box, atol=2)
    preprocessing = Preprocessing(size=128, region="hand", clahe_clips=())
    difference = preprocessing.prepare(padded).astype(int) - preprocessing.prepare(image)
    # Outside the image the network sees the background intensity, whatever the padding was.
    assert np.abs(difference[32:96, 32:96]).mean() < 2


def test_content_excludes_flat_borders():
    image = np.zeros((40, 60), np.uint16)
    image[10:25, 12:50] = np.random.default_rng(0).integers(0, 4096, (15, 38))
    image[:, :5] = 3000  # a bright strip beside the image is also flat once the rows above and below are cut
    assert content(image) == (12, 10, 50, 25)
    assert content(image[10:25, 12:50]) == (0, 0, 38, 15)
    assert content(np.full((7, 9), 3, np.uint8)) == (0, 0, 9, 7)


@pytest.mark.parametrize("level", [0, 77, 255])
def test_a_constant_image_has_no_hand_and_is_used_whole(level):
    image = np.full((90, 80), level, np.uint8)
    assert find_hand(image) is None
    np.testing.assert_array_equal(
        Preprocessing(size=32, region="hand").prepare(image), Preprocessing(size=32).prepare(image)
    )


def test_the_crop_enlarges_and_centres_the_hand():
    phantom = render(150, 1, size=256, seed=5)
    small = cv2.copyMakeBorder(phantom.image, 128, 0, 128, 0, cv2.BORDER_REPLICATE)
    before = np.array(found_in(small).box) / len(small)
    side = max(before[2] - before[0], before[3] - before[1]) * 1.06
    prepared = Preprocessing(size=128, region="hand", margin=0.06, clahe_clips=()).prepare(small)
    found = np.array(found_in(prepared[..., 0]).box) / 128
    assert side < 0.7
    assert window_of(found) == pytest.approx(window_of(before) / side**2, rel=0.1)
    np.testing.assert_allclose([found[0] + found[2], found[1] + found[3]], [1, 1], atol=0.15)


def test_hand_exposure_barely_depends_on_a_bright_frame():
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
