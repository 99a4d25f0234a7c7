"""Heat maps: their sum, their position on the radiograph, and their focus on growth plates."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import boneage_jax
from boneage_jax.data import phantom
from boneage_jax.errors import BoneAgeError
from boneage_jax.predict import heatmap
from boneage_jax.predict.heatmap import Maps, side_by_side
from boneage_jax.predict.items import Item
from boneage_jax.released import weights
from tests.predict import random_weights, test_region_readings
from tests.predict.random_weights import CALIBRATION, hand, predictor

AGE = {"chronological_age": 96.0}


@pytest.mark.parametrize("views", ["centre", "flip", "rotations"])
def test_attributions_add_up_to_the_change_in_bone_age(views):
    ours = predictor(head="regression", views=views)
    moved = jax.jit(heatmap.make_moved(ours.network, ours.preprocessing, views))
    image = ours.prepare(Item(hand(3), "F")).image[None].astype(np.float32)
    blurred = np.asarray(heatmap._blurred(jnp.asarray(image), heatmap.BLUR * image.shape[1]))
    sexes = np.zeros(1, np.int32)
    whole, without = (float(ours.estimate(one, sexes, {}).months[0]) for one in (image, blurred))
    found = float(moved(ours.variables, {"image": image, "sex": sexes, "inputs": {}}).sum())
    assert abs(whole - without) > 0.1
    assert found == pytest.approx(whole - without, rel=0.05)


@pytest.mark.parametrize(
    ("head", "inputs", "given"),
    [
        ("regression", (), {}),
        ("distribution", (), {}),
        ("sex_split_distribution", (), {}),
        ("relative", random_weights.AGE, AGE),
    ],
)
def test_every_head_has_a_heat_map(head, inputs, given):
    found = Maps(predictor(head=head, inputs=inputs)).find(Item(hand(3), "F", given))
    assert found.shape == (32, 32)
    assert found.min() >= 0
    assert found.max() == 1
    assert found.std() > 0.05


def test_maps_differ_for_female_male_and_unknown_sex():
    maps = Maps(predictor(head="sex_split_distribution"))
    girl, boy, both = (maps.find(Item(hand(3), sex)) for sex in ("F", "M", "unknown"))
    assert np.abs(girl - boy).max() > 0.01
    assert np.abs(both - girl).max() > 0.005
    assert np.abs(both - boy).max() > 0.005


def test_a_blank_image_has_an_empty_map():
    picture = Maps(predictor(calibration=CALIBRATION)).overlay(Item(np.full((40, 30), 7, np.uint8), "F"))
    np.testing.assert_array_equal(picture[:, :30], picture[:, 30:])


@pytest.mark.parametrize("scale", [1, 20])
def test_the_map_is_drawn_at_the_position_of_the_window(scale):
    spot = np.zeros((10, 10), np.float32)
    spot[7, 2] = 1  # rows 38 to 42 and columns 30 to 34 of the picture
    pixels = np.full((100 * scale, 80 * scale), 128, np.uint8)
    pixels[0] = 255  # otherwise the image would be blank
    picture = side_by_side(pixels, spot, (20.0 * scale, 10.0 * scale, 70.0 * scale, 50.0 * scale))
    height, width = picture.shape[0], picture.shape[1] // 2
    assert height == min(100 * scale, heatmap.LARGEST)
    plain, shown = picture[:, :width].astype(int), picture[:, width:].astype(int)
    rows, columns = np.nonzero(np.abs(plain - shown).sum(axis=-1) > 30)
    assert rows.mean() / height == pytest.approx(0.40, abs=0.01)
    assert columns.mean() / width == pytest.approx(32.5 / 80, abs=0.01)


def test_a_window_beyond_the_image_is_clipped():
    found = np.ones((8, 8), np.float32)
    picture = side_by_side(hand(3), found, (-40.0, 40.0, 40.0, 120.0))
    changed = (picture[:, :80] != picture[:, 80:]).any(axis=-1)
    assert changed[50:, :30].all()
    assert not changed[:35].any()
    assert not changed[:, 45:].any()


def auc(score, mask):
    """Probability that a pixel inside the mask scores higher than one outside."""
    ordered = mask.ravel()[np.argsort(score, axis=None, kind="stable")]
    inside, outside = ordered.sum(), (~ordered).sum()
    ranks = np.flatnonzero(ordered) + 1
    return (ranks.sum() - inside * (inside + 1) / 2) / (inside * outside)


@pytest.mark.slow  # half a minute each
@pytest.mark.parametrize("name", weights.names())
def test_released_maps_find_growth_plates_better_than_brightness(name):
    """On 32 phantoms of 3 to 14 years; growth plates are dilated by 4 % of the image side."""
    ours = boneage_jax.load(name)
    side = ours.preprocessing.size
    reach = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(0.04 * side) + 1,) * 2)
    maps, rng = Maps(ours), np.random.default_rng(1)
    areas, found = [], []
    for seed in range(32):
        drawn = phantom.render(rng.uniform(36, 168), seed % 2, size=side, seed=70_000 + seed)
        plates = cv2.dilate(in_window(drawn.growth_plates, ours.preprocessing.window(drawn.image)), reach).astype(bool)
        bright = ours.preprocessing.prepare(drawn.image)[..., 0].astype(np.float32)
        smooth = cv2.GaussianBlur(bright, (0, 0), heatmap.SMOOTH * side)
        areas.append(plates.mean())
        found.append([agreement(image, plates) for image in (maps.find(Item(drawn.image, seed % 2)), bright, smooth)])
    of_map, *brightness = np.mean(found, axis=0)
    print(f"area {np.mean(areas):.3f}; mass, strongest, auc: map {of_map}, brightness {brightness}")
    assert of_map[0] > 2 * np.mean(areas)
    assert (of_map[:2] > 1.1 * np.max(brightness, axis=0)[:2]).all()
    assert of_map[2] > np.max(brightness, axis=0)[2]


def in_window(mask, window):
    """The mask of a square image cropped to the network's window, uint8 of the same size."""
    left, top, right, _ = window
    step = (right - left) / len(mask)
    matrix = np.array([[step, 0, left + step / 2 - 0.5], [0, step, top + step / 2 - 0.5]])
    return cv2.warpAffine(mask.astype(np.uint8), matrix, mask.shape, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)


def agreement(score, mask) -> tuple[float, float, float]:
    """Share of the score inside the mask, share of the top 5 % of pixels inside it, and area under the ROC curve."""
    strongest = score >= np.quantile(score, 0.95)
    return score[mask].sum() / score.sum(), mask[strongest].mean(), auc(score, mask)


def test_weights_that_read_crops_have_no_maps_but_the_radiograph_alone():
    ours, item = test_region_readings.predictor(), Item(hand(3), "F")
    with pytest.raises(
        BoneAgeError, match="the weights 'tiny_joints' read crops around the joints, for which there is no"
    ):
        Maps(ours)
    assert heatmap.find_maps(ours) is None
    picture = heatmap.illustrate(ours, None, item)
    whole = predictor()
    np.testing.assert_array_equal(picture, heatmap.illustrate(whole, heatmap.find_maps(whole), item)[:, :80])
