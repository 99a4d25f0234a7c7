"""Reads weights written by Keras, by "<layer>/<variable>": HDF5 files, old and new, and `.keras` archives."""

import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import jax.numpy as jnp
import numpy as np

from boneage_jax.errors import BoneAgeError
from boneage_jax.pretrained.size_limits import refuse_large

Arrays = dict[str, np.ndarray]

# Names that Keras generates for layers with weights: "conv2d", "conv2d_1", ...
_AUTOMATIC = re.compile(
    r"(conv2d|depthwise_conv2d|separable_conv2d|batch_normalization|layer_normalization|normalization|dense)(?:_(\d+))?"
)
# Groups of a file that do not hold weights of layers: the optimiser's moments and the state of dropout.
_NOT_OF_LAYERS = ("optimizer", "seed_generator")
# Names of the variables of a layer, which Keras 3 does not store, by the variables' numbers of axes.
_VARIABLES = {
    (4,): ("kernel",),
    (4, 1): ("kernel", "bias"),
    (2,): ("kernel",),
    (2, 1): ("kernel", "bias"),
    (4, 4): ("depthwise_kernel", "pointwise_kernel"),
    (4, 4, 1): ("depthwise_kernel", "pointwise_kernel", "bias"),
    (1, 1): ("gamma", "beta"),
    (1, 1, 1): ("beta", "moving_mean", "moving_variance"),  # without a scale, as in Inception-v3
    (1, 1, 1, 1): ("gamma", "beta", "moving_mean", "moving_variance"),
    (1, 1, 0): ("mean", "variance", "count"),  # the layer Normalization
}


def read_hdf5(file: Path | io.BytesIO, config: Mapping[str, Any] | None = None) -> Arrays:
    """Reads `.weights.h5` (Keras 3) or `.h5` (Keras 2, and Keras 3 in the old format).

    Args:
        file: the file, or its bytes.
        config: of the model, if known; it gives the names of the layers if the file does not.

    Raises:
        BoneAgeError: the layers cannot be distinguished, or the arrays are larger than any network's.
        OSError, KeyError, ValueError: the file is damaged.
    """
    with h5py.File(file, "r") as opened:
        refuse_large(_size(opened))
        group = opened.get("model_weights", opened)
        layers = _strings(group, "layer_names")
        found = _old(group, layers) if layers else _new(opened, _names_by_place(config) if config else {})
        arrays: Arrays = {}
        for layer, variable, value in found:
            key = f"{layer}/{variable}"
            if key in arrays:
                raise BoneAgeError(f"two layers are called {layer!r}; give them different names in Keras")
            arrays[key] = value
    return _numbered_afresh(_with_one_name_for_depthwise_kernels(arrays))


def read_archive(archive: zipfile.ZipFile) -> Arrays:
    """Reads the weights of a `.keras` archive.

    Raises:
        BoneAgeError: they are not stored as HDF5, or the layers cannot be distinguished.
    """
    if "model.weights.h5" not in archive.namelist():
        raise BoneAgeError('it contains no "model.weights.h5"; save the model again with Keras\' default settings')
    config = json.loads(archive.read("config.json"))["config"]
    return read_hdf5(io.BytesIO(archive.read("model.weights.h5")), config)


def _old(group: h5py.Group, layers: list[str]) -> Iterator[tuple[str, str, np.ndarray]]:
    """The layout of Keras 2: attributes list the layers and, as "block1_conv1/kernel:0", their variables."""
    for layer in layers:
        variables = _strings(group[layer], "weight_names")
        owners = {variable.rpartition("/")[0] for variable in variables}
        for variable in variables:
            owner, _, name = variable.rpartition("/")
            # Variables of several owners belong to a nested model.
            yield layer if len(owners) == 1 else _last(owner), name.partition(":")[0], _array(group[layer][variable])


def _new(opened: h5py.File, names: Mapping[str, str]) -> Iterator[tuple[str, str, np.ndarray]]:
    """The layout of Keras 3: a group per layer with numbered variables in its group "vars"."""
    places: dict[str, h5py.Group] = {}

    def keep(place: str, item: h5py.Group | h5py.Dataset) -> None:
        path = place.split("/")
        if isinstance(item, h5py.Group) and path[-1] == "vars" and len(item) and not {*path} & {*_NOT_OF_LAYERS}:
            places[place.removesuffix("/vars")] = item

    opened.visititems(keep)
    named = {place: group.attrs.get("name") or names.get(place) for place, group in places.items()}
    nameless = [_last(place) for place, name in named.items() if not name]
    if nameless and all(map(_AUTOMATIC.fullmatch, nameless)):
        raise BoneAgeError(
            "it does not contain the names of its layers (early versions of Keras 3 wrote such files); load it in "
            "Keras and save the model as .keras"
        )
    for place, group in places.items():
        values = [_array(group[number]) for number in sorted(group, key=int)]
        variables = _VARIABLES.get(tuple(value.ndim for value in values), tuple(map(str, range(len(values)))))
        for variable, value in zip(variables, values, strict=True):
            yield named[place] or _last(place), variable, value


def _names_by_place(config: Mapping[str, Any], inside: str = "") -> dict[str, str]:
    """Names of a model's layers by their path in the file, where layers are numbered by class: "layers/conv2d_3"."""
    names: dict[str, str] = {}
    seen: Counter[str] = Counter()
    for layer in config.get("layers", []):
        words = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", layer["class_name"])
        kind = re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()
        place = f"{inside}layers/{kind}{f'_{seen[kind]}' if seen[kind] else ''}"
        seen[kind] += 1
        names[place] = layer["config"]["name"]
        names |= _names_by_place(layer["config"], f"{place}/")
    return names


def _strings(group: h5py.Group, name: str) -> list[str]:
    """An attribute that lists strings; long ones are split into name0, name1, ..."""
    parts = [group.attrs[name]] if name in group.attrs else []
    while f"{name}{len(parts)}" in group.attrs:
        parts.append(group.attrs[f"{name}{len(parts)}"])
    return [value.decode() if isinstance(value, bytes) else str(value) for part in parts for value in part]


def _array(dataset: h5py.Dataset) -> np.ndarray:
    value = np.asarray(dataset[()])
    return value.view(jnp.bfloat16) if dataset.attrs.get("dtype") == "bfloat16" else value


def _size(opened: h5py.File) -> int:
    """Bytes of all arrays after reading, including compressed and unwritten parts."""
    sizes: list[int] = []

    def add(_: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            sizes.append(item.nbytes)

    opened.visititems(add)
    return sum(sizes)


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _with_one_name_for_depthwise_kernels(arrays: Arrays) -> Arrays:
    """Keras 2 calls the kernel of a depthwise layer "depthwise_kernel", Keras 3 "kernel"."""
    renamed = {}
    for key, value in arrays.items():
        layer, _, variable = key.rpartition("/")
        alone = variable == "depthwise_kernel" and f"{layer}/pointwise_kernel" not in arrays
        renamed[f"{layer}/kernel" if alone else key] = value
    return renamed


def _numbered_afresh(arrays: Arrays) -> Arrays:
    """Renumbers the names that Keras generated, "conv2d", "conv2d_1", ..., as in a fresh session."""
    counted: dict[str, set[tuple[int, str]]] = {}
    for layer in {key.rpartition("/")[0] for key in arrays}:
        if match := _AUTOMATIC.fullmatch(layer):
            counted.setdefault(match[1], set()).add((int(match[2] or 0), layer))
    names = {
        layer: f"{kind}_{rank}" if rank else kind
        for kind, layers in counted.items()
        for rank, (_, layer) in enumerate(sorted(layers))
    }
    split = ((*key.rpartition("/"), value) for key, value in arrays.items())
    return {f"{names.get(layer, layer)}/{variable}": value for layer, _, variable, value in split}
