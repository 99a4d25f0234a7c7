"""ConvMixer's patches and blocks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boneage_jax.errors import BoneAgeError
from boneage_jax.models.convmixer import ConvMixer
from boneage_jax.pretrained.names import shapes
from tests.parity import comparison

TINY: dict[str, Any] = {"dim": 8, "depth": 2, "kernel_size": 3, "patch_size": 4}


@pytest.mark.parametrize(("size", "expected"), [(224, 32), (230, 32), (7, 1)])
def test_pixels_outside_whole_patches_are_dropped(size, expected):
    trunk, image = ConvMixer(depth=1), jnp.zeros((1, size, size, 1))
    features = jax.eval_shape(lambda: trunk.init_with_output(jax.random.key(0), image, train=False)[0])
    assert features.shape == (1, expected, expected, 768)


def test_options_set_the_layer_sizes():
    layers = shapes(ConvMixer(dim=8, depth=3, kernel_size=5, patch_size=2), channels=1)["params"]
    assert layers["patch_embedding"]["kernel"].shape == (2, 2, 1, 8)
    assert layers["block3"]["depthwise"]["kernel"].shape == (5, 5, 1, 8)
    assert layers["block3"]["pointwise"]["kernel"].shape == (1, 1, 8, 8)
    assert "block4" not in layers


def test_activation_changes_the_features():
    variables = comparison.filled(ConvMixer(**TINY), comparison.drawn)
    gelu, relu = (
        comparison.stages(ConvMixer(**TINY, activation=name), variables, comparison.image(8, 8), [])["whole"]
        for name in ("gelu", "relu")
    )
    assert not np.allclose(gelu, relu)


def test_unknown_activation_is_refused():
    with pytest.raises(BoneAgeError, match="unknown activation 'swish' for ConvMixer; known: gelu, relu"):
        ConvMixer(**TINY, activation="swish")
