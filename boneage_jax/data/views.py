"""Batches without images: labels and sampled views for images that are already stored elsewhere, such as on a device.

Order and views match those of `pipeline`, so that images on a device get the same views as on the host. Batches are
always prepared in threads of this process, regardless of `workers`: there is nothing to decode.
"""

import dataclasses
from typing import Protocol, runtime_checkable

import numpy as np

from boneage_jax.data.pipeline import Example, Examples, stack_labels
from boneage_jax.data.stream import Batch, Batches, Batching, TrainingBatching, evaluation_stream, training_stream


@runtime_checkable
class Labelled(Examples, Protocol):
    """Examples that give {"sex", "age", "inputs": {name: number}, "index"} without reading an image."""

    def labels(self, index: int) -> Example:
        """Returns the labels and numeric inputs of one image."""
        ...


def train_batches(split: Labelled, batching: TrainingBatching, *, size: int) -> Batches:
    """Returns the stream of `pipeline.train_batches`, with views instead of images and maps (`size` pixels per side).

    Returns:
      {"source": float32 [b, 2, 3], see `View.source`; "kernel": float32 [b, 3, 3], see `View.kernel`;
      "table": uint8 [b, 256], see `View.table`; "sex", "age", "inputs", "index", "mask"}.
    """
    return training_stream(len(split), _TrainingReader(split, batching, size), dataclasses.replace(batching, workers=0))


def evaluation_batches(split: Labelled, batching: Batching) -> Batches:
    """Returns the batches of `pipeline.evaluation_batches` without images and maps."""
    return evaluation_stream(len(split), _EvaluationReader(split), dataclasses.replace(batching, workers=0))


@dataclasses.dataclass(frozen=True)
class _TrainingReader:
    split: Labelled
    batching: TrainingBatching
    size: int

    def __call__(self, number: int, indices: np.ndarray) -> Batch:
        order = self.batching
        views = order.augmentation.sample_batch(order.seed, number, len(indices), self.size, order.crop)
        return {
            "source": np.stack([view.source(self.size) for view in views]).astype(np.float32),
            "kernel": np.stack([view.kernel() for view in views]),
            "table": np.stack([view.table() for view in views]),
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
