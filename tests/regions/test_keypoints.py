import json
import subprocess
import sys

import numpy as np
import pytest

from boneage_jax import compilation
from boneage_jax.data.keypoints import read_key_points
from boneage_jax.errors import BoneAgeError
from boneage_jax.regions import keypoints
from boneage_jax.regions.detector import named
from boneage_jax.regions.keypoints import document, key_points
from boneage_jax.regions.metrics import Boxes
from tests.data import rsna_forms
from tests.regions.test_fingers import CENTRES, LABEL, hand


def test_region_centres_are_read_back_as_bonets_key_points(tmp_path):
    regions = named(Boxes(LABEL, hand(), np.ones(17)), (250, 220))
    path = tmp_path / "points.json"
    path.write_text(json.dumps(document([("1377.png", (250, 220), regions)])))
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
    path.write_text(json.dumps(document([("1.png", (250, 220), regions)])))
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


def test_the_program_ends_with_a_one_line_error(tmp_path):
    command = [sys.executable, "-m", "boneage_jax.regions.keypoints", "--data=missing", "--out=points.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: The data folder missing does not exist; get ")
    assert done.stderr.count("\n") == 1
