"""Writes the golden arrays in this folder from the original implementations.

Run from the repository root, with `.[parity]`, torch and timm installed:

    KERAS_BACKEND=jax python -m tests.models.golden.make_golden

The weights and the image are drawn from fixed seeds (`comparison.drawn`), so only outputs are stored: the
pixels and channels of each stage that `kept` picks.
"""

import importlib
import pkgutil
from pathlib import Path
from typing import Any

import numpy as np

from tests.models.families import FAMILIES
from tests.parity import comparison, originals

HERE = Path(__file__).parent
SIZE = (77, 75)  # odd and not square: padding errors show


def kept(stage: np.ndarray) -> np.ndarray:
    """About eight channels of at most 10 x 10 pixels, with the borders."""
    rows, columns = (np.unique(np.linspace(0, n - 1, min(n, 10)).round().astype(int)) for n in stage.shape[1:3])
    return stage[:1, rows][:, :, columns][..., :: max(1, stage.shape[-1] // 8)]


def main() -> None:
    """Writes all golden arrays."""
    modules = [
        importlib.import_module(f"tests.parity.originals.{m.name}") for m in pkgutil.iter_modules(originals.__path__)
    ]
    cases = {str(case): case for module in modules for case in module.CASES}
    for name in (name for family in FAMILIES.values() for name in family.golden):
        case = cases[name]
        model = case.original(*SIZE)
        comparison.give(case, model, comparison.filled(case.trunk(), comparison.drawn))
        stages = case.stages(model, comparison.image(*SIZE))
        arrays: dict[str, Any] = {stage: kept(values) for stage, values in stages.items()}
        np.savez_compressed(HERE / f"{name}.npz", **arrays)


if __name__ == "__main__":
    main()
