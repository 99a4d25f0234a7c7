import dataclasses
import pickle

import cv2
import numpy as np
import pytest

from boneage_jax.data.augment import Augmentation, View, apply
from boneage_jax.errors import BoneAgeError

ALL = Augmentation(flip=0.5, rotation=20.0, shift=0.1, zoom=0.2, brightness=0.1, contrast=0.3, gamma=0.5, sharpness=0.5)


def picture(channels=1, size=21):
    return np.random.default_rng(0).integers(0, 256, (size, size, channels), dtype=np.uint8)


def dot(x, y, size=21):
    image = np.zeros((size, size, 1), np.uint8)
    image[y, x] = 200
    return image


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_channel_count_keeps_shape_and_type(channels):
    image = picture(channels)
    result = apply(image, View(flip=True, angle=7.0, gain=1.2))
    assert result.shape == image.shape
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous


@pytest.mark.parametrize("channels", [1, 3])
def test_default_augmentation_changes_nothing(channels):
    image = picture(channels)
    view = Augmentation().sample(np.random.default_rng(0), 21)
    assert view == View()
    assert apply(image, view) is image


@pytest.mark.parametrize("size", [20, 21, 299])
def test_a_flip_is_the_exact_mirror_image(size):
    image = picture(3, size)
    np.testing.assert_array_equal(apply(image, View(flip=True)), image[:, ::-1])


@pytest.mark.parametrize("size", [20, 21])
def test_a_rotation_by_90_degrees_is_counter_clockwise(size):
    image = picture(1, size)
    difference = apply(image, View(angle=90.0)).astype(int) - np.rot90(image).astype(int)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("size", [20, 21])
def test_flip_is_applied_before_rotation(size):
    image = picture(1, size)
    result = apply(image, View(flip=True, angle=90.0)).astype(int)
    assert np.abs(result - np.rot90(image[:, ::-1]).astype(int)).max() <= 1


def test_a_whole_pixel_shift_moves_a_dot_exactly():
    np.testing.assert_array_equal(apply(dot(5, 8), View(shift=(3.0, -2.0))), dot(8, 6))


def test_a_half_pixel_shift_is_split_between_two_pixels():
    result = apply(dot(5, 8), View(shift=(0.5, 0.0)))
    np.testing.assert_allclose(result[8, 5:7, 0], [100, 100], atol=1)


def test_shift_is_applied_after_flip_rotation_and_zoom():
    view = View(flip=True, angle=90.0, scale=2.0, shift=(1.0, 0.0))
    centre = np.array([10.0, 10.0])
    # 3 right of the centre: flipped 3 left, rotated counter-clockwise 3 below, zoomed 6 below, then 1 right.
    place = view.matrix(21) @ np.array([13.0, 10.0, 1.0])
    np.testing.assert_allclose(place - centre, [1.0, 6.0], atol=1e-12)
    assert apply(dot(13, 10), view)[16, 11, 0] == 200


def test_zoom_enlarges_about_the_centre():
    result = apply(dot(13, 10), View(scale=2.0))
    assert np.array_equal(np.unravel_index(result.argmax(), result.shape), (10, 16, 0))


def test_pixels_from_outside_the_image_are_black():
    white = np.full((20, 20, 1), 255, np.uint8)
    result = apply(white, View(shift=(4.0, 0.0)))
    assert not result[:, :4].any()
    assert (result[:, 4:] == 255).all()


def test_pixels_from_outside_get_the_same_brightness_offset():
    black = np.zeros((20, 20, 1), np.uint8)
    result = apply(black, View(shift=(4.0, 0.0), offset=30.0))
    assert (result == 30).all()


def test_gain_and_offset_follow_the_formula_and_clip_to_uint8():
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    result = apply(image, View(gain=1.5, offset=10.0)).ravel()
    for old in (0, 50, 100, 127, 128, 200, 255):
        expected = min(max((old - 127.5) * 1.5 + 127.5 + 10, 0), 255)
        assert abs(float(result[old]) - expected) <= 0.5
    assert (np.diff(result.astype(int)) >= 0).all()


def test_gamma_is_applied_before_gain_and_offset():
    table = View(gamma=2.0, gain=1.5, offset=10.0).table()
    assert table[128] == round((255 * (128 / 255) ** 2 - 127.5) * 1.5 + 127.5 + 10)
    np.testing.assert_array_equal(View(gamma=0.5).table()[[0, 64, 255]], [0, round(255 * (64 / 255) ** 0.5), 255])


def test_sharpness_adds_or_removes_detail_finer_than_the_blur():
    point = np.zeros((5, 5, 1), np.uint8)
    point[2, 2] = 160
    blurred = apply(point, View(sharpness=-1.0))[..., 0]
    np.testing.assert_array_equal(blurred[1:4, 1:4], [[10, 20, 10], [20, 40, 20], [10, 20, 10]])
    sharpened = apply(255 - point, View(sharpness=0.5))[..., 0]
    np.testing.assert_array_equal(sharpened[1:4, 1:4], [[255, 255, 255], [255, 95 - 60, 255], [255, 255, 255]])
    flat = np.full((6, 6, 1), 77, np.uint8)
    np.testing.assert_array_equal(apply(flat, View(sharpness=39 / 64)), flat)


def test_sampled_views_cover_their_ranges_without_exceeding_them():
    rng = np.random.default_rng(0)
    views = [ALL.sample(rng, 100) for _ in range(2000)]
    for values, low, high in [
        ([view.angle for view in views], -20, 20),
        ([view.scale for view in views], 0.8, 1.2),
        ([view.shift[0] for view in views], -10, 10),
        ([view.shift[1] for view in views], -10, 10),
        ([view.offset for view in views], -25.5, 25.5),
        ([view.gain for view in views], 0.7, 1.3),
        ([view.sharpness for view in views], -0.5, 0.5),
        ([np.log(view.gamma) for view in views], -np.log(1.5), np.log(1.5)),
    ]:
        margin = (high - low) / 50
        assert low <= min(values) < low + margin
        assert high - margin < max(values) <= high
    assert 0.45 < np.mean([view.flip for view in views]) < 0.55


@pytest.mark.parametrize("channels", [1, 3])
def test_crop_without_warp_is_a_slice_of_the_image(channels):
    image = picture(channels)
    result = apply(image, View(crop=5, corner=(3, 9), offset=10.0))
    np.testing.assert_array_equal(result, apply(image, View(offset=10.0))[9:14, 3:8])


def test_crop_with_warp_matches_the_crop_of_the_warped_image():
    image = cv2.GaussianBlur(picture(3, 41), (0, 0), 3)
    moving = View(flip=True, angle=12.0, scale=1.1, shift=(2.5, -1.0), gain=1.2)
    whole = apply(image, moving)
    window = apply(image, dataclasses.replace(moving, crop=20, corner=(7, 15)))
    assert window.shape == (20, 20, 3)
    assert np.abs(window.astype(int) - whole[15:35, 7:27]).max() <= 1


def test_crop_positions_are_uniform_and_leave_other_draws_unchanged():
    rngs = np.random.default_rng(0), np.random.default_rng(0)
    corners = []
    for _ in range(3000):
        whole, part = ALL.sample(rngs[0], 10), ALL.sample(rngs[1], 10, crop=8)
        corners.append(part.corner)
        assert dataclasses.replace(part, crop=0, corner=(0, 0)) == whole
    counts = [corners.count((x, y)) for x in range(3) for y in range(3)]
    assert sum(counts) == 3000
    assert min(counts) > 250
    assert max(counts) < 420


@pytest.mark.parametrize("crop", [-1, 11])
def test_an_invalid_crop_size_is_rejected(crop):
    with pytest.raises(BoneAgeError, match=f"crop is {crop} pixels, expected 0 to the image's 10"):
        ALL.sample(np.random.default_rng(0), 10, crop)


def test_heat_maps_get_only_the_geometry_of_a_view():
    view = View(angle=10.0, shift=(1.0, 0.0), crop=9, corner=(2, 3), sharpness=0.5, gain=1.5, offset=9.0, gamma=0.8)
    assert view.geometry() == View(angle=10.0, shift=(1.0, 0.0), crop=9, corner=(2, 3))


def test_flip_probabilities_of_one_and_zero_are_exact():
    rng = np.random.default_rng(0)
    assert all(Augmentation(flip=1.0).sample(rng, 8).flip for _ in range(50))
    assert not any(Augmentation(rotation=5.0).sample(rng, 8).flip for _ in range(50))


def test_disabling_rotation_leaves_the_other_draws_unchanged():
    quiet = dataclasses.replace(ALL, rotation=0.0)
    rngs = np.random.default_rng(1), np.random.default_rng(1)
    for _ in range(3):
        full, less = ALL.sample(rngs[0], 50), quiet.sample(rngs[1], 50)
        assert full.angle != 0
        assert dataclasses.replace(full, angle=0.0) == less


def test_the_input_image_is_not_modified():
    image = picture(3)
    before = image.copy()
    apply(image, ALL.sample(np.random.default_rng(0), 21))
    np.testing.assert_array_equal(image, before)


def test_augmentation_survives_pickling():
    assert pickle.loads(pickle.dumps(ALL)) == ALL


@pytest.mark.parametrize(
    ("field", "value", "limit"),
    [
        ("flip", 1.5, "1"),
        ("rotation", -1.0, "180"),
        ("rotation", 181.0, "180"),
        ("shift", 1.1, "1"),
        ("zoom", 1.0, "below 1"),
        ("brightness", 2.0, "1"),
        ("contrast", 1.0, "below 1"),
        ("sharpness", 1.1, "1"),
        ("gamma", -0.1, "1"),
        ("gamma", 1.1, "1"),
        ("zoom", float("nan"), "below 1"),
    ],
)
def test_an_out_of_range_setting_is_named(field, value, limit):
    with pytest.raises(BoneAgeError, match=rf"augmentation\.{field} must be a number from 0 to {limit}, not {value}"):
        Augmentation(**{field: value})
