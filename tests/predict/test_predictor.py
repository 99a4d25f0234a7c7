"""The predictor: an image gets the same answer in every input form and in every batch."""

import dataclasses
import subprocess
import sys
from collections.abc import Generator
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import boneage_jax
from boneage_jax import inference
from boneage_jax.errors import BoneAgeError
from boneage_jax.models import Estimate, Input
from boneage_jax.predict.items import Item, Picture, read_inputs
from boneage_jax.predict.prediction import Prediction, RefusedImageError
from boneage_jax.predict.predictor import Predictor
from boneage_jax.predict.results import result
from boneage_jax.predict.worklist import Request
from boneage_jax.released import weights
from boneage_jax.released.checks import CORRECTED, QUARTER_TURNS, Finding
from boneage_jax.sex import Sex
from tests.predict import random_weights
from tests.predict.random_weights import CALIBRATION, hand, predictor


def months(predictions) -> list[float]:
    return [one.months for one in predictions]


def test_a_prediction_is_the_network_output_on_the_prepared_image():
    found = predictor().predict(hand(3), sex="M")
    image = jnp.asarray(random_weights.PREPROCESSING.scale(random_weights.PREPROCESSING.prepare(hand(3))))[None]
    expected: Any = predictor().network.apply(predictor().variables, image, jnp.array([Sex.MALE]), train=False)
    assert found.months == pytest.approx(float(expected.months[0]), abs=1e-3)
    assert found.std == pytest.approx(float(expected.std[0]), abs=1e-3)
    assert found.interval is None
    assert found.sex == "M"
    assert found.by_sex is None


def test_a_calibrated_prediction_has_an_interval():
    plain = predictor().predict(hand(3), sex="F")
    found = predictor(calibration=CALIBRATION).predict(hand(3), sex="F")
    assert plain.months is not None
    assert plain.std is not None
    assert found.months == pytest.approx(1.1 * plain.months - 8)
    assert found.std == pytest.approx(0.5 * plain.std)
    assert found.months is not None
    assert found.interval == pytest.approx((max(found.months - 1.5 * plain.std, 0), found.months + 1.5 * plain.std))


def test_a_head_without_std_gives_no_std_or_interval():
    found = predictor(head="regression").predict(hand(3), sex="F")
    assert (found.std, found.interval) == (None, None)


@pytest.mark.parametrize("views", ["centre", "flip", "rotations"])
def test_predictions_do_not_depend_on_the_batch(views):
    ours = predictor(views=views)
    items = [Item(hand(i), i % 2) for i in range(5)]
    alone = [ours.predict(item.image, sex=item.sex) for item in items]
    for batch_size in (2, 5):
        together = list(ours.predict_many(items, batch_size=batch_size))
        np.testing.assert_allclose(months(together), months(alone), atol=1e-3)
        assert [one.sex for one in together] == ["F", "M", "F", "M", "F"]
    assert len({round(one, 2) for one in months(alone)}) == 5


def test_partial_batches_and_unknown_sex_do_not_recompile(monkeypatch):
    traced = []
    original = inference._mean_estimate

    def trace(*arguments):
        traced.append(1)
        return original(*arguments)

    monkeypatch.setattr(inference, "_mean_estimate", trace)
    ours = Predictor(random_weights.weights())
    girls = list(ours.predict_many([Item(hand(i), "F") for i in range(5)], batch_size=4))
    mixed = list(ours.predict_many([Item(hand(0), "unknown"), Item(hand(1), "F")], batch_size=4))  # three readings
    by_sex = mixed[0].by_sex
    assert by_sex is not None
    assert months([by_sex["F"], mixed[1]]) == pytest.approx(months(girls[:2]), abs=1e-3)
    assert len(girls) == 5
    assert len(traced) == 1


def test_arrays_paths_and_bytes_give_the_same_bone_age(tmp_path):
    cv2.imwrite(str(tmp_path / "hand.png"), hand(2))
    ways = [hand(2), tmp_path / "hand.png", str(tmp_path / "hand.png"), (tmp_path / "hand.png").read_bytes()]
    found = [predictor().predict(way, sex=Sex.FEMALE).months for way in ways]
    assert found == [found[0]] * 4


@pytest.mark.parametrize(
    ("sex", "letter"), [("F", "F"), ("m", "M"), ("female", "F"), (Sex.MALE, "M"), (np.int32(0), "F")]
)
def test_the_sex_is_given_by_letter_word_or_number(sex, letter):
    assert predictor().predict(hand(0), sex=sex).sex == letter


@pytest.mark.parametrize("sex", ["", "x", True, 2, "unknown?"])
def test_an_invalid_sex_is_rejected(sex):
    with pytest.raises(BoneAgeError, match=r"invalid sex .*; expected 'F', 'M', or 'unknown'"):
        predictor().prepare(Item(hand(0), sex))


def test_an_unknown_sex_gives_both_readings_and_no_combined_reading():
    found = predictor(calibration=CALIBRATION).predict(hand(3), sex="unknown")
    girl, boy = (predictor(calibration=CALIBRATION).predict(hand(3), sex=sex) for sex in "FM")
    assert (found.months, found.std, found.interval, found.sex) == (None, None, None, "unknown")
    assert found.by_sex == {"F": girl, "M": boy}
    assert girl.months != boy.months


def test_known_and_unknown_sexes_keep_their_order_in_a_batch():
    items = [Item(hand(0), "F"), Item(hand(1), "unknown"), Item(hand(2), "unknown"), Item(hand(3), "M")]
    found = list(predictor().predict_many(items, batch_size=3))
    assert [one.sex for one in found] == ["F", "unknown", "unknown", "M"]
    expected = predictor().predict(hand(2), sex="M").months
    by_sex = found[2].by_sex
    assert by_sex is not None
    assert by_sex["M"].months == pytest.approx(expected, abs=1e-3)


def test_a_prediction_converts_to_json_types():
    found = predictor(calibration=CALIBRATION).predict(hand(3), sex="unknown").to_dict()
    assert found.keys() == {"months", "std", "interval", "sex", "by_sex", "warnings", "notes", "provenance"}
    assert isinstance(found["by_sex"]["F"]["interval"], list)
    assert found["warnings"] == []


def test_one_bad_file_need_not_stop_the_others(tmp_path):
    items = [Item(hand(0), "F"), Item(tmp_path / "absent.png", "F"), Item(b"no image", "M"), Item(hand(1), "M")]
    with pytest.raises(BoneAgeError, match=r"absent\.png cannot be read: No such file"):
        list(predictor().predict_many(items))
    found = list(predictor().predict_many(items, batch_size=2, on_error="yield"))
    assert [type(one).__name__ for one in found] == ["Prediction", "BoneAgeError", "BoneAgeError", "Prediction"]
    last = found[3]
    assert isinstance(last, Prediction)
    assert last.months == pytest.approx(predictor().predict(hand(1), sex="M").months, abs=1e-3)


def test_items_are_consumed_lazily():
    taken = []

    def items():
        for i in range(100):
            taken.append(i)
            yield Item(hand(0), "F")

    stream = predictor().predict_many(items(), batch_size=2)
    next(stream)
    assert len(taken) <= 6
    assert isinstance(stream, Generator)
    stream.close()


def test_an_empty_list_gives_no_predictions():
    assert list(predictor().predict_many([])) == []


def test_a_batch_size_of_zero_is_rejected():
    with pytest.raises(BoneAgeError, match="batch_size is 0"):
        next(predictor().predict_many([], batch_size=0))


@pytest.mark.parametrize("image", [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4)), np.zeros((0, 4), np.uint8)])
def test_an_array_that_is_not_a_greyscale_image_is_rejected(image):
    with pytest.raises(BoneAgeError, match="expects a greyscale image"):
        predictor().predict(image, sex="F")


def test_a_further_input_is_required_and_used():
    ours = predictor(inputs=random_weights.AGE)
    young, old = months(ours.predict(hand(1), sex="F", inputs={"chronological_age": age}) for age in (24, 200))
    assert abs(young - old) > 0.1
    with pytest.raises(BoneAgeError, match=r"lack chronological_age \(number\)"):
        ours.predict(hand(1), sex="F")
    with pytest.raises(BoneAgeError, match="the image: chronological_age 999 lies outside 0 to 300 months"):
        ours.predict(hand(1), sex="F", inputs={"chronological_age": 999})
    with pytest.raises(BoneAgeError, match="no further input weight"):
        predictor().predict(hand(1), sex="F", inputs={"weight": 30})


def test_prediction_and_result_have_the_further_inputs_that_the_network_read():
    ours = predictor(inputs=random_weights.AGE)
    found = ours.predict(hand(1), sex="F", inputs={"chronological_age": "60.5"})
    assert found.inputs == {"chronological_age": np.float32(60.5)}
    assert result(found, Request("a.png", "a.png", None)).inputs == found.inputs
    assert predictor().predict(hand(1), sex="F").inputs == {}


def test_categories_are_given_by_name_and_heat_maps_by_key_points():
    specs = (Input("race", "category", categories=("asian", "unknown")), Input("hand", "heatmap"))
    given = {"race": "Asian", "hand": [[10, 20], [30, 40]]}
    picture = Picture(np.zeros((60, 50), np.uint8), None, "a.png")
    found = read_inputs(specs, given, picture, 16)
    assert found["race"] == 0
    assert found["hand"].shape == (16, 16, 1)
    assert found["hand"].max() > 200
    with pytest.raises(BoneAgeError, match=r"a\.png: race 'martian' is not known; expected asian, unknown"):
        read_inputs(specs, given | {"race": "martian"}, picture, 16)
    x_y_v, x_then_y = [[10, 20, 2], [30, 40, 2]], [[10, 30, 12], [20, 40, 22]]
    for points in ([1, 2, 3], [10, 20, 30, 40], x_y_v, x_then_y, "none"):
        with pytest.raises(BoneAgeError, match=r"a\.png: hand is .*, expected key points \[points, 2\] in pixels"):
            read_inputs(specs, given | {"hand": points}, picture, 16)


@pytest.mark.parametrize("code", list(QUARTER_TURNS))
def test_key_points_are_rotated_with_an_image_turned_upright(code):
    specs, given = (Input("hand", "heatmap"),), {"hand": [[10, 20]]}
    turned = np.zeros((600, 300), np.uint8)
    upright = Picture(np.rot90(turned, QUARTER_TURNS[code]), None, "a.png", (Finding(code, "", CORRECTED),))
    found = read_inputs(specs, given, upright, 16)["hand"]
    plain = read_inputs(specs, given, Picture(turned, None, "a.png"), 16)["hand"]
    np.testing.assert_array_equal(found, np.rot90(plain, QUARTER_TURNS[code]))
    assert plain[0, 0] == plain.max() > 0


def test_an_image_that_fails_the_checks_is_refused_unless_accepted():
    ours = Predictor(random_weights.checked())
    small = hand(1)[:60]
    with pytest.raises(RefusedImageError, match="the image is refused: The image has very few pixels") as refused:
        ours.predict(small, sex="F")
    assert [one.code for one in refused.value.findings] == ["few_pixels"]
    (yielded,) = ours.predict_many([Item(small, "F")], on_error="yield")
    assert isinstance(yielded, RefusedImageError)
    accepted = ours.predict(small, sex="F", accept_warnings=True)
    assert accepted.months == pytest.approx(predictor().predict(small, sex="F").months)
    assert accepted.warnings == tuple(one.text for one in refused.value.findings)
    assert list(ours.predict_many([Item(small, "F")], batch_size=1, accept_warnings=True)) == [accepted]


def test_a_checked_picture_is_not_corrected_again():
    ours = Predictor(random_weights.checked())
    picture = ours.look(255 - hand(1))
    np.testing.assert_array_equal(picture.pixels, hand(1))
    assert ours.look(picture) is picture
    assert ours.predict(picture, sex="F") == ours.predict(255 - hand(1), sex="F")
    assert "was inverted" in ours.predict(picture, sex="F").notes[0]


def test_a_prediction_has_the_provenance_of_its_file(tmp_path):
    weights.write(tmp_path / "a.safetensors", random_weights.weights())
    ours = Predictor(weights.read(tmp_path / "a.safetensors"))
    found = ours.predict(hand(0), sex="unknown").provenance
    assert found is not None
    assert found.weights == "tiny"
    assert found.sha256 == weights.read(tmp_path / "a.safetensors").sha256
    assert found.sha256 is not None
    assert len(found.sha256) == 64
    of_no_file = predictor().predict(hand(0), sex="F").provenance
    assert of_no_file is not None
    assert of_no_file.sha256 is None


@pytest.mark.parametrize(("storage", "difference"), [("float32", 0.0), ("float16", 0.2), ("bfloat16", 1.0)])
def test_weights_loaded_from_a_file_predict_the_same(tmp_path, storage, difference):
    weights.write(tmp_path / "a.safetensors", random_weights.stored_as(storage, calibration=CALIBRATION))
    loaded = boneage_jax.load(tmp_path / "a.safetensors")
    for i in range(4):
        found, expected = (p.predict(hand(i), sex="F") for p in (loaded, predictor(calibration=CALIBRATION)))
        assert found.months == pytest.approx(expected.months, abs=difference)
        assert found.interval == pytest.approx(expected.interval, abs=2 * difference)


def test_weights_that_do_not_fit_the_network_are_rejected():
    other = random_weights.weights()
    variables = {**other.variables, "params": {**other.variables["params"], "trunk": {}}}
    with pytest.raises(BoneAgeError, match=r"the weights 'tiny', written by version .*, do not fit the network"):
        Predictor(weights.Weights(other.header, variables)).predict(hand(0), sex="F")


def with_header(**changes):
    """Weights with a modified header; the key `model__label_mean` sets `label_mean` in the section `model`."""
    stored = random_weights.weights(calibration=CALIBRATION)
    fields = dataclasses.asdict(stored.header)
    for key, value in changes.items():
        section, name = key.split("__")
        fields[section] = {**fields[section], name: value}
    return dataclasses.replace(stored, header=weights.Header(**fields))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"preprocessing__size": 100_000}, "do not fit .*size must be a whole number from 1 to 4096, not 100000"),
        ({"preprocessing__clahe_grid": 100_000}, "clahe_grid must be a whole number from 1 to 64"),
        ({"preprocessing__clahe_clips": [2.0] * 1000}, "at most 16 positive limits"),
        ({"model__label_mean": 1e308}, r"do not fit .*\(labels with the mean 1e"),
        ({"model__label_std": 0.0}, "labels with the mean 100 and the standard deviation 0"),
        ({"model__label_mean": "many"}, "do not fit"),
        ({"model__options": {"dim": "x"}}, "do not fit .*option dim of model 'convmixer' is 'x'"),
        ({"model__options": {"dim": 10**9, "depth": 1, "kernel_size": 3, "patch_size": 8}}, "do not fit"),
        ({"model__options": {"dim": 8, "depth": 10**9, "kernel_size": 3, "patch_size": 8}}, "do not fit"),
        ({"model__options": {"dim": 8, "depth": 1, "kernel_size": 3, "patch_size": 0}}, "do not fit"),
        ({"calibration__slope": float("nan")}, "do not fit .* not finite"),
        ({"calibration__quantile": -1.0}, "do not fit .* negative"),
        ({"calibration__spread": [1.0]}, r"do not fit .*\(the spread has 1 values, expected 21"),
    ],
)
def test_an_invalid_network_header_is_a_clear_error(changes, words):
    with pytest.raises(BoneAgeError, match=words):
        Predictor(with_header(**changes)).predict(hand(3), sex="F")


@pytest.mark.parametrize("factor", [1e30, -1e30])
def test_implausible_bone_ages_are_rejected(factor):
    stored = random_weights.weights(head="regression")
    large = jax.tree.map(lambda values: values * np.float32(factor), stored.variables["params"])
    broken = dataclasses.replace(stored, variables={**stored.variables, "params": large})
    with pytest.raises(BoneAgeError, match=r"the weights 'tiny' give \S+ months, which is not a bone age; training"):
        Predictor(broken).predict(hand(3), sex="F")


def test_the_error_names_the_implausible_bone_age_of_the_batch(monkeypatch):
    ours = Predictor(random_weights.weights(head="regression"))
    monkeypatch.setattr(ours, "_estimate", lambda *_: Estimate(np.array([90.0, -5000.0])))
    with pytest.raises(BoneAgeError, match="the weights 'tiny' give -5000 months, which is not a bone age"):
        ours.estimate(np.zeros((2, 32, 32, 1), np.uint8), np.zeros(2), {})


def test_the_feature_map_is_accessible():
    ours = predictor()
    image = jnp.asarray(ours.preprocessing.scale(ours.preprocessing.prepare(hand(0))))[None]
    features: Any = ours.network.apply(ours.variables, image, train=False, method="features")
    assert features.shape == (1, 4, 4, 8)


@pytest.mark.slow
def test_the_package_imports_no_training_dependencies():
    program = (
        "import sys, boneage_jax\n"
        "assert 'jax' not in sys.modules and 'numpy' not in sys.modules\n"
        "import boneage_jax.predict.predictor\n"
        "heavy = {'tensorflow_datasets', 'grain', 'orbax', 'optax', 'matplotlib', 'array_record', 'h5py', 'openpyxl'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
