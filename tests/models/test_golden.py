"""Trunks against stored outputs of the original implementations for the same weights and image."""

from pathlib import Path

import numpy as np
import pytest

from boneage_jax.models.network import TRUNKS
from tests.compiling import QUICK
from tests.models.families import FAMILIES, OWN
from tests.models.golden.make_golden import SIZE, kept
from tests.parity import comparison

GOLDEN = Path(__file__).parent / "golden"
ORIGINALS = {name: make for family in FAMILIES.values() for name, make in family.golden.items()}


def test_every_registered_family_has_golden_arrays():
    assert set(ORIGINALS) == {path.stem for path in GOLDEN.glob("*.npz")}
    families = {type(make()) for make in ORIGINALS.values()}
    # BoNet without a heat map is InceptionV3, as its own test shows.
    assert families == {type(make()) for name, make in TRUNKS.items() if name not in OWN | {"bonet"}}


@pytest.mark.parametrize("name", ORIGINALS)
def test_every_stage_equals_the_original(name):
    expected = dict(np.load(GOLDEN / f"{name}.npz"))
    trunk, image = ORIGINALS[name](), comparison.image(*SIZE)
    layers = [stage for stage in expected if stage != "whole"]
    actual = comparison.stages(trunk, comparison.filled(trunk, comparison.drawn), image, layers, QUICK)
    for number, (stage, values) in enumerate(expected.items()):
        found = kept(actual[stage])
        assert comparison.relative_error(found, values) <= (1e-5 if number == 0 else 1e-4), stage


def test_golden_arrays_stay_small():
    assert sum(path.stat().st_size for path in GOLDEN.glob("*.npz")) < 2**20
