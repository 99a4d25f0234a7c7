"""Weight files in the layouts of Keras ({layer: {variable: array}}) and PyTorch, written without either."""

import io
import json
import pickle
import sys
import zipfile
from collections import OrderedDict
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Literal, NamedTuple
from unittest import mock

import h5py
import numpy as np

# The Keras class of a layer, by its first variable.
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
    """The layout of Keras 3: "layers/conv2d_3/vars/0", with the layer's name as an attribute; beside an optimiser."""
    with h5py.File(file, "w") as opened:
        seen: dict[str, int] = {}
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
    """A `.keras` file; early versions of Keras 3 store the layers' names only in the configuration."""
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


# PyTorch's storage classes, as named in a pickle.
STORAGES = {"float32": "FloatStorage", "float16": "HalfStorage", "bfloat16": "BFloat16Storage", "int64": "LongStorage"}


def _rebuild_tensor_v2():
    """Stands in a pickle for `torch._utils._rebuild_tensor_v2`."""


class _Storage:
    """Memory that tensors are views of."""

    def __init__(self, elements: np.ndarray):
        self.elements, self.key = elements, str(id(elements))


class Tensor(NamedTuple):
    """A view of a storage that an array cannot represent, such as one beyond its end."""

    elements: np.ndarray
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in elements


class _Pickler(pickle.Pickler):
    """Pickles arrays as PyTorch pickles tensors, and keeps their storages."""

    def __init__(self, file, types, *, views: bool):
        super().__init__(file, protocol=2)
        self.storages: dict[str, np.ndarray] = {}
        self._types, self._views = types, views

    def persistent_id(self, obj):
        if not isinstance(obj, _Storage):
            return None
        self.storages[obj.key] = obj.elements
        kind = self._types[STORAGES[obj.elements.dtype.name]]
        return ("storage", kind, obj.key, "cpu", obj.elements.size, *([None] if self._views else []))

    def reducer_override(self, obj):
        if isinstance(obj, np.ndarray):
            elements = obj if obj.base is None else obj.base
            offset = (obj.ctypes.data - elements.ctypes.data) // obj.itemsize
            obj = Tensor(elements, offset, obj.shape, tuple(step // obj.itemsize for step in obj.strides))
        if not isinstance(obj, Tensor):
            return NotImplemented
        return _rebuild_tensor_v2, (_Storage(obj.elements), *obj[1:], False, OrderedDict())


@contextmanager
def _as_torch():
    """Replaces PyTorch by modules with the names that its pickles use; yields the storage classes."""
    types = {name: type(name, (), {"__module__": "torch"}) for name in STORAGES.values()}
    utils = SimpleNamespace(_rebuild_tensor_v2=_rebuild_tensor_v2)
    with (
        mock.patch.dict(sys.modules, {"torch": SimpleNamespace(_utils=utils, **types), "torch._utils": utils}),
        mock.patch.multiple(_rebuild_tensor_v2, __module__="torch._utils"),
    ):
        yield types


def write_torch(path, stored, *, zipped: bool, byte_order: Literal["little", "big"] = "little") -> None:
    """Writes `stored`, with arrays for tensors, as `torch.save` does; before PyTorch 1.6 not `zipped`."""
    content = io.BytesIO()
    with _as_torch() as types:
        pickler = _Pickler(content, types, views=not zipped)
        pickler.dump(stored)
    storages = {
        key: elements.astype(elements.dtype.newbyteorder(byte_order)).tobytes()
        for key, elements in pickler.storages.items()
    }
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("weights/data.pkl", content.getvalue())
            archive.writestr("weights/byteorder", byte_order)
            for key, values in storages.items():
                archive.writestr(f"weights/data/{key}", values)
            archive.writestr("weights/version", "3\n")
        return
    machine = {"protocol_version": 1001, "little_endian": byte_order == "little", "type_sizes": {"int": 4}}
    before = [pickle.dumps(value, protocol=2) for value in (0x1950A86A20F9469CFC6C, 1001, machine)]
    keys = pickle.dumps(list(storages), protocol=2)
    lengths = (elements.size.to_bytes(8, byte_order) for elements in pickler.storages.values())
    after = [part for pair in zip(lengths, storages.values(), strict=True) for part in pair]
    path.write_bytes(b"".join([*before, content.getvalue(), keys, *after]))
