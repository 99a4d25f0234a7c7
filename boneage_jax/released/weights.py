"""The released form of a network: one safetensors file with its parameters and all metadata needed to use them.

Tensors are named "params/trunk/...", "batch_stats/trunk/..." and "checks/...". The file's metadata have one key,
"boneage_jax", with a JSON object: the fields of `Header`, the format number and a SHA-256 of the header and tensors.
A file may hold several networks to be averaged: the second network's tensors are named "members/1/params/...".
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from boneage_jax.atomic_files import write_bytes
from boneage_jax.errors import BoneAgeError, did_you_mean
from boneage_jax.version import __version__

KEY = "boneage_jax"
FORMAT = 2
"""Format 2 allows several networks per file. Files of one network are written as format 1, which is identical."""
FOLDER = Path(__file__).parents[1] / "weights"
STORAGES: dict[str, Any] = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
COLLECTIONS = ("params", "batch_stats")
MOST_MEMBERS = 9
LARGEST = 4 * 2**30
"""Maximum bytes of a file; the zoo's largest network has 0.4 GB."""
_CHECKS = "checks/"
_MEMBERS = "members/"
_SUFFIX = ".safetensors"


@dataclasses.dataclass(frozen=True)
class Header:
    """The metadata stored with the weights; every field holds only JSON types.

    Attributes:
        name: of the exported file, without suffix; the package's weights are loaded by it.
        model: the description of the network, see `models.Description`.
        preprocessing: see `Preprocessing.to_dict`.
        views: the views over which the estimate is averaged, see `Preprocessing.views`.
        calibration: see `Calibration.to_dict`; None for an uncalibrated network.
        checks: settings of the checks of input images.
        data: the training data and the initial weights, with terms and citations, and numbers of images;
            "calibrated_on" names the images of a later calibration.
        figures: metrics of the images that the calibration was fitted on, see `export`.
        config: the whole configuration, without paths and addresses.
        commit: of the code that trained it, if known.
        version: of the package that wrote the file.
        storage: type in which arrays with two or more axes are stored; vectors are few and stay float32.
        members: the headers of all networks, as JSON types, if several are averaged; this header then describes their
            mean, except for model, preprocessing, views, config, commit and the numbers of images of training and
            checks, which are those of the first network.
    """

    name: str
    model: dict[str, Any]
    preprocessing: dict[str, Any]
    views: str
    calibration: dict[str, Any] | None = None
    checks: dict[str, Any] = dataclasses.field(default_factory=dict)
    data: dict[str, Any] = dataclasses.field(default_factory=dict)
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    commit: str | None = None
    version: str = __version__
    storage: str = "float32"
    members: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def measured_on(self) -> str:
        """The images that the figures were measured on, in words."""
        title, split = self.data.get("title", "unknown data"), self.data.get("measured_split", "unknown")
        return str(self.data.get("calibrated_on", f"{title}, {split} split"))


_TEXTS = ("name", "views", "version", "storage")
_OBJECTS = ("model", "preprocessing", "checks", "data", "figures", "config")
"""Fields of the header by their JSON type; calibration and commit may be null."""


@dataclasses.dataclass(frozen=True)
class Weights:
    """A network's header and variables.

    Attributes:
        header: metadata of the network.
        variables: {"params": ..., "batch_stats": ...}, trees of float32 arrays, as used in evaluation.
        checks: arrays for the checks of input images, by name.
        members: all networks, each with its own header, if several are averaged; `variables` are those of the first.
        sha256: checksum of the file, as `read` verified it; None for weights that were not read from a file.
        file: the file; None for weights that were not read from one.
    """

    header: Header
    variables: dict[str, Any]
    checks: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    members: tuple["Weights", ...] = ()
    sha256: str | None = None
    file: Path | None = None


def names() -> list[str]:
    """Names of the weights included in the package, in alphabetical order."""
    return sorted(path.name.removesuffix(_SUFFIX) for path in FOLDER.glob(f"*{_SUFFIX}"))


def find(name_or_path: str | Path) -> Path:
    """The weights file that the package includes under this name, or the one at this path.

    Raises:
        BoneAgeError: there is no such file.
    """
    text, path = str(name_or_path), Path(os.path.expanduser(name_or_path))
    if text in names():
        return FOLDER / f"{text}{_SUFFIX}"
    if os.path.isfile(path):  # unlike `path.is_file()`, False for a name that is too long
        return path
    if path.suffix or path.name != text:
        raise BoneAgeError(f"there is no weights file {path}; those in the package: {_listed_names()}")
    hint = did_you_mean(text, names())
    raise BoneAgeError(f"there are no weights {text!r}; those in the package: {_listed_names()}{hint}")


def most_accurate() -> str:
    """The name of the weights in the package with the lowest validation MAE.

    Raises:
        BoneAgeError: the package has none.
    """
    if not names():
        raise BoneAgeError("this copy of boneage_jax contains no weights; give a weights file")
    return min(names(), key=lambda name: read_header(FOLDER / f"{name}{_SUFFIX}").figures["overall"]["mae"]["value"])


def write(path: Path | str, weights: Weights) -> None:
    """Writes the file atomically, in the storage type that the header names.

    Raises:
        BoneAgeError: a value is not finite, or no longer finite in that storage type; the file cannot be written.
    """
    header = weights.header
    if header.storage not in STORAGES:
        raise BoneAgeError(f"storage is {header.storage!r}, expected one of {', '.join(STORAGES)}")
    trees = {"": weights.variables}
    trees |= {f"{_MEMBERS}{place}/": one.variables for place, one in enumerate(weights.members) if place}
    tensors = {
        f"{start}{name}": _stored(name, x, header.storage)
        for start, tree in trees.items()
        for name, x in flatten_dict(tree, sep="/").items()
    }
    tensors |= {_CHECKS + name: np.asarray(x, order="C") for name, x in weights.checks.items()}
    fields = {"format": FORMAT if weights.members else 1, **dataclasses.asdict(header)}
    if not weights.members:
        del fields["members"]
    text = json.dumps({**fields, "sha256": digest(fields, tensors)}, allow_nan=False)
    content = save(tensors, metadata={KEY: text})  # `save_file` would make a file that only its owner may read
    write_bytes(Path(path), content)


def rounded(variables: Any, storage: str) -> Any:
    """The variables as `read` returns them after `write` has stored them in this type.

    Raises:
        BoneAgeError: as `write`.
    """
    flat = flatten_dict(variables, sep="/")
    stored = {name: _stored(name, x, storage).astype(np.float32) for name, x in flat.items()}
    return {name: {} for name in COLLECTIONS} | unflatten_dict(stored, sep="/")


def read(path: Path | str) -> Weights:
    """Reads a file and verifies its checksum.

    Raises:
        BoneAgeError: there is no such file, it is damaged, holds something else or values that are not finite, or is of
            a later version.
    """
    fields, tensors = _open(Path(path), with_tensors=True)
    if digest({key: value for key, value in fields.items() if key != "sha256"}, tensors) != fields.get("sha256"):
        raise BoneAgeError(f"{path} is damaged: its contents do not match their checksum; fetch or export it again")
    for name, array in tensors.items():
        if not np.isfinite(array.astype(np.float32)).all():
            raise BoneAgeError(f"{path} cannot be used: {name} holds values that are not finite; export it again")
    numbers = {name: x.astype(np.float32) for name, x in tensors.items() if not name.startswith(_CHECKS)}
    for name in numbers:
        if any(other.startswith(f"{name}/") for other in numbers):
            raise BoneAgeError(f"{path} cannot be used: {name} holds both values and other arrays; export it again")
    tree: dict[str, Any] = unflatten_dict(numbers, sep="/")
    others = tree.pop(_MEMBERS.rstrip("/"), {})
    variables = {name: {} for name in COLLECTIONS} | tree
    checks = {name.removeprefix(_CHECKS): x for name, x in tensors.items() if name.startswith(_CHECKS)}
    header = _header(path, fields)
    if sorted(others) != [str(place) for place in range(1, len(header.members))]:
        raise BoneAgeError(f"{path} is damaged: it does not contain the {len(header.members)} networks that it lists")
    trees = [variables, *({name: {} for name in COLLECTIONS} | others[key] for key in sorted(others))]
    members = tuple(
        Weights(_header(path, {"members": [], **one}), each)
        for one, each in zip(header.members, trees if header.members else (), strict=True)
    )
    return Weights(header, variables, checks, members, fields["sha256"], Path(path))


def read_header(path: Path | str) -> Header:
    """Reads only the header, without the arrays: fast, but the checksum is not verified."""
    return _header(path, _open(Path(path), with_tensors=False)[0])


def digest(fields: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over the header and over the tensors' names, types, shapes and bytes."""
    total = hashlib.sha256(json.dumps(fields, sort_keys=True, allow_nan=False).encode())
    for name in sorted(tensors):
        array = tensors[name]
        total.update(f"{name}|{array.dtype.name}|{list(array.shape)}|".encode())
        total.update(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
    return total.hexdigest()


def is_released(path: Path | str) -> bool:
    """Whether this is a safetensors file in the format that `write` produces."""
    try:
        with safe_open(str(path), framework="numpy") as file:
            return KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def _open(path: Path, *, with_tensors: bool) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    if not path.is_file():
        raise BoneAgeError(f"there is no weights file {path}")
    if (size := path.stat().st_size) > LARGEST:
        raise BoneAgeError(f"{path} has {size:,} bytes, more than any weights file ({LARGEST:,}); fetch it again")
    try:
        with safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()} if with_tensors else {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise BoneAgeError(f"{path} is not an intact safetensors file ({error}); fetch or export it again") from error
    if KEY not in metadata:
        raise BoneAgeError(
            f"{path} contains no network of boneage_jax: its metadata lack the key {KEY!r}; `boneage export-weights` "
            "writes such files, and model.init_from reads those of other projects"
        )
    try:
        fields = dict(json.loads(metadata[KEY]))
        json.dumps(fields, allow_nan=False)  # rejects NaN and Infinity, which Python reads although JSON lacks them
        number = int(fields["format"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BoneAgeError(f"{path} is damaged: its header cannot be read ({error}); fetch it again") from error
    if number > FORMAT:
        raise BoneAgeError(
            f"{path} has format {number}, written by a later version of boneage_jax ({fields.get('version')}); this "
            f"one ({__version__}) reads up to format {FORMAT}: update it"
        )
    return fields, tensors


def _listed_names() -> str:
    return ", ".join(names()) or "none in this copy of boneage_jax"


def _header(path: Path | str, fields: Mapping[str, Any]) -> Header:
    fields = {"members": [], **{key: value for key, value in fields.items() if key not in ("format", "sha256")}}
    known = {field.name for field in dataclasses.fields(Header)}
    if fields.keys() != known:
        different = ", ".join(sorted(fields.keys() ^ known))
        raise BoneAgeError(f"{path} is damaged: its header has missing or unknown keys ({different}); fetch it again")
    wrong = [name for name in _TEXTS if not isinstance(fields[name], str)]
    wrong += [name for name in _OBJECTS if not isinstance(fields[name], dict)]
    members = fields["members"]
    if (
        not isinstance(members, list)
        or len(members) > MOST_MEMBERS
        or not all(isinstance(one, dict) for one in members)
    ):
        wrong.append("members")
    if wrong:
        raise BoneAgeError(f"{path} is damaged: {', '.join(wrong)} in its header have the wrong type; fetch it again")
    return Header(**fields)


def _stored(name: str, value: Any, storage: str) -> np.ndarray:
    array = np.asarray(value, np.float32)
    with np.errstate(over="ignore"):  # reported below
        stored = array.astype(STORAGES[storage]) if array.ndim > 1 else array
    if not np.isfinite(stored.astype(np.float32)).all():
        raise BoneAgeError(f"{name} has values that are not finite in {stored.dtype.name} and cannot be stored")
    return np.asarray(stored, order="C")
