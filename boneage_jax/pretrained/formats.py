"""Reads weights files of all supported formats: arrays by the names that the framework gave them."""

import os
import zipfile
import zlib
from pathlib import Path
from typing import Literal

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError

from boneage_jax.errors import BoneAgeError
from boneage_jax.pretrained import keras_files, size_limits, torch_files

Source = Literal["keras", "torch"]

_HDF5 = b"\x89HDF\r\n\x1a\n"
_ZIP = b"PK\x03\x04"
_PICKLE = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_DAMAGE = (
    OSError,
    EOFError,
    KeyError,
    TypeError,
    ValueError,
    OverflowError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    SafetensorError,
)


def read(path: Path | str) -> tuple[Source, dict[str, np.ndarray]]:
    """Reads all weights of a file; the format is recognised by the content.

    Keras: `.weights.h5`, `.h5` and `.keras`, of Keras 2 and 3. PyTorch (timm, torchvision): `.safetensors`, and
    `.pth`, `.pt` or `.bin` without Python objects in them; if a file has several state dicts, the first of
    `torch_files.WRAPPERS` is taken; the prefix "module." of the keys is removed.

    Returns:
        The framework, and the arrays by their keys: "<layer>/<variable>" for Keras, with the names that its layers
        have in a fresh session; the state dict's keys for PyTorch. All floating-point arrays are float32.

    Raises:
        BoneAgeError: the file does not exist, is damaged, or has an unknown or unsafe format; or its size, or that of
            the arrays it declares, is larger than any network.
    """
    path = Path(os.path.expanduser(path))
    if not path.is_file():
        raise BoneAgeError(
            f"{path} does not exist or is not a file; model.init_from must be a weights file, or the name of weights "
            "in this package"
        )
    try:
        source, arrays = _read(path)
        if not arrays:
            raise BoneAgeError("it contains no layer weights")
        return source, {key: _as_float32(value) for key, value in arrays.items()}
    except BoneAgeError as error:
        raise BoneAgeError(f"{path} cannot be read: {error}") from error
    except _DAMAGE as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise BoneAgeError(f"{path} is damaged ({reason}); download it again") from error


def _read(path: Path) -> tuple[Source, dict[str, np.ndarray]]:
    size_limits.refuse_large(path.stat().st_size)
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(_HDF5):
        return "keras", keras_files.read_hdf5(path)
    if start.startswith(_ZIP):
        with zipfile.ZipFile(path) as archive:
            size_limits.refuse_large(sum(part.file_size for part in archive.infolist()))
            if "config.json" in archive.namelist():
                return "keras", keras_files.read_archive(archive)
            return "torch", torch_files.read_archive(archive)
    if start.startswith(_PICKLE):
        return "torch", torch_files.read_sequence(path)
    if start[8:9] == b"{":  # after the 8-byte length of the header
        return "torch", torch_files.read_safetensors(path)
    raise BoneAgeError(
        f"it begins with {start!r}, which is neither HDF5 (.h5), .keras, .safetensors nor PyTorch (.pth); it may be a "
        "web page or a Git LFS pointer instead of the file itself"
    )


def _as_float32(value: np.ndarray) -> np.ndarray:
    return value.astype(np.float32) if jnp.issubdtype(value.dtype, jnp.floating) else value
