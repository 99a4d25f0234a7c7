"""Where the prepared images are kept during training and evaluation: on the host, or on every device.

Both placements give batches of the same images, in the same order and with the same views; inside the compiled step,
`resident.view` turns either kind of batch into images.
"""

from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from absl import logging

from boneage_jax.data import pipeline, views
from boneage_jax.data.stream import Batch, Batches, Batching, TrainingBatching
from boneage_jax.errors import BoneAgeError
from boneage_jax.train import parallel

PLACEMENTS = ("host", "device")


@runtime_checkable
class Source(Protocol):
    """A split from which batches are taken."""

    def train_batches(self, batching: TrainingBatching) -> Batches:
        """This process' part of the endless stream, see `pipeline.train_batches`."""
        ...

    def evaluation_batches(self, batching: Batching) -> Batches:
        """This process' part of every image once, see `pipeline.evaluation_batches`."""
        ...

    def lay_out(self, batch: Batch) -> Batch:
        """Splits a batch over the devices of this process, as compiled steps expect it."""
        ...


def create(placement: str, split: views.Labelled) -> Source:
    """Creates the source of a split for `data.placement`.

    Raises:
        BoneAgeError: there is no such placement, or a device has too little free memory for the images.
    """
    if placement not in PLACEMENTS:
        raise BoneAgeError(f"data.placement is {placement!r}, expected one of {', '.join(PLACEMENTS)}")
    return _OnDevice(split) if placement == "device" else _OnHost(split)


class _OnHost:
    """The host reads and augments the images and sends them with each batch."""

    def __init__(self, split: views.Labelled):
        self._split = split

    def train_batches(self, batching: TrainingBatching) -> Batches:
        return pipeline.train_batches(self._split, batching)

    def evaluation_batches(self, batching: Batching) -> Batches:
        return pipeline.evaluation_batches(self._split, batching)

    def lay_out(self, batch: Batch) -> Batch:
        return parallel.split(batch)


class _OnDevice:
    """All images are kept on every device; batches hold their indices and augmentations. Needs no workers."""

    def __init__(self, split: views.Labelled):
        self._split = split
        images = _read(split)
        self._size = images["image"].shape[1]
        self._resident = parallel.keep(images)

    def train_batches(self, batching: TrainingBatching) -> Batches:
        return views.train_batches(self._split, batching, size=self._size)

    def evaluation_batches(self, batching: Batching) -> Batches:
        return views.evaluation_batches(self._split, batching)

    def lay_out(self, batch: Batch) -> Batch:
        return {**parallel.split(batch), "resident": self._resident}


def _read(split: views.Labelled) -> dict[str, Any]:
    """All images of a split by their "index", {"image": uint8 [N, S, S, C], "inputs": {name: uint8 [N, S, S, 1]}}.

    An image that the split repeats is kept once.
    """
    places = {int(split.labels(i)["index"]): i for i in range(len(split))}
    count, first = len(places), split[0]
    pictures = {"image": first["image"], "inputs": {k: v for k, v in first["inputs"].items() if np.ndim(v) == 3}}
    needed = count * sum(picture.nbytes for picture in jax.tree.leaves(pictures))
    _check_room(count, needed)
    logging.info("Putting %d images (%.2f GB) on each device.", count, needed / 1e9)
    whole = jax.tree.map(lambda picture: np.empty((count, *picture.shape), picture.dtype), pictures)
    for index, place in places.items():
        example = split[place]
        whole["image"][index] = example["image"]
        for name, pictures_of_input in whole["inputs"].items():
            pictures_of_input[index] = example["inputs"][name]
    return whole


def _check_room(count: int, needed: int) -> None:
    for device in jax.local_devices():
        memory = device.memory_stats() or {}  # None on the CPU
        free = memory.get("bytes_limit", float("inf")) - memory.get("bytes_in_use", 0)
        if needed > free:
            raise BoneAgeError(
                f"the {count} images of the split take {needed / 1e9:.2f} GB, and {device} has "
                f"{free / 1e9:.2f} GB free: use data.placement=host, or a smaller preprocess.size"
            )
