"""Weights that PyTorch has written, by the keys of the state dict: safetensors, and pickles without any code."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from boneage_jax.errors import BoneAgeError

# Where training scripts keep the state dict, in the order in which timm looks: averaged weights first.
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Reads a `.safetensors` file."""
    return dict(load_file(path))


def read_pickle(path: Path) -> dict[str, np.ndarray]:
    """Reads a `.pth`, `.pt` or `.bin` file with `torch.load(weights_only=True)`, which runs nothing it holds.

    Raises:
        BoneAgeError: torch is missing, or the file holds anything but arrays and plain values.
    """
    try:
        import torch
    except ImportError as error:
        raise BoneAgeError(
            "it is a pickle, which only PyTorch reads: pip install torch, or use the model's .safetensors file"
        ) from error
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise BoneAgeError(
            "it holds Python objects beside its arrays, which could run anything, or it is damaged; use the model's "
            f".safetensors file, or one that torch.load(weights_only=True) accepts ({_reason(error)})"
        ) from error
    except Exception as error:  # of any kind: PyTorch lets through whatever its reader stumbles over
        raise BoneAgeError(f"it is damaged ({_reason(error)}); download it again") from error
    state = _unwrapped(stored)
    arrays = {key: _array(value) for key, value in state.items() if isinstance(value, torch.Tensor)}
    if len(arrays) < len(state) or not arrays:
        others = [str(key) for key in state if key not in arrays]
        raise BoneAgeError(
            f"it is no state dict, a dictionary of tensors; it holds {', '.join(others[:10]) or 'nothing'}"
        )
    return {key.removeprefix("module."): value for key, value in arrays.items()}


def _unwrapped(stored: Any) -> Mapping[str, Any]:
    if not isinstance(stored, Mapping):
        raise BoneAgeError(f"it is no state dict, a dictionary of tensors, but a {type(stored).__name__}")
    inside = (stored[key] for key in WRAPPERS if isinstance(stored.get(key), Mapping))
    return next(inside, stored)


def _array(tensor: Any) -> np.ndarray:
    # NumPy has no bfloat16.
    return (tensor.float() if tensor.is_floating_point() else tensor).detach().numpy()


def _reason(error: Exception) -> str:
    """PyTorch's own reason, out of many lines of advice."""
    lines = [line.strip() for line in str(error).splitlines()]
    named = [line for line in lines if line.startswith(("WeightsUnpickler error", "Unsupported"))]
    return (named or lines or [type(error).__name__])[0][:200]
