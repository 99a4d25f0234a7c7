"""Checkpoints: the newest ones to go on from, the best one to evaluate; written whole or not at all (orbax).

Each holds the state, and as JSON the configuration, preprocessing, label statistics and progress. A SHA-256 of the
state's bytes stands among them, and one of all of this beside it: damage to either is recognised when it is read.
"""

import functools
import hashlib
import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import absl.logging
import jax
import numpy as np
import orbax.checkpoint as ocp

from boneage_jax.atomic_files import storage_errors
from boneage_jax.errors import BoneAgeError
from boneage_jax.train.parallel import to_host

_UNSAFE = "[]*?\\"  # in patterns of file names, as which orbax takes paths
_CHECKSUM = "sha256"  # among the metadata, over all others; older checkpoints have none
KEPT = 2  # newest checkpoints: if one is damaged, the one before it is still there


class Restored(NamedTuple):
    """A checkpoint as it was saved."""

    step: int
    state: Any
    about: dict[str, Any]


class Store:
    """The checkpoints of one kind in one folder: "latest" (the newest two) or "best" (one).

    From the first one on, tracebacks that orbax and tensorstore print from their threads are left out.
    """

    def __init__(self, directory: Path | str, *, keep: int = KEPT, create: bool = True):
        self.directory = Path(directory).resolve()
        check_path(self.directory)
        _hide_tracebacks_of_writers()
        if not create and not self.directory.is_dir():
            raise BoneAgeError(f"{self.directory} holds no checkpoint; train first, or name another --workdir")
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=create, cleanup_tmp_directories=create)
        with storage_errors(self.directory):
            handlers = {"state": ocp.StandardCheckpointHandler(), "about": ocp.JsonCheckpointHandler()}
            self._manager = ocp.CheckpointManager(self.directory, options=options, item_handlers=handlers)

    def steps(self) -> list[int]:
        """Steps that are there, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, about: dict[str, Any]) -> None:
        """Starts to write; returns when the state has been copied, so training may go on.

        A step that is there already is left alone: runs are deterministic, so it holds the same.
        """
        self.wait()
        if step in self._manager.all_steps():
            return
        host = to_host(state)
        with storage_errors(self.directory):
            described = {**about, "state_sha256": digest(host)}
            args = ocp.args.Composite(
                state=ocp.args.StandardSave(_serialisable(host)),
                about=ocp.args.JsonSave({**described, _CHECKSUM: digest_json(described)}),
            )
            self._manager.save(step, args=args, force=True)

    def wait(self) -> None:
        """Returns when everything is on the disk; raises what went wrong while it was written."""
        with storage_errors(self.directory):
            self._manager.wait_until_finished()

    def about(self, step: int | None = None) -> dict[str, Any]:
        """The description of a checkpoint (the newest one by default), without its arrays."""
        step = self._step(step)
        with self._damage(step):
            restored = self._manager.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore()))
            about = dict(restored["about"])
            if _CHECKSUM not in about:
                absl.logging.warning("%s has no checksum of its metadata; they are not verified.", self._path(step))
            elif about.pop(_CHECKSUM) != digest_json(about):
                raise ValueError("its metadata do not match their checksum")
            return about

    def restore(self, like: Any, step: int | None = None) -> Restored:
        """Reads a checkpoint (the newest one by default) into the structure of `like`.

        Raises:
            BoneAgeError: there is none, it is damaged, or it belongs to another network; it is named.
        """
        step = self._step(step)
        about = self.about(step)
        target = _serialisable(jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like))
        with self._damage(step):
            stored = self._manager.item_metadata(step)["state"]
        if mismatch := _mismatch(stored, target):
            raise BoneAgeError(
                f"checkpoint {self._path(step)} belongs to another network: {mismatch}; "
                "use the configuration it was trained with, or another --workdir"
            )
        with self._damage(step):
            args = ocp.args.Composite(state=ocp.args.StandardRestore(target))
            arrays = jax.tree.leaves(self._manager.restore(step, args=args)["state"])
            state = jax.tree.unflatten(jax.tree.structure(like), [np.asarray(x) for x in arrays])
            if digest(state) != about["state_sha256"]:
                raise ValueError("its contents do not match their checksum")
        return Restored(step, state, about)

    def discard_after(self, step: int) -> None:
        """Deletes the checkpoints behind `step`, from which the run has been taken back."""
        for later in self.steps():
            if later > step:
                self._manager.delete(later)

    def close(self) -> None:
        """Waits and frees the threads."""
        try:
            self.wait()
        finally:
            self._manager.close()

    def _path(self, step: int) -> Path:
        return self.directory / str(step)

    def _step(self, step: int | None) -> int:
        steps = self.steps()
        if step is None and steps:
            return steps[-1]
        if step not in steps:
            wanted = "a checkpoint" if step is None else f"checkpoint {step}"
            there = ", ".join(map(str, steps)) or "none"
            raise BoneAgeError(f"{self.directory} does not hold {wanted}; there: {there}")
        return step

    @contextmanager
    def _damage(self, step: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            before = [other for other in self.steps() if other < step]
            offer = (
                f"the one before it is intact as far as known: go on from it with --config.checkpoint.step={before[-1]}"
                if before
                else "there is none before it: delete it to start again"
            )
            raise BoneAgeError(f"checkpoint {self._path(step)} is damaged ({reason}); {offer}") from error


def digest(state: Any) -> str:
    """SHA-256 over the bytes of all arrays, in the order of the tree."""
    total = hashlib.sha256()
    for leaf in jax.tree.leaves(state):
        total.update(np.ascontiguousarray(leaf).data)
    return total.hexdigest()


def _hide_tracebacks_of_writers() -> None:
    """Leaves out what threads print while a checkpoint is written: `wait` raises the reason too."""
    absl.logging.get_absl_logger().addFilter(_is_worth_logging)
    if getattr(sys.unraisablehook, "func", None) is not _report_unraisable:
        sys.unraisablehook = functools.partial(_report_unraisable, sys.unraisablehook)


def _is_worth_logging(record: logging.LogRecord) -> bool:
    return not (record.exc_info and "orbax" in Path(record.pathname).parts)


def _report_unraisable(report: Callable[[Any], None], unraisable: Any) -> None:
    """Passes on all but what tensorstore reports of writes that end after a failed one has closed the event loop."""
    if str(unraisable.exc_value) != "Event loop is closed":
        report(unraisable)


def check_path(directory: Path) -> None:
    """Refuses folders in which orbax would write checkpoints that it cannot find again.

    Raises:
        BoneAgeError: the path has a character of file name patterns.
    """
    if found := [character for character in _UNSAFE if character in str(directory)]:
        raise BoneAgeError(
            f"checkpoints cannot be kept in {directory}, whose name has {' '.join(found)}; choose a --workdir without "
            f"any of {' '.join(_UNSAFE)}"
        )


def digest_json(fields: dict[str, Any]) -> str:
    """SHA-256 over JSON types, whatever their order in dictionaries."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _serialisable(tree: Any) -> dict[str, np.ndarray]:
    """The leaves by their path: named tuples and modules' classes do not get into the files."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {f"{i:05d}{jax.tree_util.keystr(path)}".replace("/", "|"): leaf for i, (path, leaf) in enumerate(leaves)}


def _mismatch(stored: Any, target: dict[str, np.ndarray]) -> str:
    """What differs first between a checkpoint's arrays and the expected ones, "" if nothing."""
    try:
        shapes = {key: tuple(value.shape) for key, value in dict(stored).items()}
    except (TypeError, AttributeError):
        return ""  # unreadable: reported as damage when it is read
    for key in sorted(shapes.keys() | target.keys()):
        name = key.lstrip("0123456789")
        if key not in target:
            return f"it has {name}, which is not expected"
        if key not in shapes:
            return f"it lacks {name}"
        if shapes[key] != target[key].shape:
            return f"{name} has the shape {shapes[key]}, expected {target[key].shape}"
    return ""
