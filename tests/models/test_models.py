"""Properties of every registered model; a model without an entry in `tests/models/families` fails."""

import re
from functools import cache
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import keystr, tree_leaves_with_path

from boneage_jax import models
from boneage_jax.errors import BoneAgeError
from boneage_jax.kernels.kept import NAME
from boneage_jax.models.network import TRUNKS
from boneage_jax.pretrained import names as naming
from tests.compiling import QUICK
from tests.models.classifier import Classifier, count
from tests.models.families import FAMILIES
from tests.parity import comparison
from tests.trees import structure

MODEL_SIZES = {name: size for family in FAMILIES.values() for name, size in family.sizes.items()}
SMALL = {name: options for family in FAMILIES.values() for name, options in family.small.items()}
PADDED = {name for family in FAMILIES.values() if family.padded for name in family.small}
IDENTITY_AT_START = {name for family in FAMILIES.values() if family.identity_at_start for name in family.small}
LARGE = {name for family in FAMILIES.values() if family.large for name in family.small}
SEX = jnp.array([0, 1, 1])
LABELS: dict[str, Any] = {"label_mean": 127.0, "label_std": 41.0}

each_model = pytest.mark.parametrize("name", models.names())
each_family = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in SMALL]
)


def image(name: str = "") -> jax.Array:
    """Three greyscale images with odd, unequal sides."""
    side = 79 if name in LARGE else 41
    return jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (3, side, side - 2, 1)), jnp.float32)


def inputs(name: str) -> dict[str, jax.Array]:
    """A heat map for trunks that read one."""
    return {"heatmap": image(name)[::-1] ** 2} if "heatmap" in SMALL[name] else {}


def small(name: str, *, dropout: float = 0.5, **settings) -> models.Network:
    further = tuple(models.Input(key, "heatmap") for key in inputs(name))
    head = {"dropout": dropout}
    return models.create(name, head_options=head, inputs=further, **LABELS, **{**SMALL[name], **settings})


@cache
def variables(name: str):
    init = jax.jit(
        lambda key: small(name).init(key, image(name), SEX, inputs(name), train=False), compiler_options=QUICK
    )
    made = jax.device_get(init(jax.random.key(0)))
    if name in IDENTITY_AT_START:
        made["params"] = jax.tree_util.tree_map_with_path(
            lambda path, x: np.full_like(x, 0.5) if path[-1].key == "scale" and not x.any() else x, made["params"]
        )
    return made


def months_of(module: nn.Module, variables, *given) -> jax.Array:
    """The estimate in evaluation mode, of a network or a head."""
    estimate: Any = module.apply(variables, *given, train=False)
    return estimate.months


@cache
def evaluated(name: str, dtype: str = "float32") -> np.ndarray:
    """z-scores of the three images."""
    network = small(name, dtype=dtype)
    evaluate = jax.jit(lambda v: months_of(network, v, image(name), SEX, inputs(name)), compiler_options=QUICK)
    months = evaluate(variables(name))
    return np.asarray((months - LABELS["label_mean"]) / LABELS["label_std"])


@cache
def step_of(name: str, remat: bool = False):
    """One compiled training step: (dropout seed) -> z-scores, gradients, new batch statistics."""
    network = small(name, remat=remat)

    def loss(params, statistics, seed):
        estimate, new = network.apply(
            {"params": params, "batch_stats": statistics},
            image(name),
            SEX,
            inputs(name),
            train=True,
            rngs={"dropout": jax.random.key(seed)},
            mutable=["batch_stats"],
        )
        z_score = (estimate.months - LABELS["label_mean"]) / LABELS["label_std"]
        return jnp.sum((z_score - jnp.array([1.0, -2.0, 3.0])) ** 2), (z_score, new.get("batch_stats", {}))

    gradient = jax.jit(jax.grad(loss, has_aux=True), compiler_options=QUICK)

    @cache
    def step(seed: int):
        gradients, (z_score, statistics) = gradient(
            *[variables(name).get(k, {}) for k in ("params", "batch_stats")], seed
        )
        return jax.device_get((z_score, gradients, statistics))

    return step


@each_model
def test_every_model_has_its_published_size(name):
    shapes = naming.shapes(TRUNKS[name]())
    assert (count(shapes["params"]), count(shapes.get("batch_stats", {}))) == MODEL_SIZES[name]


def test_every_registered_model_is_covered():
    assert set(models.names()) == set(MODEL_SIZES)
    families = {type(TRUNKS[name]()) for name in models.names()}
    assert families == {type(TRUNKS[name]()) for name in SMALL}


def test_classifiers_have_their_published_sizes():
    xception = naming.shapes(Classifier(TRUNKS["xception"]()))
    # Keras counts the running statistics among a model's parameters, timm does not.
    assert count(xception["params"]) + count(xception["batch_stats"]) == 22_910_480
    assert count(naming.shapes(Classifier(TRUNKS["convmixer"]()))["params"]) == 21_110_248


@each_model
def test_all_models_return_months_per_image_from_the_same_call(name):
    model, sex = models.create(name, **LABELS), jnp.zeros(2, jnp.int32)
    key, pixels = jax.random.key(0), jnp.zeros((2, 97, 75, 1))
    estimate, state = jax.eval_shape(lambda: model.init_with_output(key, pixels, sex, train=False))
    assert set(state["params"]) == {"trunk", "head"}
    assert (estimate.months.shape, estimate.months.dtype) == ((2,), jnp.float32)
    assert (estimate.std, estimate.logits) == (None, None)


@each_family
def test_every_parameter_has_a_finite_nonzero_gradient(name):
    _, gradients, _ = step_of(name)(0)
    for path, gradient in tree_leaves_with_path(gradients):
        assert np.isfinite(gradient).all(), keystr(path)
        assert np.any(gradient != 0), keystr(path)


@each_family
def test_every_batch_statistic_is_updated_in_training(name):
    _, _, moved = step_of(name)(0)
    for (path, before), after in zip(
        tree_leaves_with_path(variables(name).get("batch_stats", {})), jax.tree.leaves(moved), strict=True
    ):
        assert after.dtype == jnp.float32
        assert np.isfinite(after).all(), keystr(path)
        assert np.any(before != after), keystr(path)


@each_family
def test_evaluation_uses_every_running_statistic_and_updates_none(name):
    def evaluate(statistics, params):
        given = {"batch_stats": statistics, "params": params}
        estimate, new = small(name).apply(given, image(name), SEX, inputs(name), train=False, mutable=["batch_stats"])
        return new.get("batch_stats", {}), estimate.months

    # Tracing is enough: statistics that are not updated are returned as the input variables themselves.
    statistics = variables(name).get("batch_stats", {})
    jaxpr = jax.make_jaxpr(evaluate)(statistics, variables(name)["params"]).jaxpr
    given = list(map(id, jaxpr.invars))[: len(jax.tree.leaves(statistics))]
    *returned, months = map(id, jaxpr.outvars)
    assert returned == given
    used = {id(value) for equation in jaxpr.eqns for value in equation.invars}
    assert used >= set(given)
    assert months not in given


@each_family
def test_dropout_changes_the_output_in_training_only(name):
    step = step_of(name)
    assert not np.allclose(step(0)[0], step(1)[0])
    assert np.isfinite(evaluated(name)).all()

    def operations(network):
        evaluate = jax.make_jaxpr(lambda v: months_of(network, v, image(name), SEX, inputs(name)))
        return re.sub("0x[0-9a-f]+", "", str(evaluate(variables(name))))  # without the addresses of functions

    # Evaluation gets no dropout key at all, and traces to the same operations as a network without dropout.
    stochastic_depth = dict.fromkeys({"drop_path"} & SMALL[name].keys(), 0.0)
    assert operations(small(name)) == operations(small(name, dropout=0.0, **stochastic_depth))


@each_family
def test_sex_changes_the_prediction(name):
    model = small(name)

    def both(variables):
        features = model.apply(
            variables, image(name)[:1], {k: v[:1] for k, v in inputs(name).items()}, train=False, method="features"
        )
        head = model.head.clone(parent=None)
        parameters = {"params": variables["params"]["head"]}
        return [months_of(head, parameters, features, jnp.array([sex]), {}) for sex in (0, 1)]

    girl, boy = jax.jit(both, compiler_options=QUICK)(variables(name))
    assert abs(girl - boy).item() > 1e-3
    z_score = (girl - LABELS["label_mean"]) / LABELS["label_std"]
    np.testing.assert_allclose(z_score, evaluated(name)[:1], rtol=1e-4, atol=1e-5)


@each_family
def test_predictions_of_a_batch_and_of_single_images_agree(name):
    single = jax.jit(lambda v, x, sex, more: months_of(small(name), v, x, sex, more), compiler_options=QUICK)
    parts = [jax.tree.map(lambda x, i=i: x[i : i + 1], (image(name), SEX, inputs(name))) for i in range(3)]
    months = [single(variables(name), *part)[0] for part in parts]
    batch = evaluated(name) * LABELS["label_std"] + LABELS["label_mean"]
    np.testing.assert_allclose(months, batch, rtol=1e-5)


@each_family
def test_bfloat16_stays_close_to_float32(name):
    assert comparison.relative_error(evaluated(name, "bfloat16"), evaluated(name)) <= 2e-2


@pytest.mark.parametrize(
    "name", [name if name == "convmixer" else pytest.param(name, marks=pytest.mark.slow) for name in SMALL]
)
def test_rematerialisation_changes_no_names_outputs_or_gradients(name):
    expected, actual = step_of(name)(0), step_of(name, remat=True)(0)
    assert structure(actual) == structure(expected)
    # The gradient of a bias that the next BatchNorm cancels is rounding error only.
    rounding = 1e-6 * max(np.abs(b).max() for b in jax.tree.leaves(expected[1]))
    for (path, a), b in zip(tree_leaves_with_path(actual), jax.tree.leaves(expected), strict=True):
        tolerance = max(1e-4 * np.abs(b).max(), rounding)
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=tolerance, err_msg=keystr(path))


@each_family
def test_rematerialisation_saves_less_than_half_of_the_convolution_outputs(name, capsys):
    def kept(remat):
        model, rngs = small(name, remat=remat), {"dropout": jax.random.key(0)}

        def loss(given):
            estimate, _ = model.apply(
                given, image(name), SEX, inputs(name), train=True, mutable=["batch_stats"], rngs=rngs
            )
            return estimate.months.sum()

        jax.ad_checkpoint.print_saved_residuals(loss, variables(name))
        return [line for line in capsys.readouterr().out.splitlines() if "argument" not in line]

    convolutions, nothing = ([line for line in kept(remat) if f"named '{NAME}'" in line] for remat in (False, True))
    assert len(nothing) < len(convolutions) / 2


@each_family
def test_parameters_stay_float32_when_computing_in_bfloat16(name):
    model = small(name, dtype="bfloat16")
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), image(name), SEX, inputs(name), train=False))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    features = jax.eval_shape(
        lambda v: model.apply(v, image(name), inputs(name), train=False, method="features"), variables(name)
    )
    assert features.dtype == jnp.bfloat16


def test_rgb_repeats_a_greyscale_image_to_three_channels():
    grey, model = image(), small("convmixer", input_channels="rgb")
    init = jax.jit(lambda: model.init(jax.random.key(0), grey, SEX, train=False), compiler_options=QUICK)
    variables = init()
    assert variables["params"]["trunk"]["patch_embedding"]["kernel"].shape == (4, 4, 3, 16)
    colour = jnp.concatenate([grey, grey, grey], axis=-1)
    apply = jax.jit(lambda x: months_of(model, variables, x, SEX), compiler_options=QUICK)
    np.testing.assert_array_equal(apply(grey), apply(colour))
    with pytest.raises(BoneAgeError, match="1 or 3 channels, got 2"):
        model.apply(variables, grey[..., [0, 0]], SEX, train=False)


def test_native_channels_are_not_expanded():
    shapes = jax.eval_shape(lambda: small("xception").init(jax.random.key(0), image(), SEX, train=False))
    assert shapes["params"]["trunk"]["block1_conv1"]["kernel"].shape == (3, 3, 1, 32)


@pytest.mark.parametrize("shape", [(), (2,), (3, 1)])
def test_sex_must_be_one_value_per_image(shape):
    with pytest.raises(BoneAgeError, match=r"sex has the shape .*, expected \(3,\)"):
        small("convmixer").apply(variables("convmixer"), image(), jnp.zeros(shape, jnp.int32), train=False)


@pytest.mark.parametrize("name", sorted(set(SMALL) - PADDED))
def test_an_image_too_small_for_the_trunk_is_refused(name):
    pixels = jnp.zeros((1, 3, 3, 1))
    more = dict.fromkeys(inputs(name), pixels)
    with pytest.raises(BoneAgeError, match="3 x 3 pixels are too small"):
        jax.eval_shape(lambda: small(name).init(jax.random.key(0), pixels, SEX[:1], more, train=False))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "xcepton"}, "unknown model 'xcepton'; known: .*; did you mean xception?"),
        ({"name": "xception", "head": "regresion"}, "unknown head 'regresion'; .* did you mean regression?"),
        ({"name": "convmixer", "dept": 3}, "unknown option of model 'convmixer' 'dept'; known: .*patch_size"),
        (
            {"name": "convmixer", "head_options": {"hiden": (8,)}},
            "head 'regression' 'hiden'; .* mean hidden?",
        ),
        (
            {"name": "convmixer", "depth": "3"},
            "depth of model 'convmixer' is '3', expected whole numbers above 0 such as 32",
        ),
        ({"name": "convmixer", "activation": "swish"}, "unknown activation 'swish'"),
        (
            {"name": "convmixer", "activation": 3},
            "activation of model 'convmixer' is 3, expected str such as",
        ),
        ({"name": "convmixer", "patch_size": 0}, "patch_size of model 'convmixer' is 0"),
        ({"name": "convmixer", "options": {"depth": 3}}, "unknown option of model 'convmixer' 'options'"),
        ({"name": "compact_resnet", "drop_path": 1.0}, "drop_path of CompactResNet is 1.0, expected 0 to below 1"),
        ({"name": "compact_resnet", "widths": (8, 16)}, "CompactResNet has 2 widths for 4 stages of blocks"),
        ({"name": "xception", "dtype": "float8"}, "unknown dtype 'float8'; known: bfloat16, float32"),
        ({"name": "xception", "input_channels": "grey"}, "unknown input_channels 'grey'; known: native, rgb"),
        ({"name": "xception", "label_std": 0.0}, "label_std is 0.0"),
        ({"name": "xception", "head_options": {"dropout": 1.5}}, "dropout of the regression head is 1.5"),
        ({"name": "xception", "head_options": {"hidden": [8, "8"]}}, "hidden of head 'regression' is "),
    ],
)
def test_unknown_names_and_invalid_options_are_refused(arguments, message):
    with pytest.raises(BoneAgeError, match=message):
        models.create(**arguments)
