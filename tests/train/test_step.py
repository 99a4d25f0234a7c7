from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from boneage_jax import models
from boneage_jax.data import Preprocessing
from boneage_jax.errors import BoneAgeError
from boneage_jax.train import losses, parallel, state, step

MEAN, STD = 120.0, 40.0
DECAY = 0.99
DEEP = {"dim": 32, "depth": 24, "patch_size": 2}


def preprocessing() -> Preprocessing:
    return Preprocessing(
        size=32, exposure=(0.0, 100.0), clahe_clips=(), clahe_grid=4, scaling="standardise"
    )  # one channel


def parts(*, axis_name=parallel.AXIS, **settings):
    network = models.create(
        "convmixer",
        head_options={"hidden": (8,)},
        label_mean=MEAN,
        label_std=STD,
        axis_name=axis_name,
        **{"dim": 8, "depth": 1, "kernel_size": 3, "patch_size": 8, **settings},
    )
    plateau = optax.contrib.reduce_on_plateau(factor=0.5)
    transform = optax.sgd(0.1)

    fresh = parallel.to_host(state.create(network, transform, plateau, image_shape=(32, 32, 1), seed=3, with_ema=True))

    loss = losses.create("mse", label_mean=MEAN, label_std=STD)
    function = step.make_train_step(network, preprocessing(), transform, loss, seed=3, ema_decay=DECAY)
    return fresh, function


def batch(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (8, 32, 32, 1)).astype(np.uint8),
        "sex": rng.integers(0, 2, 8).astype(np.int32),
        "age": rng.uniform(10, 220, 8).astype(np.float32),
    }


def on_one_device(function):
    compiled = jax.pmap(function, parallel.AXIS, in_axes=(None, 0), out_axes=None, devices=jax.devices()[:1])
    return lambda tree, values: compiled(tree, jax.tree.map(lambda x: x[None], values))


def after(compiled, start, batches, split=parallel.split):
    metrics = None
    for values in batches:
        start, metrics = compiled(start, split(values))
    return parallel.to_host(start), parallel.to_host(metrics)


@pytest.fixture(scope="module")
def synchronised():
    """A compiled step on four devices, and a fresh state for each test."""
    fresh, function = parts()
    compiled = parallel.compile_step(function)
    return SimpleNamespace(fresh=fresh, function=function, step=compiled, start=lambda: parallel.replicate(fresh))


@pytest.fixture(scope="module")
def alone(synchronised):
    """State and metrics after three steps on one device."""
    one = on_one_device(synchronised.function)
    return after(one, synchronised.fresh, map(batch, range(3)), split=lambda values: values)


def test_steps_on_four_devices_equal_steps_on_one(synchronised, alone):
    assert jax.device_count() == 4
    on_four = after(synchronised.step, synchronised.start(), map(batch, range(3)))

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), on_four, alone)


def test_without_synchronised_batch_norm_four_devices_differ_from_one(alone):
    fresh, function = parts(axis_name=None)
    found, _ = after(parallel.compile_step(function), parallel.replicate(fresh), map(batch, range(3)))

    expected = alone[0].batch_stats["trunk"]["patch_embedding_bn"]["var"]
    assert np.abs(found.batch_stats["trunk"]["patch_embedding_bn"]["var"] - expected).max() > 1e-4


def test_the_plateau_scale_multiplies_the_updates(synchronised):
    fresh = synchronised.fresh
    halved = fresh.replace(plateau=fresh.plateau._replace(scale=jnp.float32(0.5)))
    before = fresh.params

    def change(start):
        new, _ = after(synchronised.step, parallel.replicate(start), [batch(0)])
        return jax.tree.map(np.subtract, new.params, before)

    whole, half = change(fresh), change(halved)

    assert max(np.abs(x).max() for x in jax.tree.leaves(whole)) > 1e-3
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a / 2, b, atol=1e-7), whole, half)


def test_the_moving_average_starts_with_a_short_memory(synchronised):
    before = synchronised.fresh
    new, _ = after(synchronised.step, synchronised.start(), [batch(0)])

    # At step 0 the decay is (1 + 0) / (10 + 0), not the configured one.
    expected = jax.tree.map(lambda old, now: 0.1 * old + 0.9 * now, before.ema["params"], new.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), new.ema["params"], expected)
    means = [s.ema["batch_stats"]["trunk"]["patch_embedding_bn"]["mean"] for s in (before, new)]
    assert np.abs(means[0] - means[1]).max() > 1e-4


def test_evaluation_uses_the_moving_average_where_there_is_one(synchronised):
    fresh = synchronised.fresh

    assert fresh.variables is fresh.ema
    assert fresh.replace(ema=None).variables == {"params": fresh.params, "batch_stats": fresh.batch_stats}


def test_a_non_finite_loss_changes_nothing_but_the_step(synchronised):
    before = synchronised.fresh
    bad = batch(0)
    bad["age"][5] = np.inf
    new, metrics = after(synchronised.step, synchronised.start(), [bad])

    assert not np.isfinite(metrics["loss"])
    assert new.step == 1
    jax.tree.map(np.testing.assert_array_equal, new.replace(step=before.step), before)


def test_the_state_is_donated(synchronised):
    start = synchronised.start()
    synchronised.step(start, parallel.split(batch(0)))

    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(start))


def test_the_step_is_compiled_once(synchronised):
    start, _ = synchronised.step(synchronised.start(), parallel.split(batch(0)))
    compilations = []

    def listen(event: str, duration_secs: float, **_) -> None:
        if "compile" in event:
            compilations.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for seed in range(1, 4):
            start, metrics = synchronised.step(start, parallel.split(batch(seed)))
        jax.block_until_ready(metrics)
        assert compilations == []
        jax.jit(lambda x: x * 3 + seed)(jnp.ones(3))  # the listener does hear a compilation
        assert compilations
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_an_indivisible_batch_size_is_refused_by_key():
    with pytest.raises(BoneAgeError, match=r"train\.batch_size is 6"):
        parallel.check_batch_size("train.batch_size", 6)
    parallel.check_batch_size("train.batch_size", 12)


def test_inference_gives_months_of_every_image_in_order(synchronised):
    network = models.create("convmixer", head_options={"hidden": (8,)}, dim=8, depth=1, kernel_size=3, patch_size=8)
    variables = parallel.replicate(synchronised.fresh.variables)
    loss = losses.create("mae", label_mean=0.0, label_std=1.0)
    infer = parallel.compile_inference(step.make_inference(network, preprocessing(), loss, "centre"))
    values = batch(1)
    found = infer(variables, parallel.split(values))
    assert set(found) == {"months", "loss"}
    months = parallel.gather(found["months"])

    image, sex = preprocessing().scale(jnp.asarray(values["image"])), jnp.asarray(values["sex"])
    expected: Any = network.apply(jax.tree.map(jnp.asarray, synchronised.fresh.variables), image, sex, train=False)
    np.testing.assert_allclose(months, expected.months, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(parallel.gather(found["loss"]), np.abs(months - values["age"]), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_rematerialisation_halves_the_memory_of_a_step_with_equal_results():
    results, temporary = [], []
    for remat in (False, True):
        fresh, function = parts(**DEEP, remat=remat)
        lowered = parallel.compile_step(function).lower(parallel.replicate(fresh), parallel.split(batch(0)))
        program = lowered.compile()
        temporary.append(program.memory_analysis().temp_size_in_bytes)
        results.append(after(program, parallel.replicate(fresh), map(batch, range(2))))
    image_and_convolutions = 24 * 3 * (2 * 16 * 16 * 32 * 4)  # two images on each of four devices, float32
    assert temporary[0] < 1.5 * image_and_convolutions
    assert temporary[1] < temporary[0] / 2
    for plain, again in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(again, plain, rtol=1e-4, atol=1e-4)
