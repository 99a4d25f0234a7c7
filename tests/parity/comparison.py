"""Compares a trunk with its original: stem, each stage, the whole; batch statistics of one training step."""

import dataclasses
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest
from flax import traverse_util

from benchmarks.contestants import import_timm
from boneage_jax.pretrained import names as naming
from boneage_jax.pretrained.assign import assign, to_original

Stages = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Case:
    """A trunk and one of its originals.

    `original(height, width)` builds the original with random weights and without classifier; `names(trunk)` maps our
    weights to its keys; `stages(model, image)` returns its outputs for an image [B, H, W, 3], channels last, in
    evaluation mode: the stem first and "whole" last, the others under the names of our layers.
    """

    name: str
    source: str  # "keras" or "torch"
    trunk: Callable[[], nn.Module]
    original: Callable[[int, int], Any]
    names: Callable[[Any], dict[str, str]]
    stages: Callable[[Any, np.ndarray], Stages]
    sizes: tuple[int, ...]  # the native one, and an odd one

    def __str__(self) -> str:
        return f"{self.name}-{self.source}"


def timm() -> Any:
    """The package timm; skips the test where it or PyTorch is not installed."""
    pytest.importorskip("torch")
    try:
        return import_timm()
    except ImportError as error:
        pytest.skip(str(error))


def relative_error(actual: Any, expected: Any) -> float:
    """The largest difference relative to the largest expected value."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def image(height: int, width: int) -> np.ndarray:
    """Two colour images of noise in [-1, 1]."""
    return np.random.default_rng(7).uniform(-1, 1, (2, height, width, 3)).astype(np.float32)


def drawn(path: tuple[str, ...], shape: tuple[int, ...]) -> np.ndarray:
    """A weight drawn from its path and shape alone, so only the golden outputs need to be stored."""
    generator = np.random.default_rng(zlib.crc32("/".join(path).encode()))
    if path[-1] in ("var", "scale"):
        return generator.uniform(0.5, 1.5, shape).astype(np.float32)
    scale = 0.1 if len(shape) == 1 else np.sqrt(2 / np.prod(shape[:-1]))
    return (scale * generator.standard_normal(shape)).astype(np.float32)


def filled(
    trunk: nn.Module, value: Callable[[tuple[str, ...], tuple[int, ...]], np.ndarray], channels: int = 3
) -> dict[str, Any]:
    """The trunk's variables with each leaf given by `value(path, shape)`."""
    flat = traverse_util.flatten_dict(naming.shapes(trunk, channels=channels))
    return traverse_util.unflatten_dict({path: value(path, leaf.shape) for path, leaf in flat.items()})


def stages(
    trunk: nn.Module,
    variables: dict[str, Any],
    image: np.ndarray,
    layers: list[str],
    compiler_options: dict[str, Any] | None = None,
) -> Stages:
    """Outputs of the named layers of our trunk in evaluation mode, and of the "whole"."""
    whole, captured = jax.jit(
        lambda variables, image: trunk.apply(
            variables,
            image,
            train=False,
            capture_intermediates=lambda module, method: (
                method == "__call__" and len(module.path) == 1 and module.name in layers
            ),
            mutable=["intermediates"],
        ),
        compiler_options=compiler_options,
    )(variables, image)
    found = {name: captured["intermediates"][name]["__call__"][0] for name in layers}
    return {name: np.asarray(value) for name, value in {**found, "whole": whole}.items()}


def ours(case: Case, model: Any) -> dict[str, Any]:
    """Our variables with the original's weights."""
    trunk = case.trunk()
    return assign(arrays(case, model), case.names(trunk), naming.shapes(trunk), case.source)


def arrays(case: Case, model: Any) -> dict[str, np.ndarray]:
    """All arrays of the original, by its keys."""
    return keras_arrays(model) if case.source == "keras" else torch_arrays(model)


def give(case: Case, model: Any, variables: dict[str, Any]) -> None:
    """Sets the original's weights to ours: the inverse of `ours`."""
    flat = {"/".join(path[1:]): value for path, value in traverse_util.flatten_dict(variables).items()}
    names, shapes = case.names(case.trunk()), {key: value.shape for key, value in arrays(case, model).items()}
    values = {key: to_original(flat[leaf], shapes[key], case.source) for leaf, key in names.items()}
    assert values.keys() == shapes.keys()
    if case.source == "keras":
        for layer in model.layers:
            for weight in layer.weights:
                weight.assign(values[f"{layer.name}/{weight.name}"])
        return
    import torch

    counters = {key: value for key, value in model.state_dict().items() if key.endswith("num_batches_tracked")}
    model.load_state_dict({**counters, **{key: torch.from_numpy(value) for key, value in values.items()}})


def keras_arrays(model: Any) -> dict[str, np.ndarray]:
    """Weights by "<layer>/<variable>"."""
    # Copies, because the model may update its weights in place.
    return {f"{layer.name}/{w.name}": np.array(w.value) for layer in model.layers for w in layer.weights}


def torch_arrays(model: Any) -> dict[str, np.ndarray]:
    """The state dict without PyTorch's step counters."""
    state = model.state_dict().items()
    return {key: value.numpy().copy() for key, value in state if not key.endswith("num_batches_tracked")}


def shake_normalisation(case: Case, model: Any) -> None:
    """Randomises it: fresh normalisation is the identity, which would hide swapped statistics."""
    generator = np.random.default_rng(1)

    def moved(name: str, shape: tuple[int, ...]) -> np.ndarray:
        positive = name in ("moving_variance", "gamma", "running_var", "weight")
        value = generator.uniform(0.5, 1.5, shape) if positive else generator.normal(0, 0.1, shape)
        return value.astype(np.float32)

    if case.source == "keras":
        for layer in model.layers:
            if type(layer).__name__ == "BatchNormalization":
                for weight in layer.weights:
                    weight.assign(moved(weight.name, weight.shape))
        return
    import torch

    for module in model.modules():
        if "Norm" in type(module).__name__ or "ResponseNorm" in type(module).__name__:
            for name, value in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
                if name != "num_batches_tracked":
                    value.data = torch.from_numpy(moved(name, tuple(value.shape)))


def trained_statistics(case: Case, model: Any, image: np.ndarray) -> dict[str, np.ndarray]:
    """The original's running statistics after one pass in training mode, by key; PyTorch's in float64.

    Rounding errors grow from one normalisation over few pixels to the next: in float32, correct results diverge.
    """
    if case.source == "keras":
        with jax.numpy_rank_promotion("allow"):
            model(image, training=True)
        return {key: value for key, value in keras_arrays(model).items() if "/moving_" in key}
    import torch

    before = torch_arrays(model)
    with _counted(model) as counts, torch.no_grad():
        model.double().train()(torch.from_numpy(image.transpose(0, 3, 1, 2).astype(np.float64)))
    after = {key: value for key, value in torch_arrays(model).items() if "running_" in key}
    for layer, (count, momentum) in counts.items():
        # PyTorch's running variance uses the unbiased batch variance, ours and Keras' the biased one.
        key = f"{layer}.running_var"
        batch = (after[key] - (1 - momentum) * before[key]) / momentum
        after[key] = (1 - momentum) * before[key] + momentum * batch * (count - 1) / count
    return after


@contextmanager
def _counted(model: Any) -> Iterator[dict[str, tuple[int, float]]]:
    """Values per channel seen by each BatchNorm of a PyTorch model, and its momentum."""
    counts: dict[str, tuple[int, float]] = {}
    hooks = []
    for name, module in model.named_modules():
        if "running_var" in module._buffers:

            def count(module, inputs, _, name=name):
                counts[name] = inputs[0].numel() // inputs[0].shape[1], module.momentum

            hooks.append(module.register_forward_hook(count))
    try:
        yield counts
    finally:
        for hook in hooks:
            hook.remove()


def torch_stages(model: Any, image: np.ndarray, layers: dict[str, str]) -> Stages:
    """Stages of a PyTorch model by our names: `layers` maps ours to the module whose output it is."""
    import torch

    found, hooks = {}, []
    modules = dict(model.named_modules())
    for name, module in layers.items():

        def keep(_, inputs, output, name=name):
            found[name] = output.clone()  # later layers may work in place

        hooks.append(modules[module].register_forward_hook(keep))
    with torch.no_grad():
        found["whole"] = model.eval().forward_features(torch.from_numpy(image.transpose(0, 3, 1, 2).copy()))
    for hook in hooks:
        hook.remove()
    return {name: value.numpy().transpose(0, 2, 3, 1).copy() for name, value in found.items()}


def keras_stages(model: Any, image: np.ndarray, layers: dict[str, str]) -> Stages:
    """Stages of a Keras model by our names: `layers` maps ours to the layer whose output it is."""
    import keras

    split = keras.Model(model.input, [*(model.get_layer(layer).output for layer in layers.values()), model.output])
    with jax.numpy_rank_promotion("allow"):
        outputs = split(image, training=False)
    return dict(zip([*layers, "whole"], map(np.asarray, outputs), strict=True))
