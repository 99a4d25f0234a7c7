"""Assigns another framework's arrays to the variables of a trunk; anything that does not fit exactly is an error."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from boneage_jax.errors import BoneAgeError, listed

SOURCES = ("keras", "torch", "ours")


def assign(arrays: Mapping[str, np.ndarray], names: Mapping[str, str], like: Any, source: str) -> dict[str, Any]:
    """Builds the variables of a trunk from the arrays of the original.

    Args:
        arrays: the original's arrays by their keys; a key that `names` does not mention is an error.
        names: maps every leaf of ours ("block1_conv1/kernel", without the collection) to the original's key.
        like: our variables {"params": ..., "batch_stats": ...}, which define shapes and structure.
        source: "keras" (HWIO kernels, depthwise ones as HWC1), "torch" (OIHW kernels, [out, in] matrices) or "ours".

    Returns:
        A tree like `like`, float32.

    Raises:
        BoneAgeError: arrays are missing, unexpected or of another shape; counts all and names ten of each kind.
    """
    if source not in SOURCES:
        raise ValueError(f"source is {source!r}, expected one of {SOURCES}")
    flat = traverse_util.flatten_dict(like)
    ours = {"/".join(path[1:]): path for path in flat}
    unnamed = sorted(ours.keys() - names.keys())
    missing = sorted(names[leaf] for leaf in ours.keys() & names.keys() if names[leaf] not in arrays)
    unexpected = sorted(arrays.keys() - {names[leaf] for leaf in ours.keys() & names.keys()})
    found, misshapen = {}, []
    for leaf, path in ours.items():
        if leaf in names and names[leaf] in arrays:
            value = _as_ours(arrays[names[leaf]], flat[path].shape, source)
            if value is None:
                there = "x".join(map(str, arrays[names[leaf]].shape))
                misshapen.append(f"{names[leaf]} ({there}, expected {'x'.join(map(str, flat[path].shape))})")
            else:
                found[path] = value.astype(np.float32)
    problems = [
        _counted("without a name in the original", unnamed),
        _counted("missing", missing),
        _counted("unexpected", unexpected),
        _counted("of the wrong shape", sorted(misshapen)),
    ]
    if any(problems):
        raise BoneAgeError(f"the weights do not fit the network: {'; '.join(filter(None, problems))}")
    return traverse_util.unflatten_dict(found)


def to_original(value: np.ndarray, shape: tuple[int, ...], source: str) -> np.ndarray:
    """Converts one of our arrays to the original's layout and shape; the inverse of the conversion in `assign`."""
    if source == "torch" and value.ndim == 4 and len(shape) == 4:
        value = value.transpose(3, 2, 0, 1)
    elif source == "torch" and len(shape) == 2:
        value = value.reshape(value.shape[-2:]).T
    return np.ascontiguousarray(value.reshape(shape))


def _as_ours(value: np.ndarray, shape: tuple[int, ...], source: str) -> np.ndarray | None:
    """The array in our layout, or None if its shape cannot match the expected one."""
    if source == "torch" and value.ndim == 4:
        value = value.transpose(2, 3, 1, 0)  # OIHW to HWIO
    elif source == "torch" and value.ndim == 2:
        value = value.T  # [out, in] to [in, out]
    # Axes of length 1 are ignored: a depthwise kernel HWC1 is our HW1C, a matrix is a 1x1 convolution.
    if [n for n in value.shape if n != 1] != [n for n in shape if n != 1]:
        return None
    return value.reshape(shape)


def _counted(what: str, keys: Iterable[str]) -> str:
    keys = list(keys)
    if not keys:
        return ""
    return f"{len(keys)} {what}: {listed(keys)}"
