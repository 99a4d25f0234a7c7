"""From a training run to weights to a report: consistent bone ages, and one-line errors."""

import csv
import dataclasses
import json
import shutil

import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

import boneage_jax
from boneage_jax.commands import labelled
from boneage_jax.commands.main import main
from boneage_jax.data import phantom, rsna
from boneage_jax.data.files import File
from boneage_jax.errors import BoneAgeError
from boneage_jax.export import check_fitting
from boneage_jax.export.pack import export
from boneage_jax.models import Input
from boneage_jax.models.network import TRUNKS
from boneage_jax.predict.items import Item
from boneage_jax.predict.predictor import Predictor
from boneage_jax.regions.fingers import NAMES
from boneage_jax.released import calibration, weights
from boneage_jax.sex import Sex
from boneage_jax.train import evaluation, loop
from boneage_jax.train.checkpoint import digest_json
from boneage_jax.train.evaluation import evaluate_checkpoint, restore_best
from tests.data import rsna_forms
from tests.train.tiny_run import get_config

TRAIN, VALIDATION = 24, 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Phantoms in the layout of the challenge: a training set and a validation set with ids of both hospitals."""
    folder = tmp_path_factory.mktemp("rsna")
    training = ["id,boneage,male", *drawn(folder / "boneage-training-dataset", 9000, TRAIN, "{id},{age},{male}")]
    (folder / "boneage-training-dataset.csv").write_text("\n".join(training))
    validation = drawn(folder / "boneage-validation-dataset", 4500, VALIDATION, "{id},{male},{age}")
    (folder / "Validation Dataset.csv").write_text("\n".join(["Image ID,male,Bone Age (months)", *validation]))
    return folder


def drawn(folder, first_id: int, count: int, row: str) -> list[str]:
    """Renders image files and returns their table rows."""
    folder.mkdir()
    ages, sexes = phantom.sample_children(count, seed=first_id)
    rows = []
    for i, (age, sex) in enumerate(zip(ages.round(1), sexes, strict=True), start=first_id):
        cv2.imwrite(str(folder / f"{i}.png"), phantom.render(float(age), int(sex), size=48, seed=i).image)
        rows.append(row.format(id=i, age=age, male=bool(sex)))
    return rows


@pytest.fixture(scope="module")
def config(folder, tmp_path_factory) -> ConfigDict:
    """Three steps: too few to learn anything, but enough to fill every field of the weights file."""
    config = get_config()
    config.data.name = "rsna_bone_age"
    config.data.dir = str(folder)
    config.data.options = ConfigDict()
    config.data.cache = str(tmp_path_factory.mktemp("cache"))
    config.compilation_cache, config.distributed.coordinator = "/home/doe/compiled", "node-7.example.org:4567"
    config.model.head = "distribution"
    config.train.epochs = 1
    config.evaluate.batch_size = 40
    config.evaluate.views = "flip"
    config.optimizer.ema_decay = 0.5
    return config


@pytest.fixture(scope="module")
def exported(config, tmp_path_factory):
    """The work directory of a run, and its exported weights."""
    folder = tmp_path_factory.mktemp("runs")
    loop.train_and_evaluate(config, folder / "run")
    flags = [f"--workdir={folder / 'run'}", f"--out={folder / 'tiny.safetensors'}", "--checks=0"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rsna, "is_official", lambda _: True)
        assert main(["export-weights", *flags]) == 0
    return folder / "run", folder / "tiny.safetensors"


def predictions_csv(folder) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "predictions.csv").read_text().splitlines()))


def test_evaluation_and_predictor_give_the_same_bone_ages(exported, folder, config):
    workdir, path = exported
    evaluate_checkpoint(workdir, config)
    rows = predictions_csv(workdir / "evaluate/validation")
    items = [Item(folder / f"boneage-validation-dataset/{row['id']}.png", row["sex"]) for row in rows]
    found = list(boneage_jax.load(path).predict_many(items, batch_size=16))
    intervals = np.array([one.interval for one in found], np.float64)

    assert len(rows) == VALIDATION
    for name, values in (
        ("predicted", [one.months for one in found]),
        ("std", [one.std for one in found]),
        ("low", intervals[:, 0]),
        ("high", intervals[:, 1]),
    ):
        expected = np.array(values, np.float64)
        np.testing.assert_allclose([float(row[name]) for row in rows], expected, atol=0.01, err_msg=name)


def test_boneage_evaluate_matches_the_evaluation_of_the_run(exported, folder, config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(rsna, "is_official", lambda _: True)
    workdir, path = exported
    expected = evaluate_checkpoint(workdir, config)
    labels, images = folder / "Validation Dataset.csv", folder / "boneage-validation-dataset"
    arguments = [f"--labels={labels}", f"--images={images}", f"--weights={path}", f"--out={tmp_path}", "--rsna"]
    assert main(["evaluate", *arguments]) == 0

    written = {file.name for file in tmp_path.iterdir()}
    assert written == {"bland_altman.png", "metrics.json", "predictions.csv", "scatter.png"}
    found = json.loads((tmp_path / "metrics.json").read_text())
    del expected["overall"]["loss"]  # computed only from a run
    assert found["overall"].keys() == expected["overall"].keys()
    for group in ("by_sex", "by_hospital", "by_age_in_years"):
        assert {name: one["count"] for name, one in found[group].items()} == {
            name: one["count"] for name, one in expected[group].items()
        }
    # The image that sets the interval's width lies on its end, so rounding decides whether it is covered.
    for name, tolerance in {"mae": 0.01, "bias": 0.01, "coverage": 2 / 120, "upper_limit": 0.01}.items():
        found_interval, expected_interval = (one["overall"][name]["interval"] for one in (found, expected))
        assert found_interval == pytest.approx(expected_interval, abs=tolerance + 1e-6), name
    ours, theirs = (
        {row["id"]: float(row["predicted"]) for row in predictions_csv(place)}
        for place in (tmp_path, workdir / "evaluate/validation")
    )
    assert ours == pytest.approx(theirs, abs=0.01)
    assert "within its 90 % interval" in capsys.readouterr().out


def test_the_header_has_all_metadata_and_no_local_paths(exported, config):
    workdir, path = exported
    header = weights.read(path).header
    assert header.name == "tiny"
    assert header.views == "flip"
    assert header.data["train_images"] == TRAIN
    assert "non-commercial" in header.data["terms"]
    assert header.data["measured_images"] == VALIDATION
    assert header.calibration is not None
    assert header.calibration["images"] == VALIDATION
    assert header.figures["overall"]["count"] == VALIDATION
    assert 0.8 < header.figures["calibration"]["coverage"] < 1
    assert header.commit == json.loads((workdir / "run.json").read_text())["commit"]
    for place in (config.data.dir, config.data.cache):
        assert place not in json.dumps(header.config)
    assert header.config["model"]["head"] == "distribution"


def test_the_weights_are_the_moving_average(exported):
    workdir, path = exported
    kernel = weights.read(path).variables["params"]["head"]["logits"]["kernel"]
    _, state = restore_best(workdir)
    np.testing.assert_array_equal(kernel, np.asarray(state.ema["params"]["head"]["logits"]["kernel"]))
    assert (kernel != np.asarray(state.params["head"]["logits"]["kernel"])).any()


def test_a_model_card_is_written_beside_the_weights(exported):
    _, path = exported
    text = path.with_suffix(".md").read_text()
    for words in (
        "# tiny",
        "Not a medical device",
        "Halabi",
        "| girls |",
        "| Stanford |",
        "| 8-10 |",
        "split conformal",
        "flip",
    ):
        assert words in text


@pytest.mark.parametrize(("largest", "warned"), [(19, True), (24.9, True), (25, False)])
def test_ages_that_look_like_years_are_warned_about(largest, warned, tiny, tmp_path, capsys):
    rsna_forms.write(tmp_path, {f"in/{number}.png": rsna_forms.png(number) for number in range(4)})
    rows = "".join(f"{number},{age},True\n" for number, age in enumerate((3, 9, 12, largest)))
    (tmp_path / "labels.csv").write_text(f"id,boneage,male\n{rows}")
    arguments = [f"--labels={tmp_path / 'labels.csv'}", f"--images={tmp_path / 'in'}", f"--out={tmp_path / 'report'}"]
    assert main(["evaluate", f"--weights={tiny}", *arguments]) == 0
    warning = f"is {largest:g}, but bone ages must be in months; multiply them by 12 if they are in years"
    assert (warning in capsys.readouterr().err) == warned


def test_a_damaged_image_is_an_error_or_is_skipped(tiny, tmp_path, capsys):
    rsna_forms.write(tmp_path, {f"in/{number}.png": rsna_forms.png(number) for number in range(4)})
    (tmp_path / "in/2.png").write_bytes(b"no image")
    rows = "".join(f"{number},{60 + number},True\n" for number in range(4))
    (tmp_path / "labels.csv").write_text(f"id,boneage,male\n{rows}")
    arguments = ["evaluate", f"--weights={tiny}", f"--labels={tmp_path / 'labels.csv'}", f"--images={tmp_path / 'in'}"]
    assert main([*arguments, f"--out={tmp_path / 'a'}"]) == 1
    assert "2.png is not a PNG" in capsys.readouterr().err
    assert main([*arguments, f"--out={tmp_path / 'b'}", "--on-missing=skip"]) == 0
    assert "convert it or replace it; the image is left out\n" in capsys.readouterr().err
    assert [row["id"] for row in predictions_csv(tmp_path / "b")] == ["0", "1", "3"]


def test_key_points_for_weights_that_read_none_are_refused(tiny, tmp_path, monkeypatch, capsys):
    rsna_forms.write(tmp_path, {"in/1.png": rsna_forms.png(1), "labels.csv": b"id,boneage,male\n1,60,True\n"})
    monkeypatch.chdir(tmp_path)
    given = [f"--weights={tiny}", "--labels=labels.csv", "--images=in", "--keypoints=absent.json"]
    assert main(["evaluate", *given]) == 1
    assert "error: these weights read no key points, so absent.json has no use" in capsys.readouterr().err


def test_an_unusable_out_folder_is_an_error_before_predicting(tiny, tmp_path, monkeypatch, capsys):
    rsna_forms.write(
        tmp_path, {"in/1.png": rsna_forms.png(1), "labels.csv": b"id,boneage,male\n1,60,True\n", "out": b""}
    )
    monkeypatch.setattr(Predictor, "predict_many", None)
    arguments = [f"--labels={tmp_path / 'labels.csv'}", f"--images={tmp_path / 'in'}", f"--out={tmp_path / 'out'}"]
    assert main(["evaluate", f"--weights={tiny}", *arguments]) == 1
    assert f"the folder {tmp_path / 'out'} for --out cannot be created: File exists" in capsys.readouterr().err


def test_key_points_of_squashed_copies_have_the_size_of_the_original(tmp_path):
    file = File("1.png", 0, 0, b"", original_size=(1000, 2000))
    images = [rsna.LabelledImage("1", Sex.FEMALE, 60.0, file)]
    document = {
        "images": [{"id": 0, "file_name": "1.png"}],
        "annotations": [{"image_id": 0, "keypoints": [900, 1800, 2] * 17}],
    }
    (tmp_path / "points.json").write_text(json.dumps(document))
    (item,) = labelled._items(images, (Input("hand", "heatmap"),), tmp_path / "points.json")
    assert item.inputs["hand"].shape == (2000, 1000)


def test_half_precision_gives_nearly_the_same_bone_age(exported, tmp_path):
    workdir, path = exported
    export(workdir, tmp_path / "half.safetensors", storage="float16", checks=0)
    whole, half = (boneage_jax.load(file) for file in (path, tmp_path / "half.safetensors"))
    image = phantom.render(100.0, 0, size=32, seed=5).image
    assert half.predict(image, sex="F").months == pytest.approx(whole.predict(image, sex="F").months, abs=0.1)
    assert (tmp_path / "half.safetensors").stat().st_size < path.stat().st_size


def test_a_bfloat16_run_is_measured_with_the_values_of_its_file_in_float32(config, folder, tmp_path):
    config = config.copy_and_resolve_references()
    config.model.dtype = "bfloat16"
    loop.train_and_evaluate(config, tmp_path / "run")
    header = export(tmp_path / "run", tmp_path / "a.safetensors", storage="bfloat16", calibrated=False, checks=0)
    assert header.model["dtype"] == "float32"
    assert header.config["model"]["dtype"] == "bfloat16"

    rows = predictions_csv(tmp_path / "run/evaluate/validation")
    items = [Item(folder / f"boneage-validation-dataset/{row['id']}.png", row["sex"]) for row in rows]
    found = boneage_jax.load(tmp_path / "a.safetensors").predict_many(items, batch_size=16)
    months = np.array([one.months for one in found], np.float64)
    np.testing.assert_allclose(months, np.array([row["predicted"] for row in rows], np.float64), atol=1e-3)


def test_a_calibration_of_another_checkpoint_is_not_applied(exported, config, tmp_path):
    workdir = shutil.copytree(exported[0], tmp_path / "run")
    stored = json.loads((workdir / "calibration.json").read_text()) | {"variables_sha256": "another"}
    del stored["sha256"]
    (workdir / "calibration.json").write_text(json.dumps({**stored, "sha256": digest_json(stored)}))
    evaluate_checkpoint(workdir, config)
    assert "low" not in predictions_csv(workdir / "evaluate/validation")[0]


@pytest.mark.parametrize("change", [lambda text: "{", lambda text: text.replace('"slope": ', '"slope": 9')])
def test_a_modified_calibration_is_rejected(exported, config, tmp_path, change):
    path = shutil.copytree(exported[0], tmp_path / "run") / "calibration.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(BoneAgeError, match=r"calibration\.json is damaged"):
        evaluate_checkpoint(path.parent, config)


def test_too_few_images_require_the_no_calibration_flag(exported, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(calibration, "MINIMUM", VALIDATION + 1)
    workdir = shutil.copytree(exported[0], tmp_path / "run")
    (workdir / "calibration.json").unlink()
    arguments = ["export-weights", f"--workdir={workdir}", f"--out={tmp_path / 'a.safetensors'}"]
    assert main(arguments) == 1
    assert "at least 121 images" in capsys.readouterr().err
    assert not (tmp_path / "a.safetensors").exists()
    assert main([*arguments, "--no-calibration", "--checks=0"]) == 0
    assert weights.read(tmp_path / "a.safetensors").header.calibration is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["export-weights", "--workdir=WORKDIR", "--out=a.bin"], "does not end in .safetensors"),
        (["export-weights", "--workdir=WORKDIR", "--out=a.safetensors", "--storage=int8"], "storage is 'int8'"),
        (["export-weights", "--workdir=WORKDIR", "--out=a.safetensors", "--checks=-5"], "checks is -5, expected"),
        (
            ["export-weights", "--workdir=WORKDIR", "--out=a.safetensors", "--split=test"],
            "available splits: train, valid",
        ),
        (["export-weights", "--workdir=WORKDIR", "--out=a.safetensors", "--split=train"], "choose another split"),
        (["export-weights", "--workdir=WORKDIR", "--out=a.safetensors", "--views=ten_crop"], "need preprocessing.crop"),
        (["export-weights", "--workdir=WORKDIR", "--out=a.safetensors"], "--checks=0 exports the weights without them"),
        (
            ["export-weights", "--workdir=absent", "--out=a.safetensors"],
            "absent/checkpoints/best contains no checkpoint",
        ),
        (["evaluate", "--labels=a.csv", "--images=.", "--weights=absent"], "there are no weights 'absent'"),
        (["evaluate", "--labels=a.csv", "--images=.", "--weights=WEIGHTS"], "label table a.csv does not exist"),
    ],
)
def test_user_errors_are_reported_in_one_line(exported, arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    places = {"WORKDIR": str(exported[0]), "WEIGHTS": str(exported[1])}
    for name, place in places.items():
        arguments = [argument.replace(name, place) for argument in arguments]
    assert main(arguments) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert words in lines[0]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        (["predict", ""], "FILE|FOLDER"),
        *((["predict", "a.png", flag, ""], flag) for flag in ("--labels", "--heatmap", "--regions", "--dicom-out")),
        (["report", "", "--out=a.html"], "FILE|FOLDER"),
        (["report", "a.png", "--out=a.html", "--labels="], "--labels"),
        (["evaluate", "--labels=", "--images=a"], "--labels"),
        (["evaluate", "--labels=a.csv", "--images="], "--images"),
        (["evaluate", "--labels=a.csv", "--images=a", "--out="], "--out"),
        (["evaluate", "--labels=a.csv", "--images=a", "--keypoints="], "--keypoints"),
        (["calibrate", "--labels=a.csv", "--images=a", "--out="], "--out"),
        (["export-weights", "--workdir=", "--out=a.safetensors"], "--workdir"),
        (["export-weights", "--workdir=a", "--out="], "--out"),
        (["export-weights", "--workdir=a", "--out=a.safetensors", "--data-dir="], "--data-dir"),
        (["combine-weights", "a", "b", "--out=", "--data-dir=a"], "--out"),
        (["combine-weights", "a", "b", "--out=c.safetensors", "--data-dir="], "--data-dir"),
        (["serve", "--token-file="], "--token-file"),
        (["listen", "--dicomweb=http://localhost", "--queue="], "--queue"),
    ],
)
def test_an_empty_name_does_not_mean_the_current_folder(arguments, flag, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1
    assert f"error: argument {flag}: the name is empty; give the name of" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["predict-nothing"], ["evaluate"]])
def test_invalid_arguments_exit_with_status_1(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1
    assert "usage: boneage" in capsys.readouterr().err


class OneConvolution(nn.Module):
    """A trunk for crops around joints, [B, H, W, R] to [B, R, n, D], which compiles in a second."""

    axis_name: str | None = None
    remat: bool = False
    dtype: type = jnp.float32

    @nn.compact
    def __call__(self, image, *, train):
        batch, height, width, crops = image.shape
        each = jnp.moveaxis(image, -1, 1).reshape(batch * crops, height, width, 1)
        return nn.Conv(4, (16, 16), (16, 16), name="patches")(each).reshape(batch, crops, -1, 4)


def test_exported_joint_networks_have_calibration_and_figures_per_region(tmp_path, monkeypatch):
    monkeypatch.setitem(TRUNKS, "one_convolution", OneConvolution)
    config = get_config()
    config.data.cache = str(tmp_path / "cache")
    config.data.options = ConfigDict({"count": {"train": 16, "validation": 104}})
    config.preprocess.size = 32
    config.preprocess.region = "joints"
    config.model.name = "one_convolution"
    config.model.options = ConfigDict()
    config.model.head = "joints"
    config.model.head_options = ConfigDict({"hidden": (8,)})
    config.train.epochs = 1
    config.evaluate.batch_size = 52
    loop.train_and_evaluate(config, tmp_path / "run")
    header = export(tmp_path / "run", tmp_path / "joints.safetensors")

    assert list(header.figures["regions"]) == list(NAMES)
    assert {one["images"] for one in header.figures["regions"].values()} == {104}
    stored = weights.read_header(tmp_path / "joints.safetensors").calibration
    assert stored is not None
    fitted = calibration.Calibration.from_dict(stored)
    assert fitted.parts is not None
    assert fitted.apart is not None
    assert (len(fitted.parts), fitted.apart > 0) == (len(NAMES), True)
    assert "| Radius | 104 |" in (tmp_path / "joints.md").read_text()


def test_weights_are_calibrated_to_labelled_images_without_a_training(exported, folder, tmp_path, capsys):
    table = list(csv.reader((folder / "Validation Dataset.csv").read_text().splitlines()))[1:]
    rows = [f"{one},{float(age) * 0.8 + 40},{male}" for one, male, age in table]
    (tmp_path / "east.csv").write_text("\n".join(["id,boneage,male", *rows]))
    out, images = tmp_path / "own.safetensors", folder / "boneage-validation-dataset"
    given = [f"--weights={exported[1]}", f"--labels={tmp_path / 'east.csv'}", f"--images={images}"]
    assert main(["calibrate", *given, f"--out={out}", "--source=East Hospital"]) == 0
    printed = capsys.readouterr().out
    assert "east: 120 images" in printed
    assert "\nnow, cross-fitted: MAE " in printed

    before, after = weights.read(exported[1]), weights.read(out)
    assert jax.tree.all(jax.tree.map(np.array_equal, before.variables, after.variables))
    assert (after.header.name, after.header.data["calibrated_on"]) == ("own", "East Hospital")
    card = out.with_suffix(".md").read_text()
    assert "Calibrated and measured on 120 images of: East Hospital" in card
    assert "The checkpoint was selected" not in card
    found = boneage_jax.load(out).predict(images / f"{table[0][0]}.png", sex="M" if table[0][1] == "True" else "F")
    row = next(row for row in predictions_csv(tmp_path / "own") if row["id"] == table[0][0])
    expected = [float(row[key]) for key in ("predicted", "low", "high")]
    assert [found.months, *(found.interval or ())] == pytest.approx(expected, abs=1e-3)
    assert main(["info", f"--weights={out}"]) == 0
    assert "calibrated on 120 images of: East Hospital" in capsys.readouterr().out


@pytest.fixture
def own(folder, tmp_path):
    """Copies of 101 labelled images, one of which is damaged, and the flags that name them."""
    ids = range(4500, 4601)
    (tmp_path / "own").mkdir()
    for one in ids:
        shutil.copy(folder / f"boneage-validation-dataset/{one}.png", tmp_path / "own")
    (tmp_path / "own/4500.png").write_bytes(b"damaged")
    rows = [f"{one},{60 + one % 9},True" for one in ids]
    (tmp_path / "own.csv").write_text("\n".join(["id,boneage,male", *rows]))
    return [f"--labels={tmp_path / 'own.csv'}", f"--images={tmp_path / 'own'}"]


def test_unreadable_images_stop_a_calibration_or_are_left_out(own, exported, tmp_path, capsys):
    given = ["calibrate", *own, f"--weights={exported[1]}", f"--out={tmp_path / 'new.safetensors'}"]
    assert main(given) == 1
    assert "4500.png" in capsys.readouterr().err
    assert not (tmp_path / "new.safetensors").exists()
    assert main([*given, "--on-missing=skip"]) == 0
    assert weights.read_header(tmp_path / "new.safetensors").data["measured_images"] == 100


def test_weights_without_a_calibration_can_be_calibrated(own, exported, tmp_path, capsys):
    plain = weights.read(exported[1])
    header = dataclasses.replace(plain.header, calibration=None)
    weights.write(tmp_path / "plain.safetensors", dataclasses.replace(plain, header=header))
    out = tmp_path / "new.safetensors"
    assert (
        main(["calibrate", *own, f"--weights={tmp_path / 'plain.safetensors'}", f"--out={out}", "--on-missing=skip"])
        == 0
    )
    assert "within the 90 % interval: none" in capsys.readouterr().out
    assert weights.read_header(out).calibration is not None


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--out=WEIGHTS"], "is one of the weights files that are read, and is not overwritten; choose another"),
        (["--out=own.bin"], "does not end in .safetensors"),
        (["--out=TMP/own.csv/new.safetensors"], "for --out cannot be created"),
        (["--out=TMP/own/folder.safetensors"], "folder.safetensors is a folder, expected the name of a file"),
        (["--out=TMP/own/4500.png.safetensors"], "own/4500.png for --out cannot be created"),
        (["--out=TMP/new.safetensors", "--source= "], "--source is empty; name who provided the data"),
        (["--out=TMP/new.safetensors", "--weights=boneage_jax/regions/regions.safetensors"], "do not fit the network"),
    ],
    ids=[
        *("the weights themselves", "another suffix", "no folder", "a folder", "no folder for the report"),
        *("empty source", "the region detector"),
    ],
)
def test_a_calibration_with_unusable_flags_is_refused_before_images_are_read(
    flags, words, own, exported, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("boneage_jax.export.recalibration.estimate", lambda *_, **__: pytest.fail("images were read"))
    (tmp_path / "own/folder.safetensors").mkdir()
    flags = [flag.replace("WEIGHTS", str(exported[1])).replace("TMP", str(tmp_path)) for flag in flags]
    assert main(["calibrate", *own, f"--weights={exported[1]}", *flags]) == 1
    assert words in capsys.readouterr().err
    assert not exported[1].with_suffix("").exists()


def test_a_calibration_to_too_few_images_is_refused(exported, folder, tmp_path, capsys):
    rows = [f"{one},{60 + one % 9},True" for one in range(4500, 4599)]
    (tmp_path / "few.csv").write_text("\n".join(["id,boneage,male", *rows]))
    given = [f"--weights={exported[1]}", f"--labels={tmp_path / 'few.csv'}", "--on-missing=skip"]
    out = tmp_path / "own.safetensors"
    assert main(["calibrate", *given, f"--images={folder / 'boneage-validation-dataset'}", f"--out={out}"]) == 1
    assert "99 labelled images are too few for a calibration, expected 100 or more" in capsys.readouterr().err
    assert not out.exists()


def test_combined_weights_are_evaluated_as_an_ensemble(exported, folder, tmp_path, capsys):
    tiny = weights.read(exported[1])
    params = {**tiny.variables["params"], "head": jax.tree.map(np.negative, tiny.variables["params"]["head"])}
    header = dataclasses.replace(tiny.header, name="negated")
    negated = dataclasses.replace(tiny, header=header, variables={**tiny.variables, "params": params})
    weights.write(tmp_path / "negated.safetensors", negated)
    files, out = [str(exported[1]), str(tmp_path / "negated.safetensors")], tmp_path / "both.safetensors"
    assert main(["combine-weights", *files, f"--out={out}", f"--data-dir={folder}"]) == 0
    assert "validation: 120 images" in capsys.readouterr().out
    header = weights.read(out).header
    assert [one["name"] for one in header.members] == ["tiny", "negated"]
    assert header.name == "both"
    assert "Member 2: `negated`" in out.with_suffix(".md").read_text()
    assert {file.name for file in (tmp_path / "both").iterdir()} >= {"metrics.json", "predictions.csv"}

    rows = predictions_csv(tmp_path / "both")
    items = [Item(folder / f"boneage-validation-dataset/{row['id']}.png", row["sex"]) for row in rows]

    def read(released):
        found = Predictor(released).predict_many(items, batch_size=40)
        return np.array([(one.months, one.std) for one in found]).T

    alone = [
        read(dataclasses.replace(one, header=dataclasses.replace(one.header, calibration=None)))
        for one in (tiny, negated)
    ]
    fitted = calibration.Calibration.from_dict(header.calibration or {})
    first, expected = (fitted.apply(*each) for each in (alone[0], np.mean(alone, axis=0)))
    assert np.abs(first.months - expected.months).mean() > 1
    assert fitted.spread is None
    both = read(weights.read(out))
    np.testing.assert_allclose(both, [expected.months, expected.std], atol=0.01)
    for column, values in (("predicted", expected.months), ("std", expected.std), ("high", expected.high)):
        np.testing.assert_allclose([float(row[column]) for row in rows], values, atol=0.011)
    mae = np.abs(expected.months - [float(row["age"]) for row in rows]).mean()
    overall = header.figures["overall"]
    assert (overall["count"], overall["mae"]["value"]) == (VALIDATION, pytest.approx(mae, abs=0.01))


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("tiny.safetensors", "is one of the weights files that are read, and is not overwritten; choose another"),
        ("file/a.safetensors", "file/a for --out"),
        ("file.safetensors", "file for --out"),
    ],
)
def test_combining_into_an_unusable_file_is_refused_before_images_are_read(
    out, words, exported, folder, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("boneage_jax.export.ensemble.estimate", lambda *_, **__: pytest.fail("images were read"))
    shutil.copy(exported[1], tmp_path)
    (tmp_path / "file").touch()
    files = [str(tmp_path / "tiny.safetensors"), str(exported[1])]
    assert main(["combine-weights", *files, f"--out={tmp_path / out}", f"--data-dir={folder}"]) == 1
    assert words in capsys.readouterr().err


def test_exporting_into_an_unusable_folder_is_refused_before_images_are_read(exported, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("boneage_jax.export.pack.load_data", lambda _: pytest.fail("images were read"))
    (tmp_path / "file").touch()
    assert main(["export-weights", f"--workdir={exported[0]}", f"--out={tmp_path / 'file/a.safetensors'}"]) == 1
    assert f"the folder {tmp_path / 'file'} for --out cannot be created" in capsys.readouterr().err


def test_weights_trained_on_other_labels_do_not_claim_rsna(exported, tmp_path):
    header = export(exported[0], tmp_path / "own.safetensors", checks=0)
    assert header.name == "own"
    assert header.data["name"] == "other"
    assert header.data["title"] == "labelled radiographs of an unnamed source"
    assert header.figures["by_hospital"] == {}
    text = (tmp_path / "own.md").read_text()
    assert text.startswith("# own\n")
    assert f"Trained on {TRAIN} images of: labelled radiographs of an unnamed source" in text
    for word in ("RSNA", "Halabi", "Stanford", "Colorado"):
        assert word not in text


def test_source_replaces_the_training_data_but_not_the_initial_weights(exported, config, tmp_path, capsys):
    config = config.copy_and_resolve_references()
    config.model.init_from = str(exported[1])
    loop.train_and_evaluate(config, tmp_path / "run")
    out = tmp_path / "fine-tuned.safetensors"
    arguments = ["export-weights", f"--workdir={tmp_path / 'run'}", f"--out={out}", "--checks=0"]
    assert main([*arguments, "--source= "]) == 1
    assert "--source is empty" in capsys.readouterr().err
    assert main([*arguments, "--source=Example Hospital,\nIRB 123"]) == 0
    lines = out.with_suffix(".md").read_text().splitlines()
    assert f"- Trained on {TRAIN} images of: Example Hospital, IRB 123" in lines
    assert "- Terms (data and weights): set by the provider of the data" in lines
    (initial,) = (line for line in lines if "Initialised from" in line)
    assert initial.startswith("- Initialised from `tiny.safetensors`, trained on RSNA Pediatric Bone Age")
    assert "non-commercial use" in initial
    assert "Halabi" in initial
    assert sum("RSNA" in line for line in lines) == 1
    capsys.readouterr()
    assert main(["info", f"--weights={out}"]) == 0
    text = capsys.readouterr().out
    assert "trained on Example Hospital, IRB 123" in text
    assert "initialised from tiny.safetensors, trained on RSNA" in text
    assert "cite:" not in text


@pytest.mark.parametrize("checks", [-1, 1, check_fitting.LEAST_IMAGES - 1])
def test_too_few_images_for_checks_are_refused_at_once(checks, exported, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "restore_best", lambda *_: pytest.fail("the checkpoint was restored"))
    with pytest.raises(BoneAgeError, match=f"checks is {checks}, expected at least 100 radiographs, or 0"):
        export(exported[0], tmp_path / "checked.safetensors", checks=checks)


def test_the_number_of_images_that_checks_are_fitted_on_is_recorded(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(check_fitting, "LEAST_IMAGES", TRAIN)
    header = export(exported[0], tmp_path / "checked.safetensors", calibrated=False)
    assert header.data["checks_images"] == TRAIN
    assert f"- Input checks: fitted on {TRAIN} of the training images" in (tmp_path / "checked.md").read_text()
    assert "- Input checks: none" in exported[1].with_suffix(".md").read_text()


@pytest.mark.parametrize("command", ["predict", "report", "serve", "listen", "evaluate", "calibrate", "info"])
def test_every_command_that_takes_weights_describes_the_flag_equally(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--weights NAME|FILE name or file of the weights; default: the most accurate in the package" in text


def test_exported_weights_contain_no_local_paths_or_addresses(exported, config):
    local = [config.compilation_cache, config.distributed.coordinator, config.data.dir, config.data.cache]
    content = exported[1].read_bytes() + exported[1].with_suffix(".md").read_bytes()
    assert all(local)
    assert not [text for text in local if text.encode() in content]
