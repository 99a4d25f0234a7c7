"""What `pip install .` installs besides the modules."""

import tomllib
from pathlib import Path, PurePosixPath

import boneage_jax
from boneage_jax.released import weights

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_weights_and_model_cards_are_package_data():
    patterns = SETTINGS["tool"]["setuptools"]["package-data"]["boneage_jax"]
    folder = weights.FOLDER.relative_to(Path(boneage_jax.__file__).parent)
    for ending in (".safetensors", ".md"):
        assert any(PurePosixPath(folder, f"any{ending}").match(pattern) for pattern in patterns), ending


def test_the_command_is_installed():
    assert SETTINGS["project"]["scripts"] == {"boneage": "boneage_jax.commands.main:command"}
