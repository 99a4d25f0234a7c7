"""Predictors with joint networks find the joints themselves and report when the regions disagree."""

import dataclasses
from functools import cache

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boneage_jax.data import Preprocessing, phantom
from boneage_jax.errors import BoneAgeError
from boneage_jax.models import Description
from boneage_jax.predict.items import LEAST_JOINTS, Item
from boneage_jax.predict.predictor import Predictor
from boneage_jax.predict.regions import RegionFinder
from boneage_jax.regions.fingers import NAMES
from boneage_jax.released.calibration import Calibration
from boneage_jax.released.weights import Header, Weights
from tests.compiling import QUICK
from tests.predict import random_weights

PREPROCESSING = Preprocessing(size=32, region="joints", clahe_clips=())
PART = Calibration(1.0, 0.0, (8.0,) * 21, std_scale=1.0, quantile=2.0, images=100)
WHOLE = dataclasses.replace(PART, parts=(PART,) * len(NAMES), apart=100.0)


@cache
def predictor(calibration: Calibration | None = WHOLE) -> Predictor:
    description = Description(
        "joint_crops", {"variant": "tiny_lite"}, "joints", {"hidden": (8,)}, label_mean=100.0, label_std=40.0
    )
    network, image, sex = description.network(), jnp.zeros((1, 32, 32, len(NAMES))), jnp.zeros(1, jnp.int32)
    init = jax.jit(lambda key: network.init(key, image, sex, train=False), compiler_options=QUICK)
    variables = jax.tree.map(np.asarray, init(jax.random.key(1)))
    fitted = None if calibration is None else calibration.to_dict()
    header = Header("tiny_joints", description.to_dict(), PREPROCESSING.to_dict(), "centre", calibration=fitted)
    return Predictor(Weights(header, variables))


@cache
def hand() -> np.ndarray:
    return phantom.render(132, 1, size=400, seed=2).image


def test_each_region_has_a_reading_with_its_interval():
    found = predictor().predict(hand(), sex="M")
    assert len(found.regions) >= 15
    assert set(found.regions) <= set(NAMES)
    months = [one.months for one in found.regions.values()]
    assert found.months is not None
    assert min(months) <= found.months <= max(months)
    assert all(one.interval == pytest.approx((one.months - 16, one.months + 16)) for one in found.regions.values())
    assert not found.regions_disagree
    assert found.to_dict()["regions"]["Radius"]["months"] == found.regions["Radius"].months


def test_without_calibration_there_are_no_intervals():
    found = predictor(None).predict(hand(), sex="M")
    assert {one.interval for one in found.regions.values()} == {None}
    assert found.regions["Ulna"].months == pytest.approx(predictor().predict(hand(), sex="M").regions["Ulna"].months)


def test_regions_that_disagree_more_than_usual_are_warned_about():
    strict = predictor(dataclasses.replace(WHOLE, apart=0.0))
    assert strict.predict(hand(), sex="F").regions_disagree
    _, _, doubts = RegionFinder(random_weights.predictor(), strict).find(Item(hand(), "F"))
    assert [text for text in doubts if "lie farther apart than in 99 of 100 radiographs" in text]


def test_an_image_with_too_few_joints_is_rejected_with_their_number():
    with pytest.raises(BoneAgeError, match=r"the image: \d of 17 joints were found, .* 'tiny_joints' need 9 or more"):
        predictor().predict(random_weights.grainy(20.0), sex="F")


def test_a_calibration_for_other_regions_is_rejected():
    other = predictor(dataclasses.replace(WHOLE, parts=(PART,)))
    with pytest.raises(BoneAgeError, match="the calibration has 1 parts of the hand, the network reads 17"):
        other.predict(hand(), sex="F")


def test_the_finder_adds_readings_to_boxes_and_colours_them():
    finder = RegionFinder(random_weights.predictor(), predictor())
    found, overlay, doubts = finder.find(Item(hand(), "M"))
    assert doubts == ()
    assert found["weights"] == "tiny_joints"
    read = predictor().predict(hand(), sex="M")
    assert read.months is not None
    assert found["months"] == round(read.months, 1)
    by_name = {one["name"]: one for one in found["found"]}
    assert {name: one["months"] for name, one in by_name.items()} == {
        name: round(one.months, 1) for name, one in read.regions.items()
    }
    assert overlay.shape == (428, 400, 3)  # with the legend
    assert overlay[-28, 0].tolist() == [255, 0, 0]  # younger is blue
    assert overlay[-28, -1].tolist() == [0, 0, 255]  # older is red
    left, _top, right, bottom = (round(side) for side in by_name["Wrist"]["box"])
    colour = overlay[bottom, (left + right) // 2].astype(int)
    older = by_name["Wrist"]["months"] > found["months"]
    assert (colour[2] > colour[0]) == older


def test_the_finder_gives_no_bone_ages_if_the_sex_is_unknown():
    found, overlay, _ = RegionFinder(random_weights.predictor(), predictor()).find(Item(hand(), "unknown"))
    assert found["months"] is None
    assert {one["months"] for one in found["found"]} == {None}
    assert overlay.shape == (400, 400, 3)


def test_too_few_joints_give_warnings_and_no_bone_age():
    fingertips = np.ascontiguousarray(hand()[:190])
    found, overlay, doubts = RegionFinder(random_weights.predictor(), predictor()).find(Item(fingertips, "M"))
    assert (found["months"], found["interval"]) == (None, None)
    boxes = [one.to_dict() for one in random_weights.predictor().look(fingertips).find_regions().found]
    assert 0 < len(boxes) < LEAST_JOINTS
    assert found["found"] == [box | {"months": None, "interval": None} for box in boxes]
    assert len(boxes) + sum(found["missing"].values()) == len(NAMES)
    assert overlay.shape == (190, 400, 3)  # without the legend
    assert any("There is no reading of the regions: " in text for text in doubts)


def test_the_doubts_of_the_finder_do_not_name_the_file(tmp_path):
    path = tmp_path / "secret.png"
    cv2.imwrite(str(path), hand()[:190])
    _, _, doubts = RegionFinder(random_weights.predictor(), predictor()).find(Item(path, "M"))
    assert any("There is no reading of the regions: " in text for text in doubts)
    assert not any("secret" in text for text in doubts)
    assert any("ossification regions were not found" in text for text in doubts)


def test_joint_networks_find_regions_without_other_weights(monkeypatch):
    monkeypatch.setattr("boneage_jax.predict.regions.load", None)  # no other weights are loaded
    found, _, _ = RegionFinder(predictor()).find(Item(cv2.resize(hand(), (300, 300)), "M"))
    assert found["weights"] == "tiny_joints"


def test_the_finder_passes_the_further_inputs_on_to_the_network():
    ours, inputs = random_weights.predictor(inputs=random_weights.AGE), {"chronological_age": 130.0}
    found, _, doubts = RegionFinder(ours, ours).find(Item(hand(), "M", inputs))
    months = ours.predict(hand(), sex="M", inputs=inputs).months
    assert (found["months"], doubts) == (pytest.approx(months, abs=0.06), ())
