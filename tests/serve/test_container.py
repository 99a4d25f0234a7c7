"""Runs the steps of the Dockerfile in a fresh virtual environment, because CI cannot pull its base images."""

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx2
import pytest

from boneage_jax.data import phantom
from tests.serve import services

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
LINES = (ROOT / "Dockerfile").read_text().splitlines()


def step(start):
    """The rest of the only Dockerfile line that begins with `start`."""
    (found,) = [line for line in LINES if line.startswith(start)]
    return found[len(start) :]


def copied(target):
    """Copies what `COPY . /source` would: .dockerignore excludes all but the names after an exclamation mark."""
    rules = (ROOT / ".dockerignore").read_text().split()
    assert rules[0] == "*"
    ignored = shutil.ignore_patterns(*(rule.removeprefix("**/") for rule in rules if rule.startswith("**/")))
    target.mkdir()
    for name in (rule[1:] for rule in rules if rule.startswith("!")):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, target)
    return target


def test_the_dockerfile_steps_give_a_healthy_service(tmp_path):
    source, venv, token = copied(tmp_path / "source"), tmp_path / "venv", tmp_path / "token"
    token.write_text(services.TOKEN)
    places = {"/opt/boneage": str(venv), "/source": str(source), "/run/token": str(token)}

    def here(text):
        return re.sub("|".join(places), lambda found: places[found[0]], text)

    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "JAX_", "XLA_"))}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    # The kernels have their own tests; here their optional build, which takes a minute, is made to fail.
    building = environment | {"CC": "false", "CXX": "false"}

    def run(command, environment):
        subprocess.run(shlex.split(here(command)), check=True, cwd=tmp_path, env=environment)

    for start in ("RUN python -m venv", "RUN /opt/boneage/bin/pip", "RUN /opt/boneage/bin/python"):
        run(start.removeprefix("RUN ") + step(start), building)
    assert list((tmp_path / "cache").rglob("*-cache"))
    command = [*json.loads(here(step("CMD "))), "--port=0"]
    with services.started(command, tmp_path, environment) as (address, _):
        address = address.replace("0.0.0.0", "127.0.0.1")
        check = json.loads(here(step("HEALTHCHECK ").partition("CMD ")[2].replace("http://127.0.0.1:8080/", address)))
        subprocess.run(check, check=True, cwd=tmp_path, env=environment)
        image = services.png(phantom.render(96, 1, size=512, seed=7).image)
        form: dict[str, Any] = {"files": {"image": ("hand.png", image)}, "data": {"sex": "M"}, "timeout": 60}
        assert httpx2.post(f"{address}predict", **form).status_code == 401
        answer = httpx2.post(f"{address}predict", **form, headers={"authorization": f"Bearer {services.TOKEN}"})
    assert answer.status_code == 200
    assert answer.json()["provenance"]["weights"] == "accurate"


def test_the_container_does_not_run_as_root():
    assert step("USER ") not in ("root", "0")
    assert LINES.index(f"USER {step('USER ')}") < LINES.index(f"CMD {step('CMD ')}")
