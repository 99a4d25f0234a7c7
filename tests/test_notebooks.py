"""The notebooks of the documentation run from top to bottom on phantom hands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs(notebook, tmp_path):
    environment = os.environ | {"MPLBACKEND": "agg", "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    found = subprocess.run(
        [sys.executable, "-W", "ignore:FigureCanvasAgg", str(notebook)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert found.returncode == 0, found.stderr


def test_all_notebooks_are_found():
    assert [path.stem for path in NOTEBOOKS] == ["first_reading", "train_and_inspect"]
