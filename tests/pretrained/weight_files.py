"""Files of weights as Keras lays them out, written without Keras: {layer: {variable: array}}."""

import io
import json
import zipfile

import h5py
import numpy as np

# The class that Keras would have stored a layer of these variables under.
CLASSES = {
    "gamma": "BatchNormalization",
    "beta": "BatchNormalization",
    "depthwise_kernel": "SeparableConv2D",
    "kernel": "Conv2D",
    "mean": "Normalization",
}
GROUPS = {
    "BatchNormalization": "batch_normalization",
    "SeparableConv2D": "separable_conv2d",
    "Conv2D": "conv2d",
    "Normalization": "normalization",
}


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def norm(channels: int, *, scale: bool = True) -> dict[str, np.ndarray]:
    names = ("gamma", "beta", "moving_mean", "moving_variance")[0 if scale else 1 :]
    return {name: numbers(channels) + i for i, name in enumerate(names)}


def flat(layers) -> dict[str, np.ndarray]:
    return {f"{layer}/{name}": value for layer, variables in layers.items() for name, value in variables.items()}


def write_old(path, layers, *, suffix=":0", inside="", chunks=1, root=None) -> None:
    """The layout of Keras 2: `layer_names` and `weight_names`; `root` is a model that holds all layers."""
    with h5py.File(path, "w") as file:
        group = file.create_group(inside) if inside else file
        groups = {root: layers} if root else {layer: {layer: variables} for layer, variables in layers.items()}
        group.attrs["layer_names"] = [name.encode() for name in groups]
        for name, held in groups.items():
            names = [f"{layer}/{variable}{suffix}" for layer, variables in held.items() for variable in variables]
            own = group.create_group(name)
            if chunks == 1:
                own.attrs["weight_names"] = [name.encode() for name in names]
            for i, part in enumerate(np.array_split(np.array(names, dtype=object), chunks) if chunks > 1 else []):
                own.attrs[f"weight_names{i}"] = [name.encode() for name in part]
            for name, value in zip(names, flat(held).values(), strict=True):
                own[name] = value
        if inside:
            file["optimizer_weights/momentum"] = numbers(3)


def write_new(file, layers, *, by_class=True, with_names=True) -> None:
    """The layout of Keras 3: "layers/conv2d_3/vars/0", the layer's name an attribute; beside an optimiser."""
    with h5py.File(file, "w") as opened:
        seen = {}
        for layer, variables in layers.items():
            kind = GROUPS[CLASSES[next(iter(variables))]]
            place = f"{kind}_{seen[kind]}" if seen.get(kind) else kind
            seen[kind] = seen.get(kind, 0) + 1
            group = opened.create_group(f"layers/{place if by_class else layer}/vars")
            if with_names:
                group.attrs["name"] = layer
            for i, value in enumerate(variables.values()):
                group[str(i)] = value
        opened.create_group("layers/activation/vars").attrs["name"] = "relu"
        opened["layers/dropout/seed_generator/vars/0"] = np.array([0, 1], np.uint32)
        opened["optimizer/vars/0"] = numbers(2)


def write_archive(path, layers, *, with_names=False) -> None:
    """A `.keras` file; early versions of Keras 3 have the layers' names in the configuration alone."""
    held = io.BytesIO()
    write_new(held, layers, with_names=with_names)
    described = [
        {"class_name": CLASSES[next(iter(variables))], "config": {"name": layer}} for layer, variables in layers.items()
    ]
    others = [{"class_name": "InputLayer", "config": {"name": "input_layer"}}]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr(
            "config.json", json.dumps({"class_name": "Functional", "config": {"layers": others + described}})
        )
        archive.writestr("model.weights.h5", held.getvalue())
