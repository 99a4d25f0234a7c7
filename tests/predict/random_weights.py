"""Small networks with random parameters in the form of released weights, for tests that need no training."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from boneage_jax import data
from boneage_jax.data import phantom
from boneage_jax.models import Description, Input
from boneage_jax.predict.predictor import Predictor, load
from boneage_jax.released import checks, descriptor
from boneage_jax.released.calibration import Calibration
from boneage_jax.released.weights import Header, Weights
from tests.compiling import QUICK

PREPROCESSING = data.Preprocessing(size=32, clahe_grid=4, scaling="standardise")
CALIBRATION = Calibration(slope=1.1, intercept=-8.0, spread=None, std_scale=0.5, quantile=1.5, images=200)
cached_load = cache(load)  # compiles once for all tests
AGE = (Input("chronological_age", "number", mean=100.0, std=40.0),)


@cache
def weights(
    *,
    head: str = "distribution",
    views: str = "centre",
    calibration: Calibration | None = None,
    inputs: tuple[Input, ...] = (),
    dtype: str = "float32",
) -> Weights:
    """A ConvMixer with one block and random parameters from a fixed seed."""
    description = Description(
        name="convmixer",
        options={"dim": 8, "depth": 1, "kernel_size": 3, "patch_size": 8},
        head=head,
        head_options={} if head == "sex_split_distribution" else {"hidden": (8,)},
        dtype=dtype,
        input_channels="native",
        inputs=inputs,
        label_mean=100.0,
        label_std=40.0,
    )
    network = description.network()
    image = jnp.zeros((1, 32, 32, 1))
    further = {spec.name: spec.example(image) for spec in inputs}
    sex = jnp.zeros(1, jnp.int32)
    init = jax.jit(lambda key: network.init(key, image, sex, further, train=False), compiler_options=QUICK)
    drawn = init(jax.random.key(1))
    variables = jax.tree.map(np.asarray, {"params": drawn["params"], "batch_stats": drawn.get("batch_stats", {})})
    header = Header(
        name="tiny",
        model=description.to_dict(),
        preprocessing=PREPROCESSING.to_dict(),
        views=views,
        calibration=None if calibration is None else calibration.to_dict(),
    )
    return Weights(header, variables)


@cache
def predictor(**how) -> Predictor:
    return Predictor(weights(**how))


def stored_as(storage: str, **how) -> Weights:
    released = weights(**how)
    return dataclasses.replace(released, header=dataclasses.replace(released.header, storage=storage))


def checked(**how) -> Weights:
    """Weights with image checks that classify bright images as inverted and all others as good."""
    brightness = np.zeros((descriptor.LENGTH, 2), np.float32)
    brightness[-256:] = np.array([-0.5, 0.5]) * 100 / 256
    arrays = {
        "weights": brightness,
        "bias": np.array([25, -25], np.float32),
        "mean": np.zeros(descriptor.LENGTH, np.float32),
        "axes": np.eye(descriptor.LENGTH, 1, dtype=np.float32),
        "spread": np.full(2, 1e3, np.float32),
    }
    settings = checks.Settings(kinds=("good", "inverted"), least_good=-0.5, largest_distance=9.0, least_side=70)
    plain = weights(**how)
    header = dataclasses.replace(plain.header, checks=dataclasses.asdict(settings))
    return dataclasses.replace(plain, header=header, checks=arrays)


def grainy(contrast: float) -> np.ndarray:
    """An image without a hand: noise of this standard deviation around a constant level."""
    return np.rint(np.random.default_rng(0).normal(100, contrast, (120, 100))).astype(np.uint8)


def hand(number: int) -> np.ndarray:
    """A phantom with its own age, sex and seed, larger than the network's input."""
    return phantom.render(30.0 + 12 * number, number % 2, size=80, seed=number).image
