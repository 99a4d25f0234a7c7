"""Fixtures that run `boneage predict` with random weights in an empty folder."""

import json

import pytest

import boneage_jax
from boneage_jax.commands.main import main
from boneage_jax.released import weights
from tests.predict import random_weights
from tests.predict.random_weights import CALIBRATION, cached_load


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    weights.write(path, random_weights.weights(calibration=CALIBRATION))
    return str(path)


@pytest.fixture
def run(tiny, tmp_path, monkeypatch, capsys):
    """Runs the command in an empty folder; returns its status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(boneage_jax, "load", cached_load)

    def run(*arguments):
        status = main(["predict", f"--weights={tiny}", *map(str, arguments)])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def read(run):
    """Runs the command with --format=json and returns the parsed results."""

    def read(*arguments, status=0):
        found, out, _ = run(*arguments, "--format=json")
        assert found == status
        return json.loads(out)

    return read
