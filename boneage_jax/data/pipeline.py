"""Batches for training and evaluation, the same for any number of worker processes and hosts (grain)."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from boneage_jax.data.augment import Augmentation, View, apply
from boneage_jax.data.stream import Batch, Batches, Batching, TrainingBatching, evaluation_stream, training_stream

Example = dict[str, Any]


@runtime_checkable
class Examples(Protocol):
    """Random access to {"image": uint8 [S, S, C], "sex", "age", "inputs": {name: value}, "index"}.

    Must be picklable, for worker processes. The values of "inputs" are numbers, or heat maps [S, S, 1] of the image.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...


def steps_per_epoch(split: Examples, batch_size: int) -> int:
    """Returns the number of full batches in one pass over `split`."""
    return len(split) // batch_size


def train_batches(split: Examples, batching: TrainingBatching) -> Batches:
    """Returns the endless stream of training batches of one process, from batch `batching.start_step` on.

    The stream depends on the seed alone. Each epoch is a new permutation, and batches may span two epochs. The local
    batches of all processes, concatenated in process order, equal batch k of a single process.

    Returns:
      {"image": uint8 [b, s, s, C], "sex": int32 [b], "age": float32 [b] months, "inputs": {name: number [b] or map
      [b, s, s, 1]}, "index": int32 [b], "mask": bool [b], all true} with b = `batching.local_size` and s the crop size
      or the size of the images.

    Raises:
      BoneAgeError: the split is smaller than a batch, or an image is smaller than the crop (raised on reading).
    """
    return training_stream(len(split), _TrainingReader(split, batching), batching)


def evaluation_batches(split: Examples, batching: Batching) -> Batches:
    """Returns batches that hold every example of `split` exactly once, in order.

    Every process gets the same number of batches, all of the same shape, with uncropped images. The last batch is
    padded with black images that have `mask` false, `index` -1 and further inputs of 0. Concatenated in process order,
    the batches keep the order of the split.

    Raises:
      BoneAgeError: the split is empty.
    """
    return evaluation_stream(len(split), _EvaluationReader(split), batching)


@dataclasses.dataclass(frozen=True)
class _TrainingReader:
    """Reads and augments one batch, given its number in the stream; a class, so that workers can unpickle it.

    It reads a whole batch, instead of one grain transformation per example, because grain's overhead per example
    (mainly setting up random numbers) is larger than the cost of warping a 128-pixel image.
    """

    split: Examples
    batching: TrainingBatching

    def __call__(self, number: int, indices: np.ndarray) -> Batch:
        examples = [self.split[index] for index in indices.tolist()]
        order = self.batching
        if order.crop or order.augmentation != Augmentation():
            size = examples[0]["image"].shape[0]
            views = order.augmentation.sample_batch(order.seed, number, len(examples), size, order.crop)
            examples = [_viewed(*pair) for pair in zip(examples, views, strict=True)]
        return _stack(examples)


@dataclasses.dataclass(frozen=True)
class _EvaluationReader:
    """Reads a batch, with blank examples for indices beyond the end of the split."""

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


def _viewed(example: Example, view: View) -> Example:
    inputs = {
        name: apply(value, view.geometry()) if _is_map(value) else value for name, value in example["inputs"].items()
    }
    return {**example, "image": apply(example["image"], view), "inputs": inputs}


def _is_map(value: Any) -> bool:
    return np.ndim(value) == 3


def _stack(examples: Sequence[Example]) -> Batch:
    return {"image": np.stack([example["image"] for example in examples]), **stack_labels(examples)}


def stack_labels(examples: Sequence[Example]) -> Batch:
    """Stacks the examples to one batch without images; examples with a negative index are padding."""
    index = np.array([example["index"] for example in examples], np.int32)
    return {
        "sex": np.array([example["sex"] for example in examples], np.int32),
        "age": np.array([example["age"] for example in examples], np.float32),
        "inputs": {name: np.stack([example["inputs"][name] for example in examples]) for name in examples[0]["inputs"]},
        "index": index,
        "mask": index >= 0,
    }
