"""Checkpoints (orbax), written atomically: the newest ones to resume from, the best one to evaluate.

Each holds the state and, as JSON, the configuration, preprocessing, label statistics and progress. The JSON also
stores a SHA-256 of the state's bytes and one of the metadata itself, so that damage to either is detected on reading.
"""

import functools
import hashlib
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import absl.logging
import jax
import numpy as np
import orbax.checkpoint as ocp

from boneage_jax import program
from boneage_jax.atomic_files import storage_errors
from boneage_jax.errors import BoneAgeError
from boneage_jax.train.parallel import to_host

_UNSAFE = "[]*?\\"  # glob characters: orbax treats paths as glob patterns
_CHECKSUM = "sha256"  # metadata key of the checksum of all other metadata; missing in older checkpoints
KEPT = 2  # newest checkpoints to keep: if one is damaged, the one before it is still available


class Restored(NamedTuple):
    """A checkpoint as it was saved."""

    step: int
    state: Any
    about: dict[str, Any]


class Store:
    """The checkpoints of one kind in one folder: "latest" (the newest two) or "best" (one)."""

    def __init__(self, directory: Path | str, *, keep: int = KEPT, create: bool = True):
        self.directory = Path(directory).resolve()
        check_path(self.directory)
        _hide_further_failures()
        if not create and not self.directory.is_dir():
            raise BoneAgeError(f"{self.directory} contains no checkpoint; train first, or choose another --workdir")
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=create, cleanup_tmp_directories=create)
        with storage_errors(self.directory):
            handlers = {"state": ocp.StandardCheckpointHandler(), "about": ocp.JsonCheckpointHandler()}
            self._manager = ocp.CheckpointManager(self.directory, options=options, item_handlers=handlers)

    def steps(self) -> list[int]:
        """Steps of the stored checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, about: dict[str, Any]) -> None:
        """Starts writing a checkpoint and returns once the state has been copied, so that training can continue.

        A step that already exists is not rewritten: runs are deterministic, so its contents are the same.
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
        """Waits until everything is on disk, and raises any error that occurred while writing."""
        with storage_errors(self.directory):
            self._manager.wait_until_finished()

    def about(self, step: int | None = None) -> dict[str, Any]:
        """The metadata of a checkpoint (the newest one by default), without its arrays."""
        step = self._step(step)
        with self._damage(step):
            restored = self._manager.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore()))
            about = dict(restored["about"])
            if _CHECKSUM not in about:
                absl.logging.warning("%s has no checksum for its metadata, which is not verified.", self._path(step))
            elif about.pop(_CHECKSUM) != digest_json(about):
                raise ValueError("its metadata do not match their checksum")
            return about

    def restore(self, like: Any, step: int | None = None) -> Restored:
        """Reads a checkpoint (the newest one by default) into the structure of `like`.

        Raises:
            BoneAgeError: there is no checkpoint, it is damaged, the system refuses to read it, another process has
                deleted it, or it belongs to another network; the message names it.
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
        """Deletes the checkpoints after `step`, when a run resumes from an earlier one."""
        for later in self.steps():
            if later > step:
                self._manager.delete(later)

    def close(self) -> None:
        """Waits for pending writes and releases the threads."""
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
        if step is None:
            raise BoneAgeError(
                f"{self.directory} does not contain a checkpoint yet; train until the end of an epoch, or choose "
                "another --workdir"
            )
        if step not in steps:
            there = ", ".join(map(str, steps)) or "none"
            raise BoneAgeError(f"{self.directory} does not contain checkpoint {step}; available: {there}")
        return step

    @contextmanager
    def _damage(self, step: int) -> Iterator[None]:
        try:
            yield
        except MemoryError:
            raise
        except Exception as error:
            if refusal := _refusal(error):
                raise BoneAgeError(
                    f"checkpoint {self._path(step)} cannot be read: {refusal}; correct this and run again"
                ) from error
            if not self._path(step).exists():
                raise BoneAgeError(
                    f"checkpoint {self._path(step)} was deleted while it was read, probably by a training that is "
                    "running and has saved another one; run the same command again"
                ) from error
            reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            before = [other for other in self.steps() if other < step]
            offer = (
                f"the one before it appears to be intact: resume from it with --config.checkpoint.step={before[-1]}"
                if before
                else "there is no earlier one: delete it to start again"
            )
            raise BoneAgeError(f"checkpoint {self._path(step)} is damaged ({reason}); {offer}") from error


def digest(state: Any) -> str:
    """SHA-256 over the bytes of all arrays, in the order of the tree."""
    total = hashlib.sha256()
    for leaf in jax.tree.leaves(state):
        total.update(np.ascontiguousarray(leaf).data)
    return total.hexdigest()


@contextmanager
def hidden_writer_tracebacks() -> Iterator[None]:
    """Hides the errors that orbax's threads log while stores are written: `wait` raises them."""
    logger = absl.logging.get_absl_logger()
    logger.addFilter(_is_worth_logging)
    try:
        yield
    finally:
        logger.removeFilter(_is_worth_logging)


def _is_worth_logging(record: logging.LogRecord) -> bool:
    return not (record.exc_info and "orbax" in Path(record.pathname).parts)


def _hide_further_failures() -> None:
    """Hides the tracebacks of all other arrays that are being read or written when one has failed.

    Orbax then raises the first failure and closes its event loop. So nothing takes the failures of arrays that have
    failed too, which asyncio logs, and tensorstore cannot report on the others. Both may happen at any later time, so
    this stays in effect until the program ends.
    """
    logging.getLogger("asyncio").addFilter(_is_no_array)  # which adds it only once
    if getattr(sys.unraisablehook, "func", None) is not _report_unraisable:
        sys.unraisablehook = functools.partial(_report_unraisable, sys.unraisablehook)


def _is_no_array(record: logging.LogRecord) -> bool:
    """False for the failure of an array of a checkpoint, which is in a database of the format OCDBT."""
    return not (record.exc_info and "OCDBT" in str(record.exc_info[1]))


def _report_unraisable(report: Callable[[Any], None], unraisable: Any) -> None:
    """Forwards all reports except tensorstore's, which name no object."""
    if unraisable.object is not None or str(unraisable.exc_value) != "Event loop is closed":
        report(unraisable)


def _refusal(error: Exception) -> str:
    """Why the system refuses to read, or "" for other errors; tensorstore gives the reason only in its messages."""
    number, message = getattr(error, "errno", None), str(error)
    return next((os.strerror(each) for each in program.REFUSED if each == number or os.strerror(each) in message), "")


def check_path(directory: Path) -> None:
    """Rejects folders in which orbax would write checkpoints that it cannot find again.

    Raises:
        BoneAgeError: the path contains a glob character.
    """
    if found := [character for character in _UNSAFE if character in str(directory)]:
        raise BoneAgeError(
            f"checkpoints cannot be stored in {directory}, because its path contains {' '.join(found)}; choose a "
            f"--workdir without any of {' '.join(_UNSAFE)}"
        )


def digest_json(fields: dict[str, Any]) -> str:
    """SHA-256 over JSON types, independent of the order of dictionary keys."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _serialisable(tree: Any) -> dict[str, np.ndarray]:
    """The leaves by their path, so that the files contain no named tuples or module classes."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {f"{i:05d}{jax.tree_util.keystr(path)}".replace("/", "|"): leaf for i, (path, leaf) in enumerate(leaves)}


def _mismatch(stored: Any, target: dict[str, np.ndarray]) -> str:
    """The first difference between a checkpoint's arrays and the expected ones, or ""."""
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
