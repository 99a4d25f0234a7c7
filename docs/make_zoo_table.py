"""Prints the README's table of networks: parameters, operations and XLA's planned memory of a training step.

    python docs/make_zoo_table.py [NAME ...]    such as xception or efficientnet:b4

Nothing is executed: each configuration's training step is compiled on the CPU for its own image and batch size.
Operations are counted for the prediction of one image (a multiply-add counts as 2). It takes some minutes.
"""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
from ml_collections import ConfigDict

from boneage_jax.benchmark import cost
from boneage_jax.train import parallel
from boneage_jax.train.experiment import Experiment, Statistics

CONFIGS = Path(__file__).parents[1] / "configs"
NOT_PUBLISHED = ("quickstart", "convmixer_cpu", "release_")
STATISTICS = Statistics(127.3, 41.2, {"chronological_age": (130.0, 45.0)})


def main(names: list[str]) -> None:
    """Prints one row for each configuration."""
    names = names or [name for name in sorted(_names()) if not name.startswith(NOT_PUBLISHED)]
    print("| config | input | parameters, M | GFLOPs | batch | memory of a training step, GiB | rematerialised |")
    print("|---|---|---|---|---|---|---|")
    for name in names:
        print(row(name), flush=True)


def row(name: str) -> str:
    """The configuration's row."""
    config = _config(name)
    config.evaluate.views = "centre"
    experiment = Experiment.create(config, STATISTICS)
    size, channels = experiment.preprocessing.visible, experiment.preprocessing.channels
    _, state = experiment.fresh_state(steps_per_epoch=100)
    one = _batch(1, experiment.preprocessing.size, channels, dict(config.data.inputs))
    flops = cost.count_flops(experiment.inference(), state.variables, one)
    parameters = cost.count_parameters(state.params) / 1e6
    cells = (
        f"`{config.name}`",
        f"{size} x {size} x {channels}",
        f"{parameters:.1f}",
        f"{flops / 1e9:.2f}",
        str(config.train.batch_size),
        f"{step_bytes(config) / 2**30:.1f}",
        f"{step_bytes(config, remat=True) / 2**30:.1f}",
    )
    return f"| {' | '.join(cells)} |"


def step_bytes(config: ConfigDict, *, remat: bool = False) -> int:
    """Memory of a training step in bytes, with or without rematerialisation of the blocks."""
    config.model.remat = remat
    experiment = Experiment.create(config, STATISTICS)
    size, channels = experiment.preprocessing.visible, experiment.preprocessing.channels
    transform, state = experiment.fresh_state(steps_per_epoch=100)
    batch = parallel.split(_batch(config.train.batch_size, size, channels, dict(config.data.inputs)))
    return cost.compile_program(experiment.compile_train_step(transform), state, batch).memory_bytes


def _batch(count: int, size: int, channels: int, inputs: dict[str, str]) -> dict:
    return {
        "image": np.zeros((count, size, size, channels), np.uint8),
        "sex": np.zeros(count, np.int32),
        "age": np.zeros(count, np.float32),
        "inputs": {name: np.zeros(count, np.float32) for name in inputs},
    }


def _names() -> Iterator[str]:
    for path in CONFIGS.glob("*.py"):
        variants = getattr(_load(path.stem), "VARIANTS", ())
        yield from (f"{path.stem}:{variant}" for variant in variants) if variants else (path.stem,)


def _config(name: str) -> ConfigDict:
    file, _, variant = name.partition(":")
    return _load(file).get_config(*filter(None, [variant]))


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
    if spec is None or spec.loader is None:
        sys.exit(f"there is no configuration {name} in {CONFIGS}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main(sys.argv[1:])
