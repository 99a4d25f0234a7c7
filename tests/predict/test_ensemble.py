"""Several networks in one file: the mean of their estimates, or the first alone if another cannot read an image."""

import csv
import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from boneage_jax.data import rsna
from boneage_jax.data.files import File
from boneage_jax.data.rsna import LabelledImage
from boneage_jax.errors import BoneAgeError
from boneage_jax.export.ensemble import combine
from boneage_jax.export.recalibration import recalibrate
from boneage_jax.predict.items import Item
from boneage_jax.predict.predictor import Predictor
from boneage_jax.predict.regions import RegionFinder
from boneage_jax.regions.fingers import NAMES
from boneage_jax.released import weights
from boneage_jax.released.calibration import Calibration
from boneage_jax.released.weights import Weights
from boneage_jax.sex import Sex
from boneage_jax.version import __version__
from tests.predict import random_weights, test_region_readings
from tests.predict.test_region_readings import hand

JOINT = Calibration(1.0, 5.0, (4.0,) * 21, std_scale=1.0, quantile=2.0, images=100)


@cache
def together() -> Weights:
    """A network for whole hands and one for joints."""
    members = [
        random_weights.weights(head="regression", calibration=dataclasses.replace(JOINT, intercept=0.0)),
        test_region_readings.predictor().weights,
    ]
    header = dataclasses.replace(
        members[0].header,
        name="both",
        calibration=JOINT.to_dict(),
        members=[dataclasses.asdict(one.header) for one in members],
    )
    return Weights(header, members[0].variables, members=tuple(members))


@cache
def predictor() -> Predictor:
    return Predictor(together())


def raw(member: Weights, sex: str) -> float:
    header = dataclasses.replace(member.header, calibration=None)
    months = Predictor(dataclasses.replace(member, header=header)).predict(hand(), sex=sex).months
    assert months is not None
    return months


def test_the_reading_is_the_calibrated_mean_with_joint_network_regions():
    for sex in ("F", "M"):
        found = predictor().predict(hand(), sex=sex)
        mean = np.mean([raw(member, sex) for member in together().members])
        assert found.months == pytest.approx(mean + 5, abs=1e-3)
        assert found.interval == pytest.approx((mean - 3, mean + 13), abs=1e-3)
        assert found.regions == test_region_readings.predictor().predict(hand(), sex=sex).regions


def test_an_image_without_joints_is_read_by_the_first_network_alone():
    blank = random_weights.grainy(20.0)
    found = predictor().predict(blank, sex="F")
    alone = Predictor(together().members[0]).predict(blank, sex="F")
    assert (found.months, found.interval) == (alone.months, alone.interval)
    assert found.notes[0].startswith("Read by 'tiny' alone: 0 of 17 joints were found")
    assert found.regions == {}


def test_the_note_does_not_contain_the_file_name(tmp_path):
    path = tmp_path / "doe-jane.png"
    cv2.imwrite(str(path), random_weights.grainy(20.0))
    (note,) = predictor().predict(path, sex="F").notes
    assert "doe" not in note


def test_a_mixed_batch_keeps_its_order_and_readings_of_both_sexes():
    images = [hand(), random_weights.grainy(20.0), hand()]
    items = [Item(image, sex) for image, sex in zip(images, ("M", "F", "unknown"), strict=True)]
    found = list(predictor().predict_many(items, batch_size=4))
    assert found[0].months == pytest.approx(predictor().predict(hand(), sex="M").months, abs=1e-3)
    assert found[1].months == pytest.approx(predictor().predict(images[1], sex="F").months, abs=1e-3)
    by_sex = found[2].by_sex
    assert by_sex is not None
    assert by_sex["M"].months == pytest.approx(found[0].months, abs=1e-3)


def test_regions_are_read_by_the_ensemble_itself():
    found, _, _ = RegionFinder(predictor()).find(Item(hand(), "M"))
    months = predictor().predict(hand(), sex="M").months
    assert months is not None
    assert (found["weights"], found["months"]) == ("both", round(months, 1))


def test_with_too_few_joints_the_regions_have_no_reading_and_the_hand_that_of_the_first_network():
    fingertips = np.ascontiguousarray(hand()[:190])
    found, _, _ = RegionFinder(predictor()).find(Item(fingertips, "M"))
    months = Predictor(together().members[0]).predict(fingertips, sex="M").months
    assert months is not None
    assert found["months"] == round(months, 1)
    assert {one["months"] for one in found["found"]} == {None}


def test_a_file_of_several_networks_round_trips(tmp_path):
    weights.write(tmp_path / "both.safetensors", together())
    read = weights.read(tmp_path / "both.safetensors")
    assert [one.header for one in read.members] == [one.header for one in together().members]
    assert Predictor(read).predict(hand(), sex="M").months == predictor().predict(hand(), sex="M").months


def test_a_file_that_lacks_a_network_is_rejected(tmp_path):
    short = dataclasses.replace(together(), members=together().members[:1])
    weights.write(tmp_path / "short.safetensors", short)
    with pytest.raises(BoneAgeError, match="does not contain the 2 networks that it lists"):
        weights.read(tmp_path / "short.safetensors")


def test_a_single_network_file_keeps_format_version_1(tmp_path):
    weights.write(tmp_path / "one.safetensors", random_weights.weights())
    assert b'"format": 1' in (tmp_path / "one.safetensors").read_bytes().replace(b"\\", b"")
    assert b"members" not in (tmp_path / "one.safetensors").read_bytes()


def stored(path: Path, **changes) -> Path:
    one = random_weights.weights(head="regression", calibration=JOINT)
    header = dataclasses.replace(one.header, **{"data": {"name": "rsna_bone_age"}, **changes})
    weights.write(path, dataclasses.replace(one, header=header))
    return path


def test_incompatible_weights_cannot_be_combined(tmp_path):
    good = stored(tmp_path / "good.safetensors")
    for other, words in (
        (stored(tmp_path / "plain.safetensors", calibration=None), "plain.safetensors cannot be combined"),
        (stored(tmp_path / "half.safetensors", storage="float16"), "is stored in float16"),
    ):
        with pytest.raises(BoneAgeError, match=words):
            combine([good, other], tmp_path / "out.safetensors", data_dir=tmp_path)
    with pytest.raises(BoneAgeError, match="1 weights files cannot be combined"):
        combine([good], tmp_path / "out.safetensors", data_dir=tmp_path)
    with pytest.raises(BoneAgeError, match=r"does not end in \.safetensors"):
        combine([good, good], tmp_path / "out.bin", data_dir=tmp_path)
    weights.write(tmp_path / "both.safetensors", together())
    with pytest.raises(BoneAgeError, match="already combines several networks"):
        combine([tmp_path / "both.safetensors", good], tmp_path / "out.safetensors", data_dir=tmp_path)


def test_the_header_lists_the_initial_weights_of_all_networks_and_the_version_that_wrote_it(tmp_path, monkeypatch):
    def network(name, *initial):
        data = {"name": "other", "title": "East", "url": "", "terms": "internal", "citation": "", "train_images": 9}
        figures = {"overall": {"mae": {"value": 9.0}}}
        origins = [{"name": one, "title": f"data of {one}", "terms": "some", "citation": ""} for one in initial]
        data |= {"measured_split": "validation", "measured_images": 9, "initialised_from": origins}
        return stored(tmp_path / f"{name}.safetensors", data=data, figures=figures, version="0.0.1")

    images = labelled([hand()] * 100)["images"]
    _, content = cv2.imencode(".png", hand())
    images = [dataclasses.replace(one, file=File("hand.png", 0, 0, content.tobytes())) for one in images]
    monkeypatch.setattr(rsna, "find", lambda folder: {"validation": images})
    monkeypatch.setattr(rsna, "is_official", lambda folder: False)
    files = [network("first", "a", "b"), network("second", "c", "b")]
    header = combine(files, tmp_path / "both.safetensors", data_dir=tmp_path)

    assert [one["name"] for one in header.data["initialised_from"]] == ["a", "b", "c"]
    assert header.version == __version__
    assert [one["version"] for one in header.members] == ["0.0.1"] * 2
    card = (tmp_path / "both.md").read_text()
    assert "Initialised from `c`, trained on data of c; terms: some" in card


def test_weights_trained_on_different_data_cannot_be_combined(tmp_path):
    files = [
        stored(tmp_path / f"{title}.safetensors", data={"name": "other", "title": title}) for title in ("East", "West")
    ]
    with pytest.raises(BoneAgeError, match=r"West\.safetensors was trained on other data \(West\) than .*\(East\)"):
        combine(files, tmp_path / "out.safetensors", data_dir=tmp_path)


def test_weights_are_neither_combined_nor_calibrated_into_a_file_that_is_read(tmp_path):
    files = [stored(tmp_path / f"{name}.safetensors") for name in ("first", "second")]
    (tmp_path / "link.safetensors").symlink_to(files[1])
    before = {file: file.read_bytes() for file in files}
    for out in (*files, tmp_path / "link.safetensors", tmp_path / "new/../second.safetensors"):
        (tmp_path / "new").mkdir(exist_ok=True)
        with pytest.raises(BoneAgeError, match=f"{out.name} is one of the weights files that are read"):
            combine(files, out, data_dir=tmp_path)
        with pytest.raises(BoneAgeError, match=f"{out.name} is one of the weights files that are read"):
            recalibrate(weights.read(out), out, **labelled([hand()] * 100))
        assert not out.with_suffix("").exists()
    assert {file: file.read_bytes() for file in files} == before


def test_a_joint_network_in_the_first_place_gives_the_regions_too():
    joints, whole = together().members[::-1]
    header = dataclasses.replace(
        joints.header, calibration=JOINT.to_dict(), members=[dataclasses.asdict(one.header) for one in (joints, whole)]
    )
    found = Predictor(Weights(header, joints.variables, members=(joints, whole))).predict(hand(), sex="M")
    assert found.months == pytest.approx(predictor().predict(hand(), sex="M").months, abs=1e-3)
    assert found.regions == test_region_readings.predictor().predict(hand(), sex="M").regions


def test_the_mean_and_every_network_are_calibrated_to_own_images(tmp_path):
    out, count = tmp_path / "own.safetensors", 101
    figures = {"overall": {"mae": {"value": 9.0}}}  # the model card gives it for every network
    members = tuple(
        dataclasses.replace(one, header=dataclasses.replace(one.header, figures=figures)) for one in together().members
    )
    earlier = dataclasses.replace(together(), members=members)
    pictures = [hand()] * (count - 1) + [random_weights.grainy(20.0)]  # the last one has no joints
    given = labelled(pictures)
    items = given["items"]
    done = recalibrate(earlier, out, **given, source="East")

    headers = weights.read(out).header.members
    assert [one["calibration"]["images"] for one in headers] == [count, count - 1]
    assert done.header.calibration is not None
    assert done.header.calibration["images"] == count - 1
    assert set(done.header.figures["regions"]) == set(NAMES)
    rows = list(csv.DictReader((tmp_path / "own/predictions.csv").read_text().splitlines()))
    found = list(Predictor(weights.read(out)).predict_many([items[0], items[-1]], accept_warnings=True))
    for row, one in zip((rows[0], rows[-1]), found, strict=True):
        expected = [float(row[key]) for key in ("predicted", "low", "high")]
        assert [one.months, *(one.interval or ())] == pytest.approx(expected, abs=1e-3)
    assert found[0].regions["Radius"].interval != predictor().predict(hand(), sex="F").regions["Radius"].interval


def test_too_few_images_that_a_network_can_read_are_refused(tmp_path):
    pictures = [hand()] * 99 + [random_weights.grainy(20.0)] * 2  # the last two have no joints
    with pytest.raises(BoneAgeError, match="99 images that 'tiny_joints' can read are too few"):
        recalibrate(together(), tmp_path / "own.safetensors", **labelled(pictures))


def test_too_few_images_of_a_region_are_refused(tmp_path):
    cut = hand().copy()
    cut[330:] = cut[:70].mean()  # without the wrist
    with pytest.raises(BoneAgeError, match=r"99 images that show the region .+ are too few for a calibration"):
        recalibrate(together(), tmp_path / "own.safetensors", **labelled([hand()] * 99 + [cut] * 2))


def labelled(pictures: list[np.ndarray]) -> dict[str, Any]:
    """The arguments of `recalibrate` that name the images."""
    images = [LabelledImage(str(place), Sex.FEMALE, 60.0, File("", 0, 0, b"")) for place in range(len(pictures))]
    items = [Item(picture, "F") for picture in pictures]
    return {"images": images, "items": items, "hospitals": [""] * len(pictures), "split": "own"}
