"""The original implementations beside ours: which of their weights is which of ours, and their stages."""

import zlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import traverse_util

Stages = dict[str, np.ndarray]


def relative_error(actual: Any, expected: Any) -> float:
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def shapes(trunk: Any, channels: int = 3, size: int = 75) -> dict[str, Any]:
    """The trunk's variables as shapes only."""
    image = jax.ShapeDtypeStruct((1, size, size, channels), np.float32)
    return jax.eval_shape(lambda key, image: trunk.init(key, image, train=False), jax.random.key(0), image)


def filled(trunk: Any, value: Callable[[tuple[str, ...], tuple[int, ...]], np.ndarray]) -> dict[str, Any]:
    """The trunk's variables with each leaf given by `value(path, shape)`."""
    flat = traverse_util.flatten_dict(shapes(trunk))
    return traverse_util.unflatten_dict({path: value(path, leaf.shape) for path, leaf in flat.items()})


def drawn(path: tuple[str, ...], shape: tuple[int, ...]) -> np.ndarray:
    """A weight that depends on its path and shape alone, so nothing but the golden outputs need be kept."""
    generator = np.random.default_rng(zlib.crc32("/".join(path).encode()))
    if path[-1] in ("var", "scale"):
        return generator.uniform(0.5, 1.5, shape).astype(np.float32)
    scale = 0.1 if len(shape) == 1 else np.sqrt(2 / np.prod(shape[:-1]))
    return (scale * generator.standard_normal(shape)).astype(np.float32)


def image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(7).uniform(-1, 1, (2, height, width, 3)).astype(np.float32)


def stages(trunk: Any, variables: dict[str, Any], image: np.ndarray, names: list[str]) -> Stages:
    """What the named layers of our trunk return in evaluation mode, and the "whole"."""
    whole, captured = jax.jit(
        lambda variables, image: trunk.apply(
            variables,
            image,
            train=False,
            capture_intermediates=lambda module, _: module.name in names,
            mutable=["intermediates"],
        )
    )(variables, image)
    found = {name: captured["intermediates"][name]["__call__"][0] for name in names}
    return {name: np.asarray(value) for name, value in {**found, "whole": whole}.items()}


XCEPTION_STAGES = ["block1_conv2_bn", *(f"block{i}" for i in range(2, 14))]
KERAS_NAMES = {"scale": "gamma", "bias": "beta", "mean": "moving_mean", "var": "moving_variance"}


def keras_weight(model: Any, path: tuple[str, ...]) -> Any:
    """The variable of `keras.applications.Xception` that our path stands for (same shape up to ones)."""
    layers, leaf = [part for part in path[1:-1] if part not in ("depthwise", "pointwise")], path[-1]
    if layers[-1].startswith("shortcut"):
        # Keras gives the four shortcuts no names of their own; they come in the order of their blocks.
        kind = "BatchNormalization" if layers[-1].endswith("_bn") else "Conv2D"
        nameless = [
            layer for layer in model.layers if type(layer).__name__ == kind and not layer.name.startswith("block")
        ]
        layer = nameless[{"block2": 0, "block3": 1, "block4": 2, "block13": 3}[layers[0]]]
    else:
        layer = model.get_layer("_".join(layers))
    kind = path[-2] if path[-2] in ("depthwise", "pointwise") else ""
    name = f"{kind}_kernel" if kind else KERAS_NAMES.get(leaf, leaf)
    (weight,) = [weight for weight in layer.weights if weight.name == name]
    return weight


def keras_stages(model: Any, image: np.ndarray) -> Stages:
    """The same stages of `keras.applications.Xception` without top; a block ends in an addition."""
    import keras

    added = [layer for layer in model.layers if isinstance(layer, keras.layers.Add)]
    assert len(added) == 12
    layers = [model.get_layer("block1_conv2_bn"), *added]
    split = keras.Model(model.input, [*(layer.output for layer in layers), model.output])
    with jax.numpy_rank_promotion("allow"):
        outputs = split(image, training=False)
    return dict(zip([*XCEPTION_STAGES, "whole"], map(np.asarray, outputs), strict=True))


def torch_name(path: tuple[str, ...]) -> str:
    """The key in timm's ConvMixer (`stem`, `blocks.i.0.fn` residual, `blocks.i.1` to `3`) of our path."""
    leaf = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    place = {"depthwise": "0.fn.0", "depthwise_bn": "0.fn.2", "pointwise": "1", "pointwise_bn": "3"}
    last = leaf.get(path[-1], path[-1])
    if path[1].startswith("patch_embedding"):
        return f"stem.{2 if path[1].endswith('_bn') else 0}.{last}"
    return f"blocks.{int(path[1].removeprefix('block')) - 1}.{place[path[2]]}.{last}"


def as_torch(value: np.ndarray) -> np.ndarray:
    """[kh, kw, in, out] to PyTorch's [out, in, kh, kw]; vectors stay."""
    return value.transpose(3, 2, 0, 1).copy() if value.ndim == 4 else value


def from_torch(value: np.ndarray) -> np.ndarray:
    """The inverse of `as_torch`."""
    return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value


def torch_stages(model: Any, image: np.ndarray) -> Stages:
    """Stem, each block and the whole of timm's ConvMixer, channels last."""
    import torch

    found: Stages = {}
    with torch.no_grad():
        x = model.stem(torch.from_numpy(image.transpose(0, 3, 1, 2).copy()))
        found["patch_embedding_bn"] = x
        for i, block in enumerate(model.blocks, start=1):
            x = found[f"block{i}"] = block(x)
    found["whole"] = x
    return {name: value.numpy().transpose(0, 2, 3, 1) for name, value in found.items()}
