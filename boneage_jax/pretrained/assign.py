"""Puts another framework's arrays where they belong in one of our trunks, and refuses what does not fit exactly."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from boneage_jax.errors import BoneAgeError

SOURCES = ("keras", "torch", "ours")
_LISTED = 10


def assign(arrays: Mapping[str, np.ndarray], names: Mapping[str, str], like: Any, source: str) -> dict[str, Any]:
    """Makes the variables of a trunk from the arrays of the original.

    Args:
        arrays: what the original holds, by its keys; anything that `names` does not mention is an error.
        names: our leaf ("block1_conv1/kernel", without the collection) to the original's key, for every leaf.
        like: our variables {"params": ..., "batch_stats": ...}, of which shapes and structure are taken.
        source: "keras" (HWIO kernels, depthwise ones as HWC1), "torch" (OIHW kernels, [out, in] matrices) or "ours".

    Returns:
        A tree like `like`, float32.

    Raises:
        BoneAgeError: keys that are missing, unexpected or of another shape; all are counted, ten of each named.
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
        _listed("without a name in the original", unnamed),
        _listed("missing", missing),
        _listed("unexpected", unexpected),
        _listed("of another shape", sorted(misshapen)),
    ]
    if any(problems):
        raise BoneAgeError(f"the weights do not fit the network: {'; '.join(filter(None, problems))}")
    return traverse_util.unflatten_dict(found)


def to_original(value: np.ndarray, shape: tuple[int, ...], source: str) -> np.ndarray:
    """The inverse of what `assign` does to one array: ours in the original's layout and shape."""
    if source == "torch" and value.ndim == 4 and len(shape) == 4:
        value = value.transpose(3, 2, 0, 1)
    elif source == "torch" and len(shape) == 2:
        value = value.reshape(value.shape[-2:]).T
    return np.ascontiguousarray(value.reshape(shape))


def _as_ours(value: np.ndarray, shape: tuple[int, ...], source: str) -> np.ndarray | None:
    """The array in our layout, or None if it cannot be what we expect."""
    if source == "torch" and value.ndim == 4:
        value = value.transpose(2, 3, 1, 0)  # OIHW to HWIO
    elif source == "torch" and value.ndim == 2:
        value = value.T  # [out, in] to [in, out]
    # Axes of length 1 tell no numbers apart: a depthwise kernel HWC1 is our HW1C, a matrix a 1x1 convolution.
    if [n for n in value.shape if n != 1] != [n for n in shape if n != 1]:
        return None
    return value.reshape(shape)


def _listed(what: str, keys: Iterable[str]) -> str:
    keys = list(keys)
    if not keys:
        return ""
    return f"{len(keys)} {what}: {', '.join(keys[:_LISTED])}{', ...' if len(keys) > _LISTED else ''}"
