"""Reads PyTorch weights by the keys of the state dict, without PyTorch: safetensors and `torch.save` files.

A `torch.save` file holds a pickle and the bytes of its tensors: since PyTorch 1.6 in a zip archive ("NAME/data.pkl",
"NAME/data/KEY"), before that one after the other. Unpickling can call any function. The unpickler here creates only
plain values and descriptions of tensors, so a file cannot run code (as with `torch.load(weights_only=True)`); the
arrays are created afterwards, and only those of the state dict.
"""

import io
import math
import pickle
import zipfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from safetensors.numpy import load_file

from boneage_jax.errors import BoneAgeError, listed
from boneage_jax.pretrained.size_limits import refuse_large

# Keys under which training scripts store the state dict, in timm's order of search: averaged weights first.
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
# The first number in files from before the zip archives, and the only version of these files.
_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_VERSION = 1001
# Element types, by the storage class in the module "torch".
_TYPES = {
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "BoolStorage": np.dtype(np.bool_),
    "ByteStorage": np.dtype(np.uint8),
    "CharStorage": np.dtype(np.int8),
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "IntStorage": np.dtype(np.int32),
    "LongStorage": np.dtype(np.int64),
    "ShortStorage": np.dtype(np.int16),
}


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Reads a `.safetensors` file."""
    return dict(load_file(path))


def read_archive(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    """Reads a `.pth`, `.pt` or `.bin` file (PyTorch 1.6 or later); of several state dicts, the first of `WRAPPERS`.

    Returns:
        The arrays by their keys, without the prefix "module.", in the types in which they are stored.

    Raises:
        BoneAgeError: the file holds anything but tensors and plain values, or no state dict.
        KeyError, TypeError, ValueError, zipfile.BadZipFile: it is damaged.
    """
    pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise BoneAgeError("it is a zip archive not written by torch.save: it has no NAME/data.pkl")
    folder = pickles[0].removesuffix("data.pkl")
    byte_order = f"{folder}byteorder"  # of files since PyTorch 2.1
    order = archive.read(byte_order).decode() if byte_order in archive.namelist() else "little"

    @cache
    def elements(storage: _Storage) -> np.ndarray:
        return _elements(archive.read(f"{folder}data/{storage.key}"), storage, order)

    tensors = _state_dict(_Unpickler(io.BytesIO(archive.read(pickles[0]))).load())
    return {key: _array(tensor, elements(tensor.storage)) for key, tensor in tensors.items()}


def read_sequence(path: Path) -> dict[str, np.ndarray]:
    """Reads a file as PyTorch wrote it before 1.6; returns and raises the same as `read_archive`.

    It is a sequence of pickles: the magic number, the version, the machine, the object, the keys of the storages.
    Then for each key come the number of elements (8 bytes) and the elements.
    """
    with path.open("rb") as file:
        if _Unpickler(file).load() != _MAGIC_NUMBER:
            raise BoneAgeError("it is a pickle not written by torch.save")
        if (version := _Unpickler(file).load()) != _VERSION:
            raise BoneAgeError(f"it has the unknown version {version}, expected {_VERSION}; save it again with PyTorch")
        order = "little" if _Unpickler(file).load()["little_endian"] else "big"
        unpickler = _Unpickler(file)
        tensors = _state_dict(unpickler.load())
        elements = {}
        for key in _Unpickler(file).load():
            storage = unpickler.storages[key]
            file.seek(8, io.SEEK_CUR)  # skip the number of elements, which the storage also has
            elements[key] = _elements(file.read(storage.length * _TYPES[storage.type].itemsize), storage, order)
    return {key: _array(tensor, elements[tensor.storage.key]) for key, tensor in tensors.items()}


class _Storage(NamedTuple):
    type: str  # a key of `_TYPES`
    key: str
    length: int  # elements


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int  # in elements, like the strides
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Unpickler(pickle.Unpickler):
    """Reads plain values, `_Tensor`s, and the names of storage types as strings; keeps the storages by their keys."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}

    def load(self) -> Any:
        try:
            return super().load()
        except BoneAgeError:
            raise
        except Exception as error:  # damaged bytes can raise any exception
            raise ValueError(f"its pickle is invalid: {error or type(error).__name__}") from error

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _TYPES:
            return name
        if (module, name) not in _CONSTRUCTORS:
            raise BoneAgeError(
                f"it contains Python objects besides its arrays, which could run any code ({module}.{name}); use the "
                "model's .safetensors file, or save its state dict alone"
            )
        return _CONSTRUCTORS[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, type_, key, _, length, *view = pid  # the fourth is the device
        if kind != "storage" or type_ not in _TYPES or type(length) is not int or view not in ([], [None]):
            raise ValueError(f"unknown storage {pid!r}")
        refuse_large(length * _TYPES[type_].itemsize)
        return self.storages.setdefault(key, _Storage(type_, key, length))


def _tensor(storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> _Tensor:
    """Describes a tensor; the remaining arguments are for training: gradients, hooks, metadata."""
    if not isinstance(storage, _Storage) or len(shape) != len(strides):
        raise ValueError("a tensor has no storage, or its numbers of strides and axes differ")
    if any(type(number) is not int or number < 0 for number in (offset, *shape, *strides)):
        raise ValueError(f"a tensor has an invalid shape {shape}, strides {strides} or offset {offset}")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


class _Dictionary(dict[Any, Any]):
    """Stands in for OrderedDict and ignores the attributes that PyTorch sets on it."""

    def __setstate__(self, state: Any) -> None:
        pass


def _parameter(tensor: _Tensor, *_: Any) -> _Tensor:
    return tensor


_CONSTRUCTORS: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _Dictionary,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
}


def _state_dict(stored: Any) -> dict[str, _Tensor]:
    """Extracts the state dict from a `torch.save` object, which may hold several of them and other values."""
    if not isinstance(stored, Mapping):
        raise BoneAgeError(f"it is not a state dict (a dictionary of tensors) but a {type(stored).__name__}")
    inside = (stored[key] for key in WRAPPERS if isinstance(stored.get(key), Mapping))
    state = dict(next(inside, stored))
    if others := [str(key) for key, value in state.items() if not isinstance(value, _Tensor)]:
        raise BoneAgeError(f"it is not a state dict (a dictionary of tensors); it also contains {listed(others)}")
    # The size as arrays: tensors can share a storage, and strides of 0 repeat one element any number of times.
    refuse_large(sum(math.prod(one.shape) * _TYPES[one.storage.type].itemsize for one in state.values()))
    return {str(key).removeprefix("module."): tensor for key, tensor in state.items()}


def _elements(content: bytes, storage: _Storage, order: str) -> np.ndarray:
    type_ = _TYPES[storage.type]
    if len(content) != storage.length * type_.itemsize:
        raise ValueError(f"the storage {storage.key} has {len(content)} bytes, expected {storage.length} {type_.name}")
    return np.frombuffer(content, type_.newbyteorder("<" if order == "little" else ">"))


def _array(tensor: _Tensor, elements: np.ndarray) -> np.ndarray:
    """The tensor as a view of its storage's elements; raises ValueError if it exceeds them."""
    last = tensor.offset + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True))
    if math.prod(tensor.shape) == 0:
        return np.empty(tensor.shape, elements.dtype)
    if last >= elements.size:
        raise ValueError(f"a tensor ends at element {last} of a storage of {elements.size}")
    strides = [stride * elements.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(elements[tensor.offset :], tensor.shape, strides, writeable=False)
