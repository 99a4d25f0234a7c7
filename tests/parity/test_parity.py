"""Every trunk against its originals with the originals' random weights: `pytest -m parity -rP` prints the table."""

import importlib
import os
import pkgutil
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import traverse_util

from boneage_jax import models
from boneage_jax.models.bonet import BoNet
from tests.models.families import OWN
from tests.parity import comparison

os.environ["KERAS_BACKEND"] = "jax"
pytestmark = [pytest.mark.parity, pytest.mark.slow]
FAMILIES = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent / "originals")])]
STEM, WHOLE = 1e-5, 1e-4


CASES = [case for family in FAMILIES for case in importlib.import_module(f"tests.parity.originals.{family}").CASES]
each_case = pytest.mark.parametrize("case", CASES, ids=str)


def report(case: comparison.Case, what: str, errors: dict[str, float]) -> None:
    worst = max(errors, key=errors.__getitem__)
    stem = next(iter(errors))
    print(
        f"{case!s:24} {what:10} stem {errors[stem]:.1e}  worst stage {errors[worst]:.1e} ({worst})"
        f"  whole {errors.get('whole', np.nan):.1e}"
    )


@pytest.mark.parametrize("native", [True, False], ids=["native", "odd"])
@each_case
def test_every_stage_equals_the_original(case, native):
    size = case.sizes[0] if native else case.sizes[1]
    model = case.original(size, size)
    comparison.shake_normalisation(case, model)
    pixels = comparison.image(size, size)
    expected = case.stages(model, pixels)
    actual = comparison.stages(case.trunk(), comparison.ours(case, model), pixels, list(expected)[:-1])
    errors = {stage: comparison.relative_error(actual[stage], expected[stage]) for stage in expected}
    report(case, f"{size} px", errors)
    assert next(iter(errors.values())) <= STEM, errors
    assert max(errors.values()) <= WHOLE, errors


@each_case
def test_a_training_step_updates_the_statistics_like_the_original(case):
    size = case.sizes[1]
    model, trunk = case.original(size, size), case.trunk()
    comparison.shake_normalisation(case, model)
    variables, pixels = comparison.ours(case, model), comparison.image(size, size)
    names = case.names(trunk)
    undropped = trunk.clone(drop_path=0.0) if hasattr(trunk, "drop_path") else trunk
    moved = jax.jit(lambda v, x: undropped.apply(v, x, train=True, mutable=["batch_stats"])[1])(variables, pixels)
    expected = comparison.trained_statistics(case, model, pixels)
    errors = {
        leaf: comparison.relative_error(value, expected[names[leaf]])
        for leaf, value in traverse_util.flatten_dict(moved.get("batch_stats", {}), sep="/").items()
    }
    assert len(errors) == len(expected)  # both are empty for ConvNeXt V2, which has no batch statistics
    if errors:
        report(case, "training", errors)
    assert max(errors.values(), default=0) <= WHOLE, errors


def test_every_registered_trunk_is_compared():
    registered = {name: type(models.create(name).trunk) for name in models.names()}
    published = {trunk for name, trunk in registered.items() if name not in OWN} - {BoNet}
    assert published <= {type(case.trunk()) for case in CASES} <= set(registered.values())
