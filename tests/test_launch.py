"""`launch.py` started as a user does, in its own process: what is shown after a mistake."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from boneage_jax import config as configuration
from boneage_jax.command_line import refuse_ignored
from tests.train.tiny_run import get_config

ROOT = Path(__file__).parents[1]
TINY = "--config=tests/train/tiny_run.py"


def launch(*arguments: object, devices: int = 1) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    return subprocess.run(
        [sys.executable, "launch.py", *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def assert_one_clear_error(found: subprocess.CompletedProcess[str], *words: str) -> None:
    assert found.returncode == 1, found.stderr
    lines = found.stderr.strip().splitlines()
    assert len(lines) == 1, found.stderr
    assert lines[0].startswith("error: ")
    assert "Traceback" not in found.stdout
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([TINY, "--config.train.batchsize=8"], ["batchsize", "did you mean train.batch_size?"]),
        ([TINY, "--config.model.options.width=8"], ["width"]),
        ([TINY, "--config.model.optoins.width=8"], ["the configuration has no key model.optoins.width"]),
        ([TINY, "--config.train.epochz=1"], ["no key train.epochz; did you mean train.epochs?"]),
        ([TINY, "--config.train.epochs=many"], ["train.epochs is many, expected a whole number"]),
        ([TINY, "--config.train.epochs=2.5"], ["train.epochs is 2.5, expected a whole number"]),
        ([TINY, "--config.train.epochs="], ["train.epochs is empty, expected a whole number"]),
        ([TINY, "--config.optimizer.learning_rate=fast"], ["learning_rate is fast, expected a number"]),
        ([TINY, "--config.train.sync_batch_norm=maybe"], ["sync_batch_norm is maybe, expected true or false"]),
        ([TINY, "--config.train.batch_size=-1"], ["train.batch_size is -1, expected 1 or more"]),
        ([TINY, "--config.train=3"], ["train is 3, expected one of its keys"]),
        ([TINY, "--workdri=x"], ["workdri"]),
        ([TINY, "--help"], ["Unknown command line flag 'help'; the flags are --mode, --workdir, --config=FILE"]),
        ([TINY, "train"], ["'train' is not a flag", "--config.section.key=value"]),
        ([TINY, "--mode=predict"], ["mode", "predict", "benchmark"]),
        (["--config=configs/nothing.py"], ["configs/nothing.py"]),
        (["--config"], ["--config is empty, which is not a file"]),
        (["--config", "--workdir=x"], ["--config is empty, which is not a file"]),
        ([TINY, "--workdir"], ["Missing value for flag --workdir"]),
        ([f"{TINY}:other"], ["configuration tests/train/tiny_run.py:other cannot", "leave out the part after the co"]),
        ([], ["no configuration is given", "--config=configs/quickstart.py"]),
        (["--mode=evaluate", "--workdir=nowhere"], ["nowhere contains no run"]),
    ],
    ids=[
        *("key", "option", "section", "key of one letter", "text", "fraction", "nothing", "no number", "no boolean"),
        *("range", "whole section", "flag", "help", "positional", "mode", "missing file", "no file", "flag as file"),
        *("no folder", "no variant", "no config", "no run"),
    ],
)
def test_invalid_flags_give_a_one_line_error(arguments, words):
    assert_one_clear_error(launch(*arguments), *words)


@pytest.mark.parametrize("content", [b'{"seed": 0', b'{"name": "\xff"}'], ids=["cut off", "not UTF-8"])
def test_a_damaged_stored_configuration_gives_a_one_line_error(content, tmp_path):
    (tmp_path / "config.json").write_bytes(content)
    assert_one_clear_error(launch("--mode=evaluate", f"--workdir={tmp_path}"), str(tmp_path / "config.json"))


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--config.checkpoint.step=3", ["checkpoint.step is for --mode=train"]),
        ("--config.preprocess.size=64", ["trained with other settings (preprocess.size: 32, now 64)"]),
        ("--config.model.dtype=bfloat16", ["model.dtype: float32, now bfloat16"]),
    ],
)
def test_a_setting_that_an_evaluation_would_ignore_gives_a_one_line_error(flag, words, tmp_path):
    (tmp_path / "config.json").write_text(configuration.to_json(get_config()))
    assert_one_clear_error(launch("--mode=evaluate", f"--workdir={tmp_path}", flag), *words)


def test_settings_of_the_training_may_differ_in_an_evaluation(tmp_path):
    (tmp_path / "config.json").write_text(configuration.to_json(get_config()))
    given = get_config()
    given.model.init_from, given.train.epochs = "fast", 9
    refuse_ignored(tmp_path, given)


def test_a_missing_data_folder_gives_a_one_line_error(tmp_path):
    found = launch(
        "--config=configs/convmixer_cpu.py",
        f"--config.data.dir={tmp_path / 'absent'}",
        f"--workdir={tmp_path / 'run'}",
    )
    assert_one_clear_error(found, str(tmp_path / "absent"))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_an_unset_data_folder_gives_a_one_line_error(tmp_path):
    found = launch("--config=configs/convmixer_cpu.py", f"--workdir={tmp_path / 'run'}")
    assert_one_clear_error(found, "data.dir")


@pytest.mark.slow
def test_an_indivisible_batch_size_gives_a_one_line_error(tmp_path):
    found = launch(TINY, "--config.train.batch_size=7", f"--workdir={tmp_path / 'run'}", devices=2)
    assert_one_clear_error(found, "train.batch_size is 7", "2 devices", "multiple of 2")
