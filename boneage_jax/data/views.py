"""Batches without images: the labels, and the views drawn for images that somebody else holds.

Order and views are those of `pipeline`, so that images that lie on a device are seen as the host would show them.
"""

import dataclasses
from typing import Protocol, runtime_checkable

import numpy as np

from boneage_jax.data.augment import Augmentation
from boneage_jax.data.pipeline import Example, Examples, stack_labels
from boneage_jax.data.stream import Batch, Batches, evaluation_stream, training_stream


@runtime_checkable
class Labelled(Examples, Protocol):
    """Examples whose {"sex", "age", "inputs": {name: number}, "index"} are known without reading an image."""

    def labels(self, index: int) -> Example:
        """What is known of one image."""
        ...


def train_batches(
    split: Labelled,
    *,
    batch_size: int,
    seed: int,
    augmentation: Augmentation,
    size: int,
    crop: int = 0,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """Returns the stream of `pipeline.train_batches`, with views in place of images and maps of `size` pixels a side.

    Returns:
      {"source": float32 [b, 2, 3], see `View.source`; "greys": uint8 [b, 256], see `View.table`; "sex", "age",
      "inputs", "index", "mask"}.
    """
    return training_stream(
        len(split),
        _TrainingReader(split, augmentation, size, crop, seed),
        batch_size=batch_size,
        seed=seed,
        start_step=start_step,
        workers=0,
        process_index=process_index,
        process_count=process_count,
    )


def evaluation_batches(split: Labelled, *, batch_size: int, process_index: int = 0, process_count: int = 1) -> Batches:
    """Returns the batches of `pipeline.evaluation_batches` without images and maps."""
    return evaluation_stream(
        len(split),
        _EvaluationReader(split),
        batch_size=batch_size,
        workers=0,
        process_index=process_index,
        process_count=process_count,
    )


@dataclasses.dataclass(frozen=True)
class _TrainingReader:
    split: Labelled
    augmentation: Augmentation
    size: int
    crop: int
    seed: int

    def __call__(self, number: int, indices: np.ndarray) -> Batch:
        views = self.augmentation.sample_batch(self.seed, number, len(indices), self.size, self.crop)
        return {
            "source": np.stack([view.source(self.size) for view in views]).astype(np.float32),
            "greys": np.stack([view.table() for view in views]),
            **stack_labels([self.split.labels(index) for index in indices.tolist()]),
        }


@dataclasses.dataclass(frozen=True)
class _EvaluationReader:
    split: Labelled

    def __call__(self, indices: np.ndarray) -> Batch:
        count = len(self.split)
        first = self.split.labels(0)
        blank = {"sex": 0, "age": 0.0, "inputs": {name: np.zeros_like(v) for name, v in first["inputs"].items()}}
        examples = [self.split.labels(i) if i < count else {**blank, "index": -1} for i in indices.tolist()]
        return stack_labels(examples)
