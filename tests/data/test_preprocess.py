import cv2
import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from boneage_jax.data.augment import View, apply
from boneage_jax.data.phantom import render
from boneage_jax.data.preprocess import VERSION, Preprocessing
from boneage_jax.data.radiograph import square_pixels
from boneage_jax.errors import BoneAgeError
from boneage_jax.sex import Sex


def picture(height=200, width=150, dtype=np.uint8):
    y, x = (
        np.mgrid[:height, :width]
        / (
            height,
            width,
        )[0]
    )
    grey = 0.5 + 0.3 * np.sin(9 * x) * np.cos(7 * y)
    return (grey * np.iinfo(dtype).max).astype(dtype)


def test_output_has_one_channel_per_clahe_limit():
    for clips, channels in (((), 1), ((2.0,), 1), ((1.0, 2.0, 4.0), 3)):
        preprocessing = Preprocessing(size=48, clahe_clips=clips, clahe_grid=2)
        assert preprocessing.channels == channels
        prepared = preprocessing.prepare(picture())
        assert prepared.shape == (48, 48, channels)
        assert prepared.dtype == np.uint8
    assert (prepared[..., 0] != prepared[..., 2]).any()


@pytest.mark.parametrize(("gain", "offset"), [(0.2, 0.0), (0.5, 100.0)])
def test_exposure_normalises_a_dim_copy(gain, offset):
    preprocessing = Preprocessing(size=64, clahe_clips=())
    bright = picture()
    dim = np.rint(bright * gain + offset).astype(np.uint8)
    difference = preprocessing.prepare(dim).astype(int) - preprocessing.prepare(bright)
    assert np.abs(difference).mean() < 4


@pytest.mark.parametrize("region", ["image", "hand"])
@pytest.mark.parametrize("clips", [(), (2.0,)])
@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_higher_bit_depths_give_the_same_input(region, clips, bits):
    preprocessing = Preprocessing(size=64, region=region, clahe_clips=clips)
    for eight in (picture(), render(120, 0, size=256, seed=3).image):
        more = eight.astype(np.uint16) * (257 if bits == 16 else 2 ** (bits - 8))
        difference = preprocessing.prepare(eight).astype(int) - preprocessing.prepare(more)
        # Rounding in the last resampling may differ by one level, which CLAHE can amplify.
        assert np.abs(difference).mean() < 0.05


@pytest.mark.parametrize("levels", [24, 48])
def test_resampling_smooths_coarse_intensity_levels(levels):
    fine = np.rint(cv2.resize(picture(1200, 900).astype(np.float32), (900, 1200)) * 257).astype(np.uint16)
    coarse = np.rint(fine / 65535 * levels).astype(np.uint8)
    preprocessing = Preprocessing(size=128, clahe_clips=())
    difference = preprocessing.prepare(coarse).astype(int) - preprocessing.prepare(fine)
    assert np.abs(difference).mean() < 255 / levels / 2


@pytest.mark.parametrize("gamma", [0.7, 1.4])
def test_hand_preprocessing_is_nearly_invariant_to_gamma(gamma):
    image = render(140, 1, size=400, seed=9).image
    curved = np.rint(65535 * (image / 255) ** gamma).astype(np.uint16)

    def change(preprocessing):
        difference = preprocessing.prepare(curved).astype(int) - preprocessing.prepare(image)
        return np.abs(difference).mean()

    hand = change(Preprocessing(size=128, region="hand", clahe_clips=()))
    assert hand < 5
    assert hand < 0.5 * change(Preprocessing(size=128, clahe_clips=()))


def test_the_hand_crop_keeps_the_aspect_ratio():
    image = render(140, 1, size=400, seed=9).image
    wide = cv2.copyMakeBorder(image, 0, 0, 200, 200, cv2.BORDER_CONSTANT, value=0)
    preprocessing = Preprocessing(size=128, region="hand")
    left, top, right, bottom = preprocessing.window(wide)
    assert right - left == pytest.approx(bottom - top)
    np.testing.assert_allclose([left, top], np.add(preprocessing.window(image)[:2], [200, 0]), atol=3)


def test_a_full_size_original_and_its_small_copy_give_similar_inputs():
    original = picture(900, 700)
    copy = cv2.resize(original, (299, 299), interpolation=cv2.INTER_LINEAR)
    preprocessing = Preprocessing(size=128)
    difference = preprocessing.prepare(original).astype(int) - preprocessing.prepare(copy)
    assert np.abs(difference).mean() < 3


@pytest.mark.parametrize("border", [(0, 0), (300, 500)], ids=["tight", "wide"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_full_size_original_is_as_sharp_as_its_small_copy(seed, border):
    """In each direction, whether the hand fills the image or is small in it, and so less sharp in the copy."""

    def detail(image):
        prepared = Preprocessing(size=256, region="hand", clahe_clips=()).prepare(image)[..., 0].astype(np.float32)
        return np.array([cv2.Sobel(prepared, -1, *orders).std() for orders in ((2, 0), (0, 2))])

    hand = render(120, Sex.MALE, size=1800, seed=seed).image[:, 200:1600]
    wide = np.pad(hand, ([border[0]] * 2, [border[1]] * 2), mode="edge")
    background = np.add.outer(np.linspace(0, 20, wide.shape[0]), np.linspace(0, 20, wide.shape[1]))  # not a flat border
    original = np.maximum(wide, background).astype(np.uint8)
    squashed = PIL.Image.fromarray(original).resize((299, 299), PIL.Image.Resampling.BILINEAR)
    copy = square_pixels(np.array(squashed), original.shape[0] / original.shape[1], "copy.png")
    np.testing.assert_allclose(detail(original) / detail(copy), 1, atol=0.15)


def test_a_network_trained_on_originals_sees_them_as_sharp_as_they_are():
    original = render(120, Sex.MALE, size=1800, seed=0).image

    def detail(copy_side):
        prepared = Preprocessing(size=512, region="hand", clahe_clips=(), copy_side=copy_side).prepare(original)
        return cv2.Laplacian(prepared[..., 0].astype(np.float32), -1).std()

    assert detail(0) > 1.2 * detail(299) > 1.2 * detail(200)


@pytest.mark.parametrize("shape", [(20, 20), (20, 90), (90, 20), (1, 1)])
def test_small_images_are_enlarged(shape):
    prepared = Preprocessing(size=32, clahe_clips=()).prepare(np.resize(picture(), shape))
    assert prepared.shape == (32, 32, 1)


@pytest.mark.parametrize("level", [0, 7, 255])
@pytest.mark.parametrize("exposure", [(0.0, 100.0), (1.0, 99.0)])
@pytest.mark.parametrize("scaling", ["symmetric", "standardise"])
def test_a_constant_image_stays_constant_and_finite(level, exposure, scaling):
    preprocessing = Preprocessing(size=32, exposure=exposure, clahe_clips=(), scaling=scaling)
    scaled = preprocessing.scale(preprocessing.prepare(np.full((50, 40), level, np.uint8)))
    assert np.isfinite(scaled).all()
    assert np.ptp(scaled) == 0


@pytest.mark.parametrize("scaling", ["symmetric", "standardise"])
def test_scale_is_the_same_for_numpy_and_jax(scaling):
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 2)).astype(np.uint8)
    preprocessing = Preprocessing(size=16, scaling=scaling, clahe_grid=2)
    ours, theirs = preprocessing.scale(images), preprocessing.scale(jnp.asarray(images))
    assert ours.dtype == theirs.dtype == np.float32
    assert isinstance(theirs, jnp.ndarray)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_scalings_give_minus_one_to_one_or_zero_mean_and_unit_variance():
    image = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 1)).astype(np.uint8)
    image[0, 0, 0], image[0, 0, 1] = 0, 255
    symmetric = Preprocessing(size=16).scale(image)
    assert (symmetric.min(), symmetric.max()) == (-1, 1)
    standard = Preprocessing(size=16, scaling="standardise").scale(image)
    np.testing.assert_allclose(standard.mean(axis=(1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(standard.std(axis=(1, 2, 3)), 1, atol=1e-5)


def test_settings_round_trip_through_a_dict():
    preprocessing = Preprocessing(
        size=64, exposure=(0.0, 98.0), clahe_clips=(1.0, 2.5), scaling="standardise", region="hand"
    )
    assert Preprocessing.from_dict(preprocessing.to_dict()) == preprocessing
    with pytest.raises(BoneAgeError, match="clahe_clip;"):
        Preprocessing.from_settings({"size": 64, "clahe_clip": 2})


def test_another_preprocessing_version_is_rejected():
    fields = Preprocessing(size=64).to_dict()
    assert fields["version"] == VERSION
    with pytest.raises(BoneAgeError, match="expect version 3 of the preprocessing, but this program has version 2"):
        Preprocessing.from_dict({**fields, "version": 3})


def test_the_first_preprocessing_version_which_wrote_no_number_is_rejected():
    fields = Preprocessing(size=64).to_dict()
    del fields["version"]
    with pytest.raises(BoneAgeError, match="expect version 1 of the preprocessing"):
        Preprocessing.from_dict(fields)


def check(fields):
    """Runs the library's own validation; in tests, the runtime type checker would raise first."""
    unchecked = object.__new__(Preprocessing)
    unchecked.__dict__.update(fields)
    unchecked.__post_init__()


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"size": 299.0},
        {"size": True},
        {"clahe_grid": 0},
        {"size": 4, "clahe_grid": 8},
        {"clahe_clips": (0.0,)},
        {"clahe_clips": 2.0},
        {"exposure": (99.0, 1.0)},
        {"exposure": (1.0,)},
        {"exposure": (-1.0, 99.0)},
        {"scaling": "imagenet"},
        {"region": "wrist"},
        {"copy_side": -1},
        {"copy_side": 5000},
        {"copy_side": 299.0},
        {"margin": -0.1},
        {"margin": 2},
        {"margin": "wide"},
        {"crop": -1},
        {"crop": 65},
        {"crop": 32.0},
        {"crop": True},
    ],
)
def test_an_invalid_field_is_named(wrong):
    with pytest.raises(BoneAgeError, match=list(wrong)[-1]):
        check({"size": 64, **wrong})


@pytest.mark.parametrize("image", [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.float32)])
def test_prepare_accepts_only_greyscale_integer_images(image):
    with pytest.raises(BoneAgeError, match="greyscale image"):
        Preprocessing(size=64).prepare(image)


def numbered(size=6, count=2, channels=1):
    return np.arange(count * size * size * channels).reshape(count, size, size, channels)


def crops(size=6, crop=4):
    return Preprocessing(size=size, clahe_grid=2, crop=crop)


@pytest.mark.parametrize(("crop", "visible"), [(0, 6), (4, 4), (6, 6)])
def test_the_network_sees_the_crop_or_the_whole_image(crop, visible):
    preprocessing = crops(crop=crop)
    assert preprocessing.visible == visible
    assert preprocessing.views(numbered(), "flip").shape == (2, 2, visible, visible, 1)
    assert preprocessing.prepare(picture()).shape == (6, 6, 1)


def test_centre_view_is_the_whole_image_or_the_centre_crop():
    images = numbered(channels=3)
    np.testing.assert_array_equal(crops(crop=0).views(images, "centre"), images[None])
    np.testing.assert_array_equal(crops(crop=4).views(images, "centre"), images[None, :, 1:5, 1:5])
    np.testing.assert_array_equal(crops(crop=3).views(images, "centre"), images[None, :, 1:4, 1:4])


def test_flip_view_adds_the_mirror_image():
    images = numbered()
    np.testing.assert_array_equal(crops(crop=0).views(images, "flip"), [images, images[:, :, ::-1]])


def test_ten_crops_are_the_corners_the_centre_and_their_mirror_images():
    images = numbered(channels=2)
    found = crops().views(images, "ten_crop")
    expected = [
        images[:, :4, :4],
        images[:, :4, 2:],
        images[:, 2:, :4],
        images[:, 2:, 2:],
        images[:, 1:5, 1:5],
    ]
    np.testing.assert_array_equal(found[:5], expected)
    np.testing.assert_array_equal(found[5:], np.stack(expected)[:, :, :, ::-1])


@pytest.mark.parametrize(("size", "crop", "channels"), [(33, 0, 1), (40, 32, 5)])
def test_rotation_views_match_the_augmentation(size, crop, channels):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, size, size, channels), dtype=np.uint8)
    images = np.stack([cv2.GaussianBlur(image, (0, 0), 2).reshape(image.shape) for image in images])
    found = crops(size, crop).views(images, "rotations").astype(int)
    turned = [np.stack([apply(image, View(angle=angle)) for image in images]) for angle in (10.0, -10.0)]
    edge = (size - (crop or size)) // 2
    expected = np.stack(turned)[:, :, edge : size - edge, edge : size - edge].astype(int)

    assert np.abs(found - expected).max() <= 1


def test_rotation_views_of_float_images_are_unrounded_and_differentiable():
    images = jnp.asarray(np.random.default_rng(0).uniform(0, 255, (1, 9, 9, 1)), jnp.float32)
    views = crops(9, 0).views(images, "rotations")
    gradient = jax.grad(lambda x: crops(9, 0).views(x, "rotations").sum())(images)

    assert (np.asarray(views[0]) % 1 > 0.01).any()
    assert gradient[0, 4, 4, 0] == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize("views", ["centre", "flip", "rotations", "ten_crop"])
def test_views_are_the_same_for_numpy_and_under_jit(views):
    images = numbered().astype(np.uint8)
    ours = crops().views(images, views)
    theirs = jax.jit(lambda x: crops().views(x, views))(jnp.asarray(images))
    assert isinstance(theirs, jnp.ndarray)
    assert ours.dtype == theirs.dtype == np.uint8
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("crop", "views", "size", "message"),
    [
        (4, "five_crop", 6, "unknown views 'five_crop'; expected one of centre, flip, rotations, ten_crop"),
        (0, "ten_crop", 6, r"need preprocessing\.crop above 0"),
        (4, "centre", 5, r"prepared images \[B, 6, 6, C\], not of shape \(2, 5, 5, 1\)"),
    ],
)
def test_invalid_view_requests_are_rejected(crop, views, size, message):
    with pytest.raises(BoneAgeError, match=message):
        crops(crop=crop).views(numbered(size), views)
