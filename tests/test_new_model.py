"""`python -m tools.new_model` writes a model that trains and whose tests pass."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools import new_model

ROOT = Path(__file__).parents[1]
COPIED = ("boneage_jax", "benchmarks", "configs", "tests", "tools")
SOURCE = """\
from boneage_jax.models.bonet import BoNet
from boneage_jax.models.heads import Regression
from boneage_jax.models.xception import Xception

TRUNKS = {
    "bonet": BoNet,
    "xception": Xception,
}
HEADS = {
    "regression": Regression,
}
"""


@pytest.fixture
def checkout(tmp_path):
    for folder in COPIED:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "results"))
    for file in ("launch.py", "pyproject.toml"):
        shutil.copy(ROOT / file, tmp_path)
    return tmp_path


def run(folder, *arguments):
    environment = os.environ | {"PYTHONPATH": str(folder), "KERAS_BACKEND": "jax"}
    found = subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def contents(folder):
    """The bytes of every file below the folder, by path."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["bo_net", "x_ception", "block", "conv"])
def test_a_name_whose_class_exists_already_is_refused(name):
    class_name = {"bo_net": "BoNet", "x_ception": "Xception"}.get(name, name.capitalize())
    with pytest.raises(ValueError, match=f"gives the class {class_name}, which exists already"):
        new_model.register(SOURCE, name, class_name)


@pytest.mark.parametrize("name", ["abc", "my_net", "zz"])
def test_the_registry_stays_in_alphabetical_order(name):
    lines = new_model.register(SOURCE, name, "New").splitlines()
    modules = [line.split()[1] for line in lines if line.startswith("from")]
    keys = [line.strip() for line in lines[lines.index("TRUNKS = {") + 1 : lines.index("}")]]
    assert f"boneage_jax.models.{name}" in modules
    assert modules == sorted(modules)
    assert f'"{name}": New,' in keys
    assert keys == sorted(keys)
    assert len(lines) == len(SOURCE.splitlines()) + 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("MyNet", "'MyNet' cannot name a module; use small letters"),
        ("class", "'class' cannot name a module"),
        ("../net", "cannot name a module"),
        ("xception", "is taken by boneage_jax/models/xception.py, configs/xception.py"),
        ("resnet50", "is taken by configs/resnet50.py"),
    ],
)
def test_an_invalid_or_taken_name_gives_a_one_line_error(name, message, tmp_path, capsys):
    for folder in {Path(path).parent for path in [str(new_model.REGISTRY), *new_model.FILES.values()]}:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    before = contents(tmp_path)
    assert new_model.main([name], tmp_path) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert contents(tmp_path) == before


def test_outside_a_checkout_nothing_is_written(tmp_path, capsys):
    assert new_model.main(["my_net"], tmp_path) == 1
    assert "run the command in the root of the checkout" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_new_model_trains_at_once_and_its_tests_pass(checkout):
    assert "boneage_jax/models/my_net.py" in run(checkout, "-m", "tools.new_model", "my_net")
    tests = ["tests/models/test_models.py", "tests/test_configs.py", "-k", "my_net or covered"]
    assert " passed" in run(checkout, "-m", "pytest", *tests)
    tiny = ("data.name=phantom", "data.limit=32", "data.cache=cache", "data.workers=0", "preprocess.size=48")
    flags = [f"--config.{setting}" for setting in (*tiny, "train.epochs=1", "compilation_cache=off")]
    assert "MAE" in run(checkout, "launch.py", "--config=configs/my_net.py", "--workdir=run", *flags)
    if importlib.util.find_spec("keras") is None:
        pytest.skip("keras, to compare with, is not installed")
    assert " passed" in run(checkout, "-m", "pytest", "-m", "parity", "tests/parity/test_parity.py", "-k", "my_net")
