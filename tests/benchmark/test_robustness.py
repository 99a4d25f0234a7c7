import sys

import pytest

from benchmarks import robustness
from boneage_jax.data import rsna
from boneage_jax.data.files import File
from boneage_jax.data.rsna import LabelledImage
from boneage_jax.sex import Sex


def test_missing_copies_are_named_before_anything_is_measured(monkeypatch, tmp_path):
    images = [LabelledImage(number, Sex.MALE, 60.0, File("", 0, 0, b"")) for number in ("1377", "1378", "1379")]
    found = {"originals": images, "copies": images[:1]}
    monkeypatch.setattr(rsna, "find_labelled", lambda labels, folder, on_missing: found[folder.name])
    monkeypatch.setattr(robustness, "load", lambda name: pytest.fail("the weights were loaded"))
    flags = [f"--images={tmp_path / 'originals'}", "--labels=labels.csv", f"--copies={tmp_path / 'copies'}"]
    monkeypatch.setattr(sys, "argv", ["robustness.py", *flags])
    with pytest.raises(SystemExit, match=r"copies has no copies of 1378, 1379; complete it"):
        robustness.main()
