"""The authors' weight names for ConvNeXt V2 against timm, which renames and reshapes their files."""

import numpy as np
import pytest

from boneage_jax.models.convnextv2 import ConvNeXtV2
from boneage_jax.pretrained.assign import assign
from boneage_jax.pretrained.convnextv2 import fair_names, timm_names
from boneage_jax.pretrained.names import shapes
from tests.parity import comparison

pytestmark = [pytest.mark.parity, pytest.mark.slow]


def test_weights_under_the_authors_names_load_like_timms():
    torch = pytest.importorskip("torch")
    timm = comparison.timm()
    model, trunk = timm.create_model("convnextv2_tiny"), ConvNeXtV2("tiny")
    state = {key: torch.randn(value.shape) for key, value in model.state_dict().items()}
    theirs = {}
    to_timm = timm_names(trunk)
    for ours, key in fair_names(trunk).items():
        value = state[to_timm[ours]]
        theirs[key] = value.reshape(1, 1, 1, -1) if "grn" in key else value
    renamed = timm.models.convnext.checkpoint_filter_fn(dict(theirs), model)
    assert set(renamed) == {key for key in state if not key.startswith("head.")}
    assert all(torch.equal(value, state[key]) for key, value in renamed.items())

    def assigned(arrays, names):
        arrays = {key: value.numpy() for key, value in arrays.items()}
        return assign(arrays, names, shapes(trunk), "torch")["params"]["stage3_block9"]

    one, other = assigned(theirs, fair_names(trunk)), assigned(renamed, to_timm)
    for layer in ("grn", "project"):
        for leaf, value in one[layer].items():
            np.testing.assert_array_equal(value, other[layer][leaf])
