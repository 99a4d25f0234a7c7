"""The order in which a split is read, and the processes or threads that prefetch it (grain)."""

import contextlib
import dataclasses
import gc
import multiprocessing
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import grain
import numpy as np
from absl import flags

from boneage_jax import program
from boneage_jax.data.augment import Augmentation
from boneage_jax.errors import BoneAgeError

Batch = dict[str, Any]

# Number of batches that each worker process, or the threads of this process, prefetch.
AHEAD = 2

_GRACE = 30  # seconds that a worker outlives SIGTERM


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batching:
    """How a split is divided into batches, and which part of them one process reads.

    Attributes:
      batch_size: examples in a batch over all processes.
      workers: processes that prepare batches; 0 prepares them in threads of this process.
      process_index: index of this process (`jax.process_index()`).
      process_count: number of processes that share each batch (`jax.process_count()`).

    Raises:
      BoneAgeError: a value is out of range, or the batch cannot be divided evenly among the processes.
    """

    batch_size: int
    workers: int = 0
    process_index: int = 0
    process_count: int = 1

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise BoneAgeError(f"The batch size must be 1 or more, not {self.batch_size}")
        if self.workers < 0:
            raise BoneAgeError(f"The number of data workers must be 0 or more, not {self.workers}")
        if not 0 <= self.process_index < self.process_count:
            raise BoneAgeError(f"Process index {self.process_index} is out of range for {self.process_count} processes")
        if self.batch_size % self.process_count:
            raise BoneAgeError(
                f"A batch of {self.batch_size} cannot be divided evenly among {self.process_count} processes: "
                f"choose a multiple of {self.process_count}"
            )

    @property
    def local_size(self) -> int:
        """Examples per batch of one process."""
        return self.batch_size // self.process_count


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingBatching(Batching):
    """How training batches are drawn from a split.

    Attributes:
      seed: determines order and augmentation, 0 to 2**32 - 1.
      augmentation: random changes to each image and its heat maps.
      crop: pixels per side of the random crop of each image; 0 for the whole image.
      start_step: number of batches to skip without reading them, for resuming.

    Raises:
      BoneAgeError: a value is out of range.
    """

    seed: int
    augmentation: Augmentation
    crop: int = 0
    start_step: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.seed < 2**32:
            raise BoneAgeError(f"The seed of the training data must lie between 0 and 2**32 - 1, not {self.seed}")
        if self.start_step < 0:
            raise BoneAgeError(f"Training cannot start at step {self.start_step}: it must be 0 or more")


class Batches(Iterator[Batch]):
    """An iterator over batches that stops its worker processes at `close` or at the end of a `with` block.

    Otherwise they stop when this object is deleted or the program ends.
    """

    def __init__(self, batches: grain.DatasetIterator, workers: int):
        self._source = [batches]
        self._starts_workers = workers > 0
        self._finalizer = weakref.finalize(self, _close, self._source)

    def __next__(self) -> Batch:
        if not self._source:
            raise ValueError("these batches are closed")
        with _held_signals() if self._starts_workers else contextlib.nullcontext():
            batch = next(self._source[0])
        self._starts_workers = False
        # Copy out of the workers' shared memory, which is scarce and must not outlive them.
        return _copied(batch)

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops worker processes and threads; no batches follow. May be called more than once."""
        self._finalizer()


def _close(source: list[grain.DatasetIterator]) -> None:
    """Closes and releases grain's iterator; its own clean-up prints errors if it runs after modules are unloaded."""
    source.pop().close()
    gc.collect()  # the iterator contains reference cycles


def training_stream(count: int, read: Callable[[int, np.ndarray], Batch], batching: TrainingBatching) -> Batches:
    """Batches over `count` images in the order of `train_batches`; `read` gets the batch number and indices [b]."""
    if count < batching.batch_size:
        raise BoneAgeError(
            f"The training split has {count} images, fewer than one batch of {batching.batch_size}: "
            "choose a smaller batch size or more data"
        )
    order = grain.MapDataset.range(count).seed(batching.seed).shuffle().repeat()
    # Batches are numbered before slicing, so an example's view depends only on its position in the stream.
    batches = order.batch(batching.local_size, drop_remainder=True).map_with_index(read)
    return _start(batches[batching.process_index :: batching.process_count][batching.start_step :], batching.workers)


def evaluation_stream(count: int, read: Callable[[np.ndarray], Batch], batching: Batching) -> Batches:
    """Batches over `count` images in the order of `evaluation_batches`; indices from `count` on are padding."""
    if count == 0:
        raise BoneAgeError("The split to evaluate has no images: check which split is named in the config")
    whole = -(-count // batching.batch_size) * batching.batch_size
    batches = grain.MapDataset.range(whole).batch(batching.local_size).map(read)
    return _start(batches[batching.process_index :: batching.process_count], batching.workers)


def _start(batches: grain.MapDataset, workers: int) -> Batches:
    # Work is parallel over images; OpenCV's own threads would compete for the same cores. They stay off:
    # grain's threads may still prepare an image after `close`, and a change during an OpenCV call crashes with SIGFPE.
    cv2.setNumThreads(0)
    threads = 0 if workers else 1
    stream = batches.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=AHEAD))
    if workers:
        if not flags.FLAGS.is_parsed():
            # grain's workers read absl flags, which are not parsed in a notebook or a plain script.
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=AHEAD)
        stream = stream.mp_prefetch(options, worker_init_fn=_start_worker)
    return Batches(iter(stream), workers)


@contextlib.contextmanager
def _held_signals() -> Iterator[None]:
    """Blocks stop signals until the block ends; processes started within it inherit the blocked mask."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, program.STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(index: int, count: int) -> None:
    """Lets the parent stop this worker: terminals and job schedulers send stop signals to both processes."""
    del index, count
    cv2.setNumThreads(0)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, program.STOPPING)


def _end_with_parent() -> None:
    """Exits when the parent exits: a killed parent cannot stop its workers."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _copied(batch: Batch) -> Batch:
    return {key: _copied(value) if isinstance(value, dict) else np.array(value) for key, value in batch.items()}
