"""`boneage_jax.environment`: what a run, a reading or a measurement records about the machine and its software."""

import json
import platform
import subprocess

import jax
import pytest

from boneage_jax import config as configuration
from boneage_jax import environment
from boneage_jax.predict import about
from boneage_jax.train import log

CPU_INFO = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC 9R14\nprocessor\t: 1\n"


@pytest.fixture
def cpu_info(monkeypatch, tmp_path):
    """Replaces /proc/cpuinfo; the fixture is called with its content."""
    monkeypatch.setattr(environment, "_CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(platform, "processor", lambda: "")  # as on most Linux systems
    return (tmp_path / "cpuinfo").write_text


def test_the_processor_is_named_by_its_model(cpu_info):
    cpu_info(CPU_INFO)
    assert environment.processor() == "AMD EPYC 9R14"
    assert environment.hardware().startswith("4 x cpu; AMD EPYC 9R14, ")


@pytest.mark.parametrize("content", ["processor\t: 0\n", None], ids=["no model", "no file"])
def test_a_processor_without_a_model_is_named_by_its_architecture(cpu_info, content):
    if content is not None:
        cpu_info(content)
    assert environment.processor() == platform.machine()


def test_a_run_records_the_model_of_its_processor(cpu_info, tmp_path):
    cpu_info(CPU_INFO)
    log.describe_run(tmp_path, configuration.base())
    found = json.loads((tmp_path / "run.json").read_text())
    assert found["cpu"] == "AMD EPYC 9R14"
    assert found["packages"] == environment.packages()


def test_readings_runs_and_measurements_name_the_same_packages():
    packages = environment.packages()
    assert packages["jax"] == jax.__version__
    assert about._environment()["packages"] == packages
    assert packages.items() <= environment.versions().items()


def test_packages_that_are_not_installed_are_left_out():
    assert environment.packages(("jax", "not-a-package")) == {"jax": jax.__version__}


def test_without_git_the_commit_is_unknown(monkeypatch):
    def refuse(*_, **__):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", refuse)
    assert environment.commit() is None


def test_a_repository_that_only_surrounds_the_package_is_not_its_checkout(monkeypatch, tmp_path):
    package = tmp_path / "venv/boneage_jax"
    package.mkdir(parents=True)
    (tmp_path / ".gitignore").write_text("venv\n")
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=b", "commit", "-qm", "c"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    monkeypatch.setattr(environment, "__file__", str(package / "environment.py"))
    (package / "environment.py").touch()
    assert environment.commit() is None
