"""Properties of every head, and the published layers of the regression head."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import keystr, tree_leaves_with_path

from boneage_jax import models
from boneage_jax.errors import BoneAgeError
from boneage_jax.models import Input
from boneage_jax.models.heads import Regression
from boneage_jax.models.network import HEADS
from tests.compiling import QUICK

FEATURES = jax.random.normal(jax.random.key(0), (4, 3, 2, 5))
SEX = jnp.array([0, 1, 0, 1])
AGE = Input("chronological_age", "number", mean=120.0, std=40.0)
ETHNICITY = Input("ethnicity", "category", categories=("asian", "black", "unknown", "white"))
GIVEN = {"chronological_age": jnp.array([90.0, 160.0, 120.0, 30.0]), "ethnicity": jnp.array([0, 1, 2, 3])}
# Options that make a head small, and the one layer that always computes in float32.
SMALL: dict[str, tuple[dict[str, Any], str]] = {
    "distribution": ({"sex_units": 6, "hidden": (8,)}, "logits"),
    "joints": ({"sex_units": 6, "hidden": (8,)}, "output"),
    "regression": ({"sex_units": 6, "hidden": (8, 7)}, "output"),
    "relative": ({"hidden": (16, 12)}, "output"),
    "sex_split_distribution": ({"input_units": 6}, "logits"),
}
HAVE_DROPOUT = ["distribution", "joints", "regression", "relative"]

each_head = pytest.mark.parametrize("name", sorted(HEADS))


def given_to(head):
    return {spec.name: GIVEN[spec.name] for spec in head.inputs}


@cache
def made(name, **options):
    """A head with age and ethnicity as inputs, and its parameters."""
    head = HEADS[name](**{"inputs": (AGE, ETHNICITY), "label_std": 41.0} | SMALL[name][0] | options)
    init = lambda: head.init(jax.random.key(1), FEATURES, SEX, given_to(head), train=False)  # noqa: E731
    return head, jax.jit(init, compiler_options=QUICK)()


def months(head, variables, inputs):
    apply = lambda i: head.apply(variables, FEATURES, SEX, i, train=False).months  # noqa: E731
    return np.asarray(jax.jit(apply, compiler_options=QUICK)(inputs))


def test_every_registered_head_is_covered():
    assert set(SMALL) == set(HEADS)


@each_head
def test_rescaled_parameters_give_the_same_months_with_other_label_statistics(name):
    theirs, variables = made(name, label_mean=100.0)
    ours, _ = made(name, label_mean=130.0, label_std=45.0)
    converted = ours.rescaled(variables["params"], 100.0, 41.0) if hasattr(ours, "rescaled") else variables["params"]
    expected = months(theirs, variables, given_to(theirs))
    np.testing.assert_allclose(months(ours, {"params": converted}, given_to(ours)), expected, rtol=1e-4)


@each_head
def test_heads_give_months_and_distribution_heads_also_std_and_logits(name):
    head, variables = made(name)
    head = head.clone(dtype=jnp.bfloat16)
    estimate = jax.eval_shape(lambda v: head.apply(v, FEATURES, SEX, GIVEN, train=False), variables)
    assert (estimate.months.shape, estimate.months.dtype) == ((4,), jnp.float32)
    if "distribution" in name:
        assert (estimate.std.shape, estimate.std.dtype) == ((4,), jnp.float32)
        assert (estimate.logits.shape, estimate.logits.dtype) == ((4, 240), jnp.float32)
    else:
        assert (estimate.std, estimate.logits) == (None, None)


@each_head
def test_last_layer_and_parameters_are_float32_in_bfloat16_networks(name):
    head = made(name)[0].clone(dtype=jnp.bfloat16)
    init = lambda: head.init(jax.random.key(1), FEATURES, SEX, GIVEN, train=False)  # noqa: E731
    variables = jax.eval_shape(init)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}

    def captured(variables):
        _, state = head.apply(
            variables, FEATURES, SEX, GIVEN, train=False, capture_intermediates=True, mutable=["intermediates"]
        )
        return {layer: value["__call__"][0] for layer, value in state["intermediates"].items() if layer != "__call__"}

    last = SMALL[name][1]
    found = {layer: output.dtype for layer, output in jax.eval_shape(captured, variables).items()}
    assert found.pop(last) == jnp.float32
    assert set(found.values()) == {jnp.dtype("bfloat16")}


@each_head
def test_bfloat16_stays_close_to_float32(name):
    head, variables = made(name)
    expected = months(head, variables, GIVEN)
    np.testing.assert_allclose(months(head.clone(dtype=jnp.bfloat16), variables, GIVEN), expected, atol=41 * 2e-2)


@each_head
def test_every_parameter_has_a_finite_nonzero_gradient(name):
    head, variables = made(name)
    loss = lambda v: (head.apply(v, FEATURES, SEX, GIVEN, train=False).months ** 2).sum()  # noqa: E731
    gradient = jax.jit(jax.grad(loss), compiler_options=QUICK)(variables)
    for path, leaf in tree_leaves_with_path(gradient):
        assert np.isfinite(leaf).all(), keystr(path)
        assert np.any(leaf != 0), keystr(path)


@each_head
def test_sex_and_further_inputs_change_only_the_prediction_of_their_image(name):
    head, variables = made(name)
    predict = lambda sex, inputs: head.apply(variables, FEATURES, sex, inputs, train=False).months  # noqa: E731
    apply = jax.jit(predict, compiler_options=QUICK)
    before = apply(SEX, GIVEN)
    changed = {
        "sex": apply(SEX.at[2].set(1), GIVEN),
        "number": apply(SEX, GIVEN | {"chronological_age": GIVEN["chronological_age"].at[2].set(125.0)}),
        "category": apply(SEX, GIVEN | {"ethnicity": GIVEN["ethnicity"].at[2].set(3)}),
    }
    for what, after in changed.items():
        moved = np.abs(np.asarray(after - before)) > 1e-3
        assert moved.tolist() == [False, False, True, False], what


@each_head
def test_unknown_is_a_category_and_an_index_out_of_range_gives_nan(name):
    head, variables = made(name)
    assert np.isfinite(months(head, variables, GIVEN | {"ethnicity": jnp.array([2, 2, 2, 2])})).all()
    without = months(head, variables, GIVEN | {"ethnicity": jnp.array([0, 4, -1, 2])})
    assert np.isnan(without).tolist() == [False, True, True, False]


@pytest.mark.parametrize("name", HAVE_DROPOUT)
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_dropout_acts_in_training_only(name, dropout):
    head, variables = made(name, dropout=dropout, hidden=(64,))

    def months(seed, train):
        rngs = {"dropout": jax.random.key(seed)}
        return np.asarray(head.apply(variables, FEATURES, SEX, GIVEN, train=train, rngs=rngs).months)

    np.testing.assert_array_equal(months(0, False), months(1, False))
    assert np.array_equal(months(0, True), months(1, True)) == (dropout == 0)
    assert np.array_equal(months(0, True), months(0, False)) == (dropout == 0)


@pytest.mark.parametrize("name", HAVE_DROPOUT)
def test_a_dropout_of_one_or_without_hidden_layers_is_refused(name):
    with pytest.raises(BoneAgeError, match=f"dropout of the {name} head is 1.0, expected 0 to below 1"):
        HEADS[name](inputs=(AGE,), dropout=1.0, hidden=(8,))
    with pytest.raises(BoneAgeError, match=f"dropout of the {name} head is 0.5, .* there are none; set `hidden`"):
        HEADS[name](inputs=(AGE,), dropout=0.5, hidden=())


@each_head
def test_a_head_is_chosen_by_name(name):
    network = models.create("convmixer", head=name, head_options=SMALL[name][0], inputs=(AGE,))
    assert type(network.head) is HEADS[name]
    assert network.head.inputs == network.inputs == (AGE,)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        (
            "regression",
            {},
            {"sex": (1, 32), "hidden1": (2048 + 32, 1000), "hidden2": (1000, 1000), "output": (1000, 1)},
        ),
        ("distribution", {}, {"sex": (1, 32), "logits": (2048 + 32, 240)}),
        ("sex_split_distribution", {}, {"logits": (2048, 480)}),
        (
            "relative",
            {"inputs": (AGE,)},
            {"hidden1": (7 * 7 * 2048 + 2, 1000), "hidden2": (1000, 1000), "output": (1000, 1)},
        ),
    ],
)
def test_layer_shapes_match_the_published_ones(name, options, expected):
    """On InceptionV3's feature map of 500 x 500 pixels (Keras padding)."""
    head = HEADS[name](**options)
    given = {spec.name: jnp.zeros(1) for spec in head.inputs}
    features = jnp.zeros((1, 14, 14, 2048))
    init = lambda: head.init(jax.random.key(0), features, SEX[:1], given, train=False)  # noqa: E731
    layers = jax.eval_shape(init)["params"]
    assert {layer: leaf["kernel"].shape for layer, leaf in layers.items() if not layer.endswith("_scale")} == expected


def test_regression_matches_a_numpy_computation_of_the_published_layers():
    head, variables = made("regression", inputs=(), sex_units=3, hidden=(6, 4), label_mean=127.0, label_std=41.0)
    assert set(variables["params"]) == {"sex", "hidden1", "hidden2", "output"}
    weights = jax.tree.map(np.asarray, variables["params"])

    def dense(x, name):
        return x @ weights[name]["kernel"] + weights[name]["bias"][None]

    sex = np.maximum(dense(np.asarray(SEX, np.float32)[:, None], "sex"), 0)
    x = np.concatenate([np.asarray(FEATURES).mean(axis=(1, 2)), sex], axis=1)
    for name in ("hidden1", "hidden2"):
        x = np.maximum(dense(x, name), 0)
    expected = dense(x, "output")[:, 0] * 41 + 127
    np.testing.assert_allclose(months(head, variables, {}), expected, rtol=1e-5)


def test_a_further_input_gets_a_branch_like_the_one_for_sex():
    head, variables = made("regression", sex_units=3, hidden=())
    weights = jax.tree.map(np.asarray, variables["params"])
    assert set(weights) == {"sex", "input_chronological_age", "input_ethnicity", "output"}

    def branch(value, name):
        return np.maximum(value @ weights[name]["kernel"] + weights[name]["bias"][None], 0)

    z_score = (np.asarray(GIVEN["chronological_age"])[:, None] - 120) / 40
    x = [
        np.asarray(FEATURES).mean(axis=(1, 2)),
        branch(np.asarray(SEX, np.float32)[:, None], "sex"),
        branch(z_score, "input_chronological_age"),
        branch(np.eye(4, dtype=np.float32), "input_ethnicity"),
    ]
    expected = np.concatenate(x, axis=1) @ weights["output"]["kernel"] + weights["output"]["bias"][None]
    np.testing.assert_allclose(months(head, variables, GIVEN), expected[:, 0] * 41, rtol=1e-4)


def test_a_head_without_hidden_layers_is_allowed():
    head = Regression(hidden=(), sex_units=2)
    shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), FEATURES, SEX, {}, train=False))
    assert shapes["params"]["output"]["kernel"].shape == (5 + 2, 1)
