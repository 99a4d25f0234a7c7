"""Prints the measured columns of the table in docs/zoo.md: input, parameters, operations, batch and memory.

    python docs/make_zoo_table.py [NAME ...]    such as xception or efficientnet:b4; all of the table by default

Nothing is executed: each configuration's training step is compiled on the CPU for its own image and batch size.
Operations are counted for the prediction of one image (a multiply-add counts as 2). Memory is that of a training step
as XLA plans it, without `model.remat`. The whole table takes some minutes.
"""

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from boneage_jax.benchmark import cost
from boneage_jax.train import parallel
from boneage_jax.train.experiment import Experiment, Statistics

ROOT = Path(__file__).parents[1]
COLUMNS = ("config", "input", "M parameters", "GFLOPs", "batch", "GiB")
STATISTICS = Statistics(127.3, 41.2, {"chronological_age": (130.0, 45.0)})


def main(names: list[str]) -> None:
    """Prints one row for each configuration."""
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for name in names or listed():
        print(row(name), flush=True)


def listed() -> list[str]:
    """The configurations in the first table of docs/zoo.md, in its order."""
    table = (ROOT / "docs" / "zoo.md").read_text().partition("\n|")[2].partition("\n\n")[0]
    return re.findall(r"^\| `([\w:]+)` \|", table, re.MULTILINE)


def read(name: str) -> ConfigDict:
    """The configuration of this name, such as "xception" or "efficientnet:b4"."""
    file, _, variant = name.partition(":")
    if not _file(file).exists():
        sys.exit(f"error: {_file(file)} does not exist; choose a configuration of {ROOT / 'configs'}")
    return importlib.import_module(f"configs.{file}").get_config(*filter(None, [variant]))


def row(name: str) -> str:
    """The configuration's row."""
    config = read(name)
    config.evaluate.views = "centre"
    experiment = Experiment.create(config, STATISTICS)
    size, channels = experiment.preprocessing.visible, experiment.preprocessing.channels
    _, state = experiment.fresh_state(steps_per_epoch=100)
    one = _batch(1, experiment.preprocessing.size, channels, dict(config.data.inputs))
    flops = cost.count_flops(experiment.inference(), state.variables, one)
    parameters = cost.count_parameters(state.params) / 1e6
    cells = (
        f"`{name}`",
        str(size),
        f"{parameters:.1f}",
        f"{flops / 1e9:.1f}",
        str(config.train.batch_size),
        f"{step_bytes(config) / 2**30:.1f}",
    )
    return f"| {' | '.join(cells)} |"


def step_bytes(config: ConfigDict) -> int:
    """Memory of a training step in bytes, without rematerialisation of the blocks."""
    config.model.remat = False
    experiment = Experiment.create(config, STATISTICS)
    size, channels = experiment.preprocessing.visible, experiment.preprocessing.channels
    transform, state = experiment.fresh_state(steps_per_epoch=100)
    batch = parallel.split(_batch(config.train.batch_size, size, channels, dict(config.data.inputs)))
    return cost.compile_program(experiment.compile_train_step(transform), state, batch).memory_bytes


def _batch(count: int, size: int, channels: int, inputs: dict[str, str]) -> dict[str, Any]:
    return {
        "image": np.zeros((count, size, size, channels), np.uint8),
        "sex": np.zeros(count, np.int32),
        "age": np.zeros(count, np.float32),
        "inputs": {
            name: np.zeros((count, size, size, 1) if kind == "keypoints" else count, np.float32)
            for name, kind in inputs.items()
        },
    }


def _file(name: str) -> Path:
    return ROOT / "configs" / f"{name}.py"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # for the configurations, which are no part of the package
    main(sys.argv[1:])
