import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boneage_jax.data.preprocess import Preprocessing
from boneage_jax.errors import BoneAgeError


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


def test_shape_has_one_channel_per_clip_limit():
    for clips, channels in (((), 1), ((2.0,), 1), ((1.0, 2.0, 4.0), 3)):
        preprocessing = Preprocessing(size=48, clahe_clips=clips, clahe_grid=2)
        assert preprocessing.channels == channels
        prepared = preprocessing.prepare(picture())
        assert prepared.shape == (48, 48, channels)
        assert prepared.dtype == np.uint8
    assert (prepared[..., 0] != prepared[..., 2]).any()


@pytest.mark.parametrize(("gain", "offset"), [(0.2, 0.0), (0.5, 100.0)])
def test_exposure_makes_a_dim_copy_look_like_the_original(gain, offset):
    preprocessing = Preprocessing(size=64, clahe_clips=())
    bright = picture()
    dim = np.rint(bright * gain + offset).astype(np.uint8)
    difference = preprocessing.prepare(dim).astype(int) - preprocessing.prepare(bright)
    assert np.abs(difference).mean() < 4
    untouched = Preprocessing(size=64, clahe_clips=(), exposure=None)
    assert np.abs(untouched.prepare(dim).astype(int) - untouched.prepare(bright)).mean() > 20


def test_sixteen_bits_give_what_eight_bits_give():
    for exposure in (None, (1.0, 99.0)):
        preprocessing = Preprocessing(size=64, clahe_clips=(), exposure=exposure)
        eight = picture()
        eight[:20, :20], eight[-20:, -20:] = 0, 255
        sixteen = eight.astype(np.uint16) * 257
        difference = preprocessing.prepare(eight).astype(int) - preprocessing.prepare(sixteen)
        assert np.abs(difference).mean() < 3


def test_a_full_size_original_and_its_small_copy_prepare_alike():
    original = picture(900, 700)
    copy = cv2.resize(original, (299, 299), interpolation=cv2.INTER_LINEAR)
    preprocessing = Preprocessing(size=128)
    difference = preprocessing.prepare(original).astype(int) - preprocessing.prepare(copy)
    assert np.abs(difference).mean() < 3


@pytest.mark.parametrize("shape", [(20, 20), (20, 90), (90, 20), (1, 1)])
def test_small_images_are_enlarged(shape):
    prepared = Preprocessing(size=32, clahe_clips=()).prepare(np.resize(picture(), shape))
    assert prepared.shape == (32, 32, 1)


@pytest.mark.parametrize("level", [0, 7, 255])
@pytest.mark.parametrize("exposure", [None, (1.0, 99.0)])
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


def test_symmetric_maps_to_minus_one_and_one_and_standardise_to_unit_variance():
    image = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 1)).astype(np.uint8)
    image[0, 0, 0], image[0, 0, 1] = 0, 255
    symmetric = Preprocessing(size=16).scale(image)
    assert (symmetric.min(), symmetric.max()) == (-1, 1)
    standard = Preprocessing(size=16, scaling="standardise").scale(image)
    np.testing.assert_allclose(standard.mean(axis=(1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(standard.std(axis=(1, 2, 3)), 1, atol=1e-5)


def test_to_dict_and_back():
    preprocessing = Preprocessing(size=64, exposure=None, clahe_clips=(1.0, 2.5), scaling="standardise", region="hand")
    assert Preprocessing.from_dict(preprocessing.to_dict()) == preprocessing
    with pytest.raises(BoneAgeError, match="clahe_clip;"):
        Preprocessing.from_dict({"size": 64, "clahe_clip": 2})


def check(fields):
    """Runs the validation that users meet; in tests the type checker would come first."""
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
        {"margin": -0.1},
        {"margin": 2},
        {"margin": "wide"},
        {"crop": -1},
        {"crop": 65},
        {"crop": 32.0},
        {"crop": True},
    ],
)
def test_a_wrong_field_is_named(wrong):
    with pytest.raises(BoneAgeError, match=list(wrong)[-1]):
        check({"size": 64, **wrong})


@pytest.mark.parametrize("image", [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.float32)])
def test_prepare_takes_grey_integers_only(image):
    with pytest.raises(BoneAgeError, match="grey image"):
        Preprocessing(size=64).prepare(image)


def numbered(size=6, count=2, channels=1):
    return np.arange(count * size * size * channels).reshape(count, size, size, channels)


def crops(size=6, crop=4):
    return Preprocessing(size=size, clahe_grid=2, crop=crop)


@pytest.mark.parametrize(("crop", "visible"), [(0, 6), (4, 4), (6, 6)])
def test_the_network_sees_the_crop_or_the_whole(crop, visible):
    preprocessing = crops(crop=crop)
    assert preprocessing.visible == visible
    assert preprocessing.views(numbered(), "flip").shape == (2, 2, visible, visible, 1)
    assert preprocessing.prepare(picture()).shape == (6, 6, 1)


def test_the_centre_is_the_whole_image_without_a_crop_and_its_middle_with_one():
    images = numbered(channels=3)
    np.testing.assert_array_equal(crops(crop=0).views(images, "centre"), images[None])
    np.testing.assert_array_equal(crops(crop=4).views(images, "centre"), images[None, :, 1:5, 1:5])
    np.testing.assert_array_equal(crops(crop=3).views(images, "centre"), images[None, :, 1:4, 1:4])


def test_a_flip_adds_the_mirror_image():
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


@pytest.mark.parametrize("views", ["centre", "flip", "ten_crop"])
def test_views_are_the_same_for_numpy_and_inside_a_compiled_function(views):
    images = numbered().astype(np.uint8)
    ours = crops().views(images, views)
    theirs = jax.jit(lambda x: crops().views(x, views))(jnp.asarray(images))
    assert isinstance(theirs, jnp.ndarray)
    assert ours.dtype == theirs.dtype == np.uint8
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("crop", "views", "size", "message"),
    [
        (4, "five_crop", 6, "no views 'five_crop'; expected one of centre, flip, ten_crop"),
        (0, "ten_crop", 6, r"need preprocessing\.crop above 0"),
        (4, "centre", 5, r"prepared images \[B, 6, 6, C\], not of shape \(2, 5, 5, 1\)"),
    ],
)
def test_views_that_cannot_be_cut_are_refused(crop, views, size, message):
    with pytest.raises(BoneAgeError, match=message):
        crops(crop=crop).views(numbered(size), views)
