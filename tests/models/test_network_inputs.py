"""Further inputs: validation, encoding, and how they reach the trunk and the head."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boneage_jax import models
from boneage_jax.errors import BoneAgeError
from boneage_jax.models import Input, check_inputs, encode
from boneage_jax.models.network import TRUNKS

AGE = Input("chronological_age", "number", mean=120.0, std=40.0)
ETHNICITY = Input("ethnicity", "category", categories=("asian", "black", "unknown", "white"))
HEATMAP = Input("key_points", "heatmap")
IMAGE = jax.random.uniform(jax.random.key(0), (2, 6, 4, 1))
SEX = jnp.array([0, 1])


class Tiny(nn.Module):
    """A trunk without parameters; with `heatmap` it adds the heat map as a channel."""

    heatmap: bool = False
    axis_name: str | None = None
    remat: bool = False
    dtype: type = jnp.float32

    def __call__(self, image, *heatmap, train):
        assert len(heatmap) == self.heatmap
        return jnp.concatenate([image, *heatmap], axis=-1)


@pytest.fixture
def tiny(monkeypatch):
    """Builds and initialises a network around the tiny trunk."""
    monkeypatch.setitem(TRUNKS, "tiny", Tiny)

    def apply(inputs, given, image=IMAGE, **options):
        network = models.create("tiny", head_options={"hidden": (), "sex_units": 3}, inputs=inputs, **options)
        return network.init_with_output(jax.random.key(1), image, SEX, given, train=False)

    return apply


def test_a_number_is_encoded_as_its_z_score():
    np.testing.assert_allclose(encode(AGE, jnp.array([120.0, 60.0, 130.0])), [[0.0], [-1.5], [0.25]])


def test_categories_including_unknown_are_encoded_one_hot():
    encoded = encode(ETHNICITY, jnp.array([0, 3, 2]))
    assert encoded.dtype == jnp.float32
    np.testing.assert_array_equal(encoded, [[1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]])


def test_a_category_index_out_of_range_becomes_nan():
    encoded = np.asarray(encode(ETHNICITY, jnp.array([-1, 1, 4])))
    assert np.isnan(encoded).all(axis=1).tolist() == [True, False, True]


def test_encoding_a_heat_map_for_a_head_is_refused():
    with pytest.raises(BoneAgeError, match="'key_points' is a heat map"):
        encode(HEATMAP, jnp.zeros(2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "bone age", "kind": "number"}, "'bone age' cannot name a further input"),
        ({"name": "sex", "kind": "category"}, "'sex' cannot name a further input"),
        ({"name": "height", "kind": "nummer"}, "kind of the input 'height' is 'nummer', expected one of number, cat"),
        ({"name": "origin", "kind": "category"}, r"categories of the input 'origin' are \(\), expected two or more"),
        ({"name": "origin", "kind": "category", "categories": ("a",)}, "expected two or more different ones"),
        ({"name": "origin", "kind": "category", "categories": ("a", "b", "a")}, "expected two or more different ones"),
        ({"name": "height", "kind": "number", "categories": ("a", "b")}, "has the categories .*, expected none"),
        ({"name": "height", "kind": "number", "categories": ("a",)}, "has the categories .*, expected none"),
        ({"name": "height", "kind": "number", "std": 0.0}, "std of the input 'height' is 0.0"),
        ({"name": "height", "kind": "number", "std": float("nan")}, "std of the input 'height' is nan"),
    ],
)
def test_invalid_input_definitions_are_refused(arguments, message):
    with pytest.raises(BoneAgeError, match=message):
        Input(**arguments)


def test_exactly_the_configured_inputs_must_be_given():
    check_inputs((), {})
    check_inputs((AGE, ETHNICITY), {"ethnicity": 1, "chronological_age": 2})
    with pytest.raises(BoneAgeError, match=r"lack chronological_age \(number\), key_points \(heatmap\); config"):
        check_inputs((AGE, ETHNICITY, HEATMAP), {"ethnicity": 1})
    with pytest.raises(BoneAgeError, match=r"no further input height; configured: none; given: height: leave it out"):
        check_inputs((), {"height": 1})


def test_a_network_without_further_inputs_refuses_any(tiny):
    tiny((), None)
    with pytest.raises(BoneAgeError, match="no further input height"):
        tiny((), {"height": jnp.zeros(2)})


def test_numbers_and_categories_reach_the_head_by_name(tiny):
    given = {"ethnicity": jnp.array([0, 2]), "chronological_age": jnp.array([100.0, 130.0])}
    _, variables = tiny((AGE, ETHNICITY), given)
    assert variables["params"]["head"]["input_chronological_age"]["kernel"].shape == (1, 3)
    assert variables["params"]["head"]["input_ethnicity"]["kernel"].shape == (4, 3)
    with pytest.raises(BoneAgeError, match=r"lack ethnicity \(category\)"):
        tiny((AGE, ETHNICITY), {"chronological_age": jnp.array([100.0, 130.0])})


def test_a_heat_map_reaches_the_trunk_and_not_the_head(tiny):
    _, variables = tiny((HEATMAP, AGE), {"key_points": IMAGE, "chronological_age": jnp.ones(2)}, heatmap=True)
    assert set(variables["params"]["head"]) == {"sex", "input_chronological_age", "output"}
    network = models.create("tiny", heatmap=True, inputs=(HEATMAP, AGE))
    features = network.apply({}, IMAGE, {"key_points": 2 * IMAGE}, train=False, method="features")
    np.testing.assert_array_equal(features, np.concatenate([IMAGE, 2 * IMAGE], axis=-1))
    with pytest.raises(BoneAgeError, match=r"lack key_points \(heatmap\)"):
        network.apply({}, IMAGE, train=False, method="features")


def test_a_heat_map_keeps_one_channel_when_the_image_becomes_rgb(tiny):
    tiny((HEATMAP,), {"key_points": IMAGE}, heatmap=True, input_channels="rgb")
    network = models.create("tiny", heatmap=True, inputs=(HEATMAP,), input_channels="rgb")
    features: Any = network.apply({}, IMAGE, {"key_points": IMAGE}, train=False, method="features")
    assert features.shape == (2, 6, 4, 3 + 1)


@pytest.mark.parametrize(
    ("spec", "shape", "expected"),
    [(AGE, (2, 1), r"\(2,\)"), (AGE, (1,), r"\(2,\)"), (HEATMAP, (2, 3, 2, 1), r"\(2, 6, 4, 1\)")],
)
def test_an_input_must_have_one_value_per_image(tiny, spec, shape, expected):
    with pytest.raises(BoneAgeError, match=f"'{spec.name}' .* has the shape .*, expected {expected}"):
        tiny((spec,), {spec.name: jnp.zeros(shape)}, heatmap=spec is HEATMAP)


def test_a_heat_map_needs_a_trunk_that_reads_it(tiny):
    with pytest.raises(BoneAgeError, match=r"'convmixer' with these options reads no heat map, .* are: key_points;"):
        models.create("convmixer", inputs=(HEATMAP,))
    with pytest.raises(BoneAgeError, match=r"'tiny' with these options reads one heat map, .* are: none;"):
        tiny((), {}, heatmap=True)
    two = (HEATMAP, Input("second", "heatmap"))
    with pytest.raises(BoneAgeError, match=r"reads one heat map, .* are: key_points, second;"):
        tiny(two, {}, heatmap=True)


def test_an_input_configured_twice_is_refused():
    with pytest.raises(BoneAgeError, match="the further input chronological_age is configured more than once"):
        models.create("convmixer", inputs=(AGE, AGE))
