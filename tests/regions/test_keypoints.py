import json
import subprocess
import sys

import numpy as np
import pytest

from boneage_jax import compilation
from boneage_jax.atomic_files import write_text
from boneage_jax.data.keypoints import read_key_points
from boneage_jax.errors import BoneAgeError
from boneage_jax.regions import keypoints
from boneage_jax.regions.detector import Detector, named
from boneage_jax.regions.keypoints import document, key_points
from boneage_jax.regions.metrics import Boxes
from tests.data import rsna_forms
from tests.regions.test_fingers import CENTRES, LABEL, hand


def marked(regions):
    return {"width": 220, "height": 250, "keypoints": key_points(regions)}


def test_region_centres_are_read_back_as_bonets_key_points(tmp_path):
    regions = named(Boxes(LABEL, hand(), np.ones(17)), (250, 220))
    path = tmp_path / "points.json"
    path.write_text(json.dumps(document([("1377.png", marked(regions))])))
    (points,) = read_key_points(path).values()
    assert points.shape == (250, 220)
    # The centre of the first pixel is (0, 0), its corner (-0.5, -0.5).
    np.testing.assert_allclose(points.points + 0.5, [CENTRES[one.name] for one in regions.found])
    assert read_key_points(path).keys() == {"1377"}


def test_a_missing_region_has_no_key_point(tmp_path):
    regions = named(Boxes(LABEL[1:], hand()[1:], np.ones(16)), (250, 220))
    values = np.reshape(key_points(regions), (17, 3))
    assert values[0].tolist() == [0, 0, 0]
    assert (values[1:, 2] == 2).all()
    path = tmp_path / "points.json"
    path.write_text(json.dumps(document([("1.png", marked(regions))])))
    assert np.isnan(read_key_points(path)["1"].points[:, 0]).tolist() == [True] + [False] * 16


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("file/points.json", "the folder .*file for --out cannot be created"),
        ("rsna", "rsna is a folder; expected a fi"),
    ],
)
def test_an_unusable_output_is_an_error_before_the_images_are_read(out, message, tmp_path, monkeypatch):
    rsna_forms.official(tmp_path / "rsna")
    (tmp_path / "file").touch()
    monkeypatch.setattr(compilation, "use_cache", lambda _: None)
    monkeypatch.setattr(keypoints, "packaged", None)
    monkeypatch.setattr(sys, "argv", ["keypoints", f"--data={tmp_path / 'rsna'}", f"--out={tmp_path / out}"])
    with pytest.raises(BoneAgeError, match=message):
        keypoints.main()


class Brightness(Detector):
    """Stands in for the detector: the regions of a hand, shifted by the mean intensity; fails after some images."""

    def __init__(self, sha256="a", most=1000):
        self.sha256, self.most, self.asked = sha256, most, 0

    def find(self, image):
        self.asked += image.shape != (128, 128)  # not the example
        if self.asked > self.most:
            raise KeyboardInterrupt
        return named(Boxes(LABEL, hand() + image.mean() / 100, np.ones(17)), (250, 220))


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Runs the program with a detector; returns the number of images that it read, or None if it was stopped."""
    rsna_forms.write(tmp_path / "rsna", rsna_forms.images(rsna_forms.TRAIN_IDS, "boneage-training-dataset/"))
    rsna_forms.write(tmp_path / "rsna", {rsna_forms.TRAIN_CSV: rsna_forms.table(rsna_forms.train_rows())})
    monkeypatch.setattr(compilation, "use_cache", lambda _: None)

    def run(detector, out="points.json"):
        monkeypatch.setattr(keypoints, "packaged", lambda: detector)
        monkeypatch.setattr(sys, "argv", ["keypoints", f"--data={tmp_path / 'rsna'}", f"--out={tmp_path / out}"])
        try:
            assert keypoints.main() == 0
        except KeyboardInterrupt:
            return None
        return detector.asked

    return run


@pytest.mark.parametrize("save_seconds", [0.0, 60.0])
def test_a_stopped_run_continues_and_writes_the_same_file(program, save_seconds, tmp_path, monkeypatch):
    monkeypatch.setattr(keypoints, "_SAVE_SECONDS", save_seconds)
    count = program(Brightness(), "undisturbed.json")
    assert program(Brightness(most=11)) is None
    assert program(Brightness(most=4)) is None
    assert not (tmp_path / "points.json").exists()
    assert program(Brightness()) == count - 15
    assert (tmp_path / "points.json").read_bytes() == (tmp_path / "undisturbed.json").read_bytes()
    assert not list(tmp_path.glob("*.partial"))


def test_a_killed_run_loses_only_what_it_found_since_the_last_save(program, tmp_path, monkeypatch):
    partial = tmp_path / "points.json.partial"
    monkeypatch.setattr(keypoints, "_SAVE_SECONDS", 0.0)
    kept = []

    def write_and_keep(path, text):
        write_text(path, text)
        kept.append(text)

    with monkeypatch.context() as patch:
        patch.setattr(keypoints, "write_text", write_and_keep)
        assert program(Brightness(most=11)) is None
    partial.write_text(kept[9])  # as a kill after nine images leaves it
    assert program(Brightness()) == len(rsna_forms.TRAIN_IDS) - 9


def test_images_that_have_changed_are_read_again(program, tmp_path):
    count = program(Brightness(), "before.json")
    assert program(Brightness(most=11)) is None
    first, *_ = json.loads((tmp_path / "points.json.partial").read_text())["found"]
    (tmp_path / "rsna" / json.loads(first)[0]).write_bytes(rsna_forms.png(5, dtype=np.uint16))
    assert program(Brightness()) == count - 10
    assert program(Brightness(), "undisturbed.json") == count
    assert (tmp_path / "points.json").read_bytes() == (tmp_path / "undisturbed.json").read_bytes()
    assert (tmp_path / "points.json").read_bytes() != (tmp_path / "before.json").read_bytes()


def test_the_points_of_another_detector_are_not_mixed_in(program):
    assert program(Brightness(most=11)) is None
    assert program(Brightness(sha256="b")) == len(rsna_forms.TRAIN_IDS)


@pytest.mark.parametrize("content", ['{"made_by": {', "[]", '{"made_by": {}, "found": 3}'])
def test_a_damaged_partial_file_is_named(program, content, tmp_path):
    (tmp_path / "points.json.partial").write_text(content)
    with pytest.raises(BoneAgeError, match=r"points\.json\.partial is damaged .*; delete it to start again$"):
        program(Brightness())


def test_the_program_ends_with_a_one_line_error(tmp_path):
    command = [sys.executable, "-m", "boneage_jax.regions.keypoints", "--data=missing", "--out=points.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: The data folder missing does not exist; get ")
    assert done.stderr.count("\n") == 1
