import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from boneage_jax import models
from boneage_jax.config import base
from boneage_jax.errors import BoneAgeError
from boneage_jax.train import optimizer


def settings(**changes):
    config = base().optimizer
    config.learning_rate = 0.8
    config.warmup_epochs = 2.0
    config.update(changes)
    return config


def rates(config, steps, *, steps_per_epoch=2, epochs=10):
    schedule = optimizer.learning_rate(config, steps_per_epoch=steps_per_epoch, epochs=epochs)
    return [float(schedule(step)) for step in steps]


def test_warm_up_is_linear_from_zero_then_constant():
    assert rates(settings(), [0, 1, 2, 3, 4, 5, 500]) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 0.8, 0.8])


def test_the_cosine_schedule_ends_at_zero_after_the_last_epoch():
    # 4 steps of warm-up, 16 of the half cosine
    found = rates(settings(schedule="cosine"), [0, 2, 4, 8, 12, 20, 30])
    assert found == pytest.approx([0, 0.4, 0.8, 0.4 * (1 + np.sqrt(0.5)), 0.4, 0, 0], abs=1e-6)


def test_without_warm_up_the_first_step_has_the_full_rate():
    assert rates(settings(warmup_epochs=0.0), [0, 1]) == pytest.approx([0.8, 0.8])


def test_warm_up_can_last_a_fraction_of_an_epoch():
    assert rates(settings(warmup_epochs=0.5), [0, 2, 4, 5], steps_per_epoch=8) == pytest.approx([0, 0.4, 0.8, 0.8])


def test_an_unknown_schedule_is_refused():
    with pytest.raises(BoneAgeError, match=r"optimizer.schedule is 'steps', expected \"constant\" or \"cosine\""):
        optimizer.create(settings(schedule="steps"), steps_per_epoch=2, epochs=10)


def first_update(config, gradient):
    transform = optimizer.create(config, steps_per_epoch=2, epochs=10)
    params = {"dense": {"kernel": jnp.full(2, 3.0)}}
    updates, _ = transform.update({"dense": {"kernel": jnp.asarray(gradient)}}, transform.init(params), params)
    return updates["dense"]["kernel"]


def test_the_first_update_is_a_signed_step_plus_weight_decay():
    config = settings(warmup_epochs=0.0, weight_decay=0.1, clip_norm=0.0)
    np.testing.assert_allclose(first_update(config, [5.0, -5.0]), [-0.8 * 1.3, 0.8 * 0.7], rtol=1e-5)


@pytest.mark.parametrize("freeze", [(), ("trunk/stem_conv",)])
def test_weight_decay_applies_only_to_kernels_that_are_not_frozen(freeze):
    network = models.create("efficientnet_lite0", variant="tiny_lite", head_options={"hidden": (4,)})
    image, sex = jnp.zeros((1, 32, 32, 1)), jnp.zeros(1, jnp.int32)
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), image, sex, train=False))["params"]
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes)
    config = settings(warmup_epochs=0.0, weight_decay=0.1, freeze=freeze)
    transform = optimizer.create(config, steps_per_epoch=2, epochs=10)

    @jax.jit
    def first(params):
        updates, _ = transform.update(jax.tree.map(jnp.zeros_like, params), transform.init(params), params)
        return jax.tree.map(lambda leaf: leaf.ravel()[0], updates)

    found = {path: leaf.item() for path, leaf in traverse_util.flatten_dict(first(params), sep="/").items()}
    kernels = {path for path in found if path.endswith("/kernel")}
    assert {path.rpartition("/")[2] for path in found} == {"kernel", "bias", "scale"}
    for path, update in found.items():
        decays = path in kernels and not path.startswith(freeze or "-")
        assert update == (pytest.approx(-0.8 * 0.1) if decays else 0), path


@pytest.mark.parametrize(("clip_norm", "expected"), [(1.0, [0.6, 0.8]), (0.0, [3.0, 4.0]), (9.0, [3.0, 4.0])])
def test_gradients_are_clipped_before_adam(clip_norm, expected):
    transform = optimizer.create(settings(clip_norm=clip_norm), steps_per_epoch=2, epochs=10)
    params = {"w": jnp.zeros(2)}
    _, state = transform.update({"w": jnp.array([3.0, 4.0])}, transform.init(params), params)
    moments = optax.tree_utils.tree_get(state, "mu")["w"]
    np.testing.assert_allclose(moments, 0.1 * np.array(expected), rtol=1e-5)  # beta 1 is 0.9


def scales(config, maes):
    rule = optimizer.plateau(config)
    assert rule is not None
    state = rule.init({})
    found = []
    for mae in maes:
        _, state = rule.update({}, state, value=jnp.float32(mae))
        found.append(float(state.scale))
    return found


def test_the_plateau_cuts_after_patience_evaluations_without_a_better_mae():
    config = settings()
    config.plateau.update({"factor": 0.5, "patience": 3})
    assert scales(config, [20, 10, 11, 12, 10, 10, 9, 9, 9, 9]) == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.25]


def test_evaluations_during_the_cooldown_do_not_count():
    config = settings()
    config.plateau.update({"factor": 0.5, "patience": 2, "cooldown": 3})
    # cut at the second bad evaluation, a cooldown of three, and cut at the second bad one after it
    assert scales(config, [10] * 9) == [1, 1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_the_plateau_stops_cutting_at_its_minimum_scale():
    config = settings()
    config.plateau.update({"factor": 0.5, "patience": 1, "min_scale": 0.25})
    assert scales(config, [10, 10, 10, 10, 10]) == [1, 0.5, 0.25, 0.25, 0.25]


def test_a_factor_of_one_switches_the_plateau_off():
    config = settings()
    config.plateau.factor = 1.0
    assert optimizer.plateau(config) is None
