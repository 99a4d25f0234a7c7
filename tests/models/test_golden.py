"""The trunks against what Keras' Xception and timm's ConvMixer gave for the same weights and image."""

from pathlib import Path

import numpy as np
import originals
import pytest

from boneage_jax import models
from boneage_jax.models.convmixer import ConvMixer
from boneage_jax.models.xception import Xception

GOLDEN = Path(__file__).parent / "golden"
SIZE = (77, 75)  # odd and not square: padding errors show
TRUNKS = {
    "convmixer": ConvMixer(dim=24, depth=2, kernel_size=5, patch_size=4),
    "xception": Xception(),
}


def test_every_registered_model_has_golden_arrays():
    assert set(TRUNKS) == set(models.names())
    assert {path.stem for path in GOLDEN.glob("*.npz")} == set(TRUNKS)


@pytest.mark.parametrize("name", TRUNKS)
def test_every_stage_equals_the_original(name):
    expected = dict(np.load(GOLDEN / f"{name}.npz"))
    trunk, image = TRUNKS[name], originals.image(*SIZE)
    layers = [stage for stage in expected if stage != "whole"]
    actual = originals.stages(trunk, originals.filled(trunk, originals.drawn), image, layers)
    for number, (stage, values) in enumerate(expected.items()):
        kept = actual[stage][..., :: max(1, actual[stage].shape[-1] // 8)]
        assert originals.relative_error(kept, values) <= (1e-5 if number == 0 else 1e-4), stage


def test_golden_arrays_stay_small():
    assert sum(path.stat().st_size for path in GOLDEN.glob("*.npz")) < 300_000
