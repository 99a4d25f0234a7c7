"""Batches for training and evaluation, the same for any number of worker processes and hosts (grain)."""

import dataclasses
import gc
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import cv2
import grain
import numpy as np
from absl import flags

from boneage_jax.data.augment import DRAWS, Augmentation, apply
from boneage_jax.errors import BoneAgeError

Example = dict[str, Any]
Batch = dict[str, Any]

# Batches that each worker process, or the threads of this one, prepare ahead.
AHEAD = 2


@runtime_checkable
class Examples(Protocol):
    """Random access to {"image": uint8 [S, S, C], "sex", "age", "inputs": {name: value}, "index"}.

    Picklable, for worker processes. The values of "inputs" are numbers or maps [S, S, 1] that belong to the image.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...


class Batches(Iterator[Batch]):
    """An iterator over batches that ends its worker processes at `close` or at the end of a `with` block.

    Left open, they end with this object or with the program.
    """

    def __init__(self, batches: grain.DatasetIterator):
        self._source = [batches]
        self._finalizer = weakref.finalize(self, _close, self._source)

    def __next__(self) -> Batch:
        if not self._source:
            raise ValueError("These batches are closed.")
        # Out of the workers' shared memory, which is scarce and must not outlive them.
        return _copied(next(self._source[0]))

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends worker processes and threads; there are no more batches afterwards. May be called twice."""
        self._finalizer()


def _close(source: list[grain.DatasetIterator]) -> None:
    """Closes and lets go of grain's iterator, whose own clean-up prints errors if it outlives the modules."""
    source.pop().close()
    gc.collect()  # parts of it refer to each other


def steps_per_epoch(split: Examples, batch_size: int) -> int:
    """Returns how many whole batches one pass over `split` makes."""
    return len(split) // batch_size


def train_batches(
    split: Examples,
    *,
    batch_size: int,
    seed: int,
    augmentation: Augmentation,
    crop: int = 0,
    start_step: int = 0,
    workers: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """Returns the endless stream of training batches of one process, from batch `start_step` on.

    The stream depends on `seed` alone: epochs follow each other without a seam, each a fresh permutation, and
    the local batches of all processes, put together in their order, are batch k of a single process.

    Args:
      split: what to read.
      batch_size: examples in a batch over all processes.
      seed: decides order and augmentation, 0 to 2**32 - 1.
      augmentation: random changes to each image, and to the maps that belong to it.
      crop: pixels per side of the random window that is cut from each image; 0 for the whole image.
      start_step: batches to pass over without reading them, for resuming.
      workers: processes that prepare batches; 0 prepares them in threads of this one.
      process_index: which of the processes this is (`jax.process_index()`).
      process_count: how many processes share each batch (`jax.process_count()`).

    Returns:
      {"image": uint8 [b, s, s, C], "sex": int32 [b], "age": float32 [b] months, "inputs": {name: number [b] or map
      [b, s, s, 1]}, "index": int32 [b], "mask": bool [b], all true} with b = batch_size // process_count and s the
      crop or the size of the images.

    Raises:
      BoneAgeError: the numbers do not fit together, or the split is smaller than a batch, or the images than the
        crop (when they are read).
    """
    local = _local_size(batch_size, workers, process_index, process_count)
    if len(split) < batch_size:
        raise BoneAgeError(
            f"The training split has {len(split)} images, fewer than one batch of {batch_size}: "
            "choose a smaller batch size or more data."
        )
    if not 0 <= seed < 2**32:
        raise BoneAgeError(f"The seed of the training data must lie between 0 and 2**32 - 1, not {seed}.")
    if start_step < 0:
        raise BoneAgeError(f"Training cannot start at step {start_step}: it must be 0 or more.")
    indices = grain.MapDataset.range(len(split)).seed(seed).shuffle().repeat().batch(local, drop_remainder=True)
    # Numbered before anything is sliced: an example's view depends on its place in the stream alone.
    batches = indices.map_with_index(_TrainingReader(split, augmentation, crop, seed))
    return _start(batches[process_index::process_count][start_step:], workers)


def evaluation_batches(
    split: Examples,
    *,
    batch_size: int,
    workers: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """Returns batches that hold every example of `split` exactly once, in order (arguments: `train_batches`).

    Every process gets the same number of batches of one shape, images whole. The last batch is filled up with black
    images whose `mask` is false, whose `index` is -1 and whose further inputs are 0; put together in the processes'
    order, batches keep the split's order.

    Raises:
      BoneAgeError: the numbers do not fit together, or the split is empty.
    """
    local = _local_size(batch_size, workers, process_index, process_count)
    if len(split) == 0:
        raise BoneAgeError("The split to evaluate has no images: check which split is named in the config.")
    whole = -(-len(split) // batch_size) * batch_size
    batches = grain.MapDataset.range(whole).batch(local).map(_EvaluationReader(split))
    return _start(batches[process_index::process_count], workers)


def _local_size(batch_size: int, workers: int, process_index: int, process_count: int) -> int:
    """Returns the examples per batch of one process, or says which number does not fit."""
    if batch_size < 1:
        raise BoneAgeError(f"The batch size must be 1 or more, not {batch_size}.")
    if workers < 0:
        raise BoneAgeError(f"The number of data workers must be 0 or more, not {workers}.")
    if not 0 <= process_index < process_count:
        raise BoneAgeError(f"There is no process {process_index} among {process_count}.")
    if batch_size % process_count:
        raise BoneAgeError(
            f"A batch of {batch_size} cannot be shared evenly by {process_count} processes: "
            f"choose a multiple of {process_count}."
        )
    return batch_size // process_count


def _start(batches: grain.MapDataset, workers: int) -> Batches:
    cv2.setNumThreads(0)  # parallel over images, not inside one: its own threads would fight for the same cores
    threads = 0 if workers else 1
    stream = batches.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=AHEAD))
    if workers:
        if not flags.FLAGS.is_parsed():
            # grain's workers read absl flags, which nobody parses in a notebook or a plain script.
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=AHEAD)
        stream = stream.mp_prefetch(options, worker_init_fn=_start_worker)
    return Batches(iter(stream))


def _start_worker(index: int, count: int) -> None:
    del index, count
    cv2.setNumThreads(0)


@dataclasses.dataclass(frozen=True)
class _TrainingReader:
    """Reads and augments the batch of that number in the stream; a class, so that workers can unpickle it.

    One reader per batch rather than one grain transformation per example: grain's bookkeeping, most of all
    setting up random numbers, costs more per example than the warp of a 128-pixel image.
    """

    split: Examples
    augmentation: Augmentation
    crop: int
    seed: int

    def __call__(self, number: int, indices: np.ndarray) -> Batch:
        examples = [self.split[index] for index in indices.tolist()]
        if self.crop or self.augmentation != Augmentation():
            place = number * len(indices)
            # Philox makes four numbers per count.
            rng = np.random.Generator(np.random.Philox(key=self.seed, counter=place * DRAWS // 4))
            examples = [self._viewed(example, rng) for example in examples]
        return _stack(examples)

    def _viewed(self, example: Example, rng: np.random.Generator) -> Example:
        view = self.augmentation.sample(rng, example["image"].shape[0], self.crop)
        inputs = {
            name: apply(value, view.without_greys()) if _is_map(value) else value
            for name, value in example["inputs"].items()
        }
        return {**example, "image": apply(example["image"], view), "inputs": inputs}


@dataclasses.dataclass(frozen=True)
class _EvaluationReader:
    """Reads a batch, with empty examples in place of indices beyond the end of the split."""

    split: Examples

    def __call__(self, indices: np.ndarray) -> Batch:
        count = len(self.split)
        examples = [self.split[index] for index in indices.tolist() if index < count]
        like = examples[0] if examples else self.split[0]
        blank = {
            "image": np.zeros_like(like["image"]),
            "sex": 0,
            "age": 0.0,
            "inputs": {name: np.zeros_like(value) for name, value in like["inputs"].items()},
            "index": -1,
        }
        return _stack(examples + [blank] * (len(indices) - len(examples)))


def _is_map(value: Any) -> bool:
    return np.ndim(value) == 3


def _stack(examples: Sequence[Example]) -> Batch:
    """Returns the examples as one batch; those with a negative index are padding."""
    index = np.array([example["index"] for example in examples], np.int32)
    return {
        "image": np.stack([example["image"] for example in examples]),
        "sex": np.array([example["sex"] for example in examples], np.int32),
        "age": np.array([example["age"] for example in examples], np.float32),
        "inputs": {name: np.stack([example["inputs"][name] for example in examples]) for name in examples[0]["inputs"]},
        "index": index,
        "mask": index >= 0,
    }


def _copied(batch: Batch) -> Batch:
    return {key: _copied(value) if isinstance(value, dict) else np.array(value) for key, value in batch.items()}
