"""`benchmarks/record.py`: every result says when, how and on what it was measured."""

import json
import sys

import jax
import pytest

from benchmarks import record
from boneage_jax import environment
from boneage_jax.errors import BoneAgeError


def test_a_result_records_its_circumstances(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["/checkout/benchmarks/robustness.py", "--images", "two words"])
    written = record.write(tmp_path / "results" / "one.json", {"rows": [1, 2]}, peers=("pytest", "not-a-package"))

    assert json.loads((tmp_path / "results" / "one.json").read_text()) == written
    assert list(written) == ["date", "command", "commit", "hardware", "versions", "rows"]
    assert written["command"] == "python -m benchmarks.robustness --images 'two words'"
    assert written["hardware"] == environment.hardware()
    assert written["versions"]["pytest"] == pytest.__version__
    assert written["versions"]["jax"] == jax.__version__
    assert "not-a-package" not in written["versions"]


def test_a_result_that_cannot_be_written_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "one.json"
    record.write(path, {"rows": [1]})
    with pytest.raises(TypeError, match="not JSON serializable"):
        record.write(path, {"rows": [object()]})
    assert json.loads(path.read_text())["rows"] == [1]
    with pytest.raises(BoneAgeError, match="cannot write"):
        record.write(path / "below-a-file.json", {})
