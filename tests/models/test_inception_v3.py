"""InceptionV3 and BoNet: published sizes, the shape at every stage, the two frameworks, the second stem."""

from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from boneage_jax.errors import BoneAgeError
from boneage_jax.models.bonet import BoNet
from boneage_jax.models.inception_v3 import FRAMEWORKS, InceptionV3, average_pool
from boneage_jax.pretrained.inception_v3 import keras_names, timm_names
from tests.compiling import QUICK

SIZE = 75  # the smallest supported
CLASSIFIER = 2048 * 1000 + 1000
SECOND_STEM = ("heatmap_stem", "conv5a_1x1")


@cache
def shapes(trunk: nn.Module, channels: int = 3):
    """The shapes of the variables."""
    image = jax.ShapeDtypeStruct((1, SIZE, SIZE, channels), jnp.float32)
    heatmap = [jax.ShapeDtypeStruct((1, SIZE, SIZE, 1), jnp.float32)] if getattr(trunk, "heatmap", False) else []
    return jax.eval_shape(lambda *x: trunk.init(jax.random.key(0), *x, train=False), image, *heatmap)


def sizes(variables) -> tuple[int, int]:
    """Number of trained parameters and of running statistics."""
    return tuple(sum(leaf.size for leaf in jax.tree.leaves(variables[key])) for key in ("params", "batch_stats"))


def leaves(variables) -> set[str]:
    return {"/".join(path[1:]) for path in flatten_dict(variables)}


def test_parameter_count_matches_keras():
    params, statistics = sizes(shapes(InceptionV3()))
    assert (params, statistics) == (21_768_352, 34_432)
    # Keras counts the running statistics: without top, and with 1000 classes.
    assert params + statistics == 21_802_784
    assert params + statistics + CLASSIFIER == 23_851_784


def test_parameter_count_of_the_torch_framework_matches_timm():
    params, _ = sizes(shapes(InceptionV3(framework="torch")))
    assert params == 21_785_568
    assert params + CLASSIFIER == 23_834_568


@pytest.mark.parametrize(("size", "eighth", "sixteenth", "last"), [(299, 35, 17, 8), (500, 60, 29, 14)])
def test_every_stage_has_its_published_shape(size, eighth, sixteenth, last):
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)

    def stages(variables, image):
        captured = InceptionV3().apply(
            variables,
            image,
            train=False,
            capture_intermediates=lambda module, _: len(module.path) == 1,
            mutable=["intermediates"],
        )[1]["intermediates"]
        return {name: found["__call__"][0] for name, found in captured.items()}

    found = {name: leaf.shape[1:] for name, leaf in jax.eval_shape(stages, shapes(InceptionV3()), image).items()}
    channels = {"stem": (eighth, 192), "mixed0": (eighth, 256), "mixed1": (eighth, 288), "mixed2": (eighth, 288)}
    channels |= {f"mixed{i}": (sixteenth, 768) for i in range(3, 8)}
    channels |= {"mixed8": (last, 1280), "mixed9": (last, 2048), "mixed10": (last, 2048)}
    assert found == {name: (side, side, features) for name, (side, features) in channels.items()}


def test_simbas_flattened_features_have_their_published_length():
    image = jax.ShapeDtypeStruct((1, 500, 500, 3), jnp.float32)
    features = jax.eval_shape(lambda v, x: InceptionV3().apply(v, x, train=False), shapes(InceptionV3()), image)
    pooled = jax.eval_shape(lambda x: nn.avg_pool(x, (2, 2), (2, 2)), features)
    assert pooled.shape == (1, 7, 7, 2048)
    assert pooled.size == 100_352


@pytest.mark.parametrize(("framework", "corner"), [("keras", 1.0), ("torch", 4 / 9)])
def test_average_pools_include_the_padding_only_in_torch(framework, corner):
    pooled = average_pool(jnp.ones((1, 5, 5, 1)), count_padding=FRAMEWORKS[framework].count_padding)[0, :, :, 0]
    np.testing.assert_allclose([pooled[0, 0], pooled[2, 2]], [corner, 1.0], rtol=1e-6)


def test_only_the_torch_framework_has_batch_norm_scales():
    scaled = {name for name in leaves(shapes(InceptionV3(framework="torch"))) if name.endswith("/scale")}
    assert len(scaled) == 94
    assert leaves(shapes(InceptionV3(framework="torch"))) - scaled == leaves(shapes(InceptionV3()))


@pytest.mark.parametrize("trunk", [InceptionV3, BoNet])
def test_an_unknown_framework_is_refused(trunk):
    with pytest.raises(BoneAgeError, match=f"unknown framework 'slim' of {trunk.__name__}; known: keras, torch"):
        trunk(framework="slim")


def test_bonet_without_heat_maps_is_inception_v3():
    assert flatten_dict(shapes(BoNet())) == flatten_dict(shapes(InceptionV3()))


def test_bonet_adds_a_second_stem_with_the_same_layers():
    both, plain = shapes(BoNet(heatmap=True), channels=1), shapes(InceptionV3(), channels=1)
    for collection in ("params", "batch_stats"):
        assert set(both[collection]) - set(plain[collection]) == set(SECOND_STEM)
        assert flatten_dict(both[collection]["heatmap_stem"]) == flatten_dict(plain[collection]["stem"])
    assert both["params"]["conv5a_1x1"]["conv"]["kernel"].shape == (1, 1, 384, 192)


def test_the_heat_map_stem_takes_one_channel_whatever_the_image_has():
    stems = shapes(BoNet(heatmap=True), channels=3)["params"]
    kernels = [stems[name]["conv1a_3x3"]["conv"]["kernel"].shape for name in ("stem", "heatmap_stem")]
    assert kernels == [(3, 3, 3, 32), (3, 3, 1, 32)]


class JoinedStems(BoNet):
    """BoNet up to the first mixed block, which compiles in seconds."""

    def mixed_flow(self, x, norm, *, train):
        return jnp.pad(x, [(0, 0), (0, 0), (0, 0), (0, 2048 - 192)])  # pad to the number of channels in the signature


def test_both_stems_are_trained():
    generator = np.random.default_rng(0)
    image, heatmap = (jnp.asarray(generator.uniform(size=(2, 43, 41, 1)), jnp.float32) for _ in range(2))
    trunk = JoinedStems(heatmap=True)

    @partial(jax.jit, compiler_options=QUICK)
    def gradients():
        variables = trunk.init(jax.random.key(0), image, heatmap, train=False)

        def loss(params):
            joined, _ = trunk.apply(
                {**variables, "params": params}, image, heatmap, train=True, mutable=["batch_stats"]
            )
            return jnp.sum(joined**2)

        return jax.grad(loss)(variables["params"])

    found = flatten_dict(gradients(), sep="/")
    assert {path.split("/")[0] for path in found} == {"stem", *SECOND_STEM}
    for path, gradient in found.items():
        assert np.isfinite(gradient).all(), path
        assert np.any(gradient != 0), path


@pytest.mark.parametrize(
    ("option", "shape", "message"),
    [
        (True, None, "heatmap=True but got no heat map; give one or set heatmap=False"),
        (False, (1, SIZE, SIZE, 1), "without a stem for it; set its option heatmap=True"),
        (True, (1, SIZE, SIZE, 3), r"shape \(1, 75, 75, 3\), expected \(1, 75, 75, 1\)"),
        (True, (1, 38, 38, 1), r"shape \(1, 38, 38, 1\), expected \(1, 75, 75, 1\)"),
    ],
)
def test_a_heat_map_that_does_not_fit_the_network_is_refused(option, shape, message):
    heatmap = None if shape is None else jnp.zeros(shape)
    trunk, image = JoinedStems(heatmap=option), jnp.zeros((1, SIZE, SIZE, 1))
    with pytest.raises(BoneAgeError, match=message):
        jax.eval_shape(lambda: trunk.init(jax.random.key(0), image, heatmap, train=False))


@pytest.mark.parametrize("family", [InceptionV3, BoNet])
@pytest.mark.parametrize(("framework", "names"), [("keras", keras_names), ("torch", timm_names)])
def test_every_leaf_has_one_name_in_the_original(family, framework, names):
    trunk = family(framework=framework)
    found = names(trunk)
    assert set(found) == leaves(shapes(trunk))
    assert len(set(found.values())) == len(found)


@pytest.mark.parametrize(("framework", "names"), [("keras", keras_names), ("torch", timm_names)])
def test_the_second_stem_has_no_names_in_imagenet_weight_files(framework, names):
    trunk = BoNet(heatmap=True, framework=framework)
    unnamed = leaves(shapes(trunk)) - set(names(trunk))
    assert unnamed == {leaf for leaf in leaves(shapes(trunk)) if leaf.startswith(SECOND_STEM)}


@pytest.mark.parametrize(("framework", "names"), [("torch", keras_names), ("keras", timm_names)])
def test_weights_of_the_other_framework_are_refused(framework, names):
    with pytest.raises(BoneAgeError, match=f'and it is "{framework}"; the two normalise and pool differently'):
        names(InceptionV3(framework=framework))
