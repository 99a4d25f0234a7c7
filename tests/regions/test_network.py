from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boneage_jax.models.efficientnet import EfficientNet
from boneage_jax.regions.network import STRIDE, Decoder, Encoder, RegionNet
from tests.compiling import QUICK
from tests.parity import comparison


def test_maps_have_a_stride_of_four_and_weights_fit_in_4_mb():
    image = jnp.zeros((2, 64, 96, 1))

    def made():
        maps, variables = RegionNet().init_with_output(jax.random.key(0), image)
        return maps.heat, maps.boxes, variables

    heat, boxes, variables = jax.eval_shape(made)
    assert heat.shape == (2, 16, 24, 6)
    assert boxes.shape == (2, 16, 24, 6, 4)
    parameters = sum(x.size for x in jax.tree.leaves(variables["params"]))
    assert 2 * parameters < 4e6  # bytes as float16


def test_the_encoder_equals_the_first_blocks_of_the_bone_age_trunk():
    whole, image = EfficientNet(variant="tiny_lite"), comparison.image(64, 64)[..., :1]
    variables = comparison.filled(whole, comparison.drawn, channels=1)
    keep = partial(whole.apply, train=False, capture_intermediates=True, mutable=["intermediates"])
    _, kept = jax.jit(keep, compiler_options=QUICK)(variables, image)
    levels = jax.jit(Encoder(variant="tiny_lite").apply, compiler_options=QUICK)(variables, image)
    for level, block, side in zip(levels, ("block2a", "block3a", "block5b"), (16, 8, 4), strict=True):
        assert level.shape[1:3] == (side, side)
        np.testing.assert_allclose(level, kept["intermediates"][block]["__call__"][0], rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def decoder():
    module = Decoder(widths=(4, 4, 4), detail=2)
    image = jnp.zeros((1, 32, 48, 1))
    levels = tuple(jnp.zeros((1, 32 // side, 48 // side, 3)) for side in (4, 8, 16))
    init = jax.jit(lambda key: module.init(key, image, levels, train=False), compiler_options=QUICK)
    apply = jax.jit(lambda variables: module.apply(variables, image, levels, train=False), compiler_options=QUICK)
    return apply, init(jax.random.key(0))


def test_boxes_are_decoded_relative_to_their_cells(decoder):
    apply, variables = decoder
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), variables)
    # Label "PIP": left, top, right and bottom are 1, 2, 1/3 and 1/2 times their initial distance.
    bias = jnp.zeros((6, 4)).at[1].set(jnp.log(jnp.array([1.0, 2, 1 / 3, 1 / 2])))
    variables["params"]["sides"]["bias"] = bias.reshape(-1)
    boxes = np.asarray(apply(variables).boxes)
    x, y = STRIDE * (7 + 0.5), STRIDE * (2 + 0.5)
    np.testing.assert_allclose(boxes[0, 2, 7, 1], [x - 9, y - 18, x + 3, y + 4.5], rtol=1e-5)
    np.testing.assert_allclose(boxes[0, 2, 7, 0], [x - 9, y - 9, x + 9, y + 9], rtol=1e-5)


def test_an_untrained_network_predicts_low_heat_everywhere(decoder):
    apply, variables = decoder
    assert float(jax.nn.sigmoid(apply(variables).heat).max()) < 0.05
