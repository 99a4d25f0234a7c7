import itertools
import multiprocessing
import os
import signal

import jax
import numpy as np
import pytest

from boneage_jax.data.augment import Augmentation
from boneage_jax.data.pipeline import evaluation_batches, steps_per_epoch, train_batches
from boneage_jax.data.stream import Batching, TrainingBatching
from boneage_jax.errors import BoneAgeError

AUGMENTATION = Augmentation(flip=0.5, rotation=20.0, shift=0.1, zoom=0.2, brightness=0.1, contrast=0.1)


class FakeSplit:
    """Images generated from their index; one may be unreadable. The heat map is the image's first channel."""

    def __init__(self, count, size=12, channels=1, unreadable=None, further=False):
        self.count, self.size, self.channels, self.unreadable = count, size, channels, unreadable
        self.further = further

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index == self.unreadable:
            raise BoneAgeError(f"Image {index} cannot be read")
        assert 0 <= index < self.count
        shape = (self.size, self.size, self.channels)
        image = np.random.default_rng(index).integers(0, 256, shape, dtype=np.uint8)
        inputs = {"weight": np.float32(index / 2), "ward": np.int32(index % 3), "points": image[..., :1]}
        return {
            "image": image,
            "sex": np.int32(index % 2),
            "age": np.float32(10 + index),
            "inputs": inputs if self.further else {},
            "index": np.int32(index),
        }


def train(split, count, **options):
    options = {"batch_size": 8, "seed": 3, "augmentation": AUGMENTATION, **options}
    with train_batches(split, TrainingBatching(**options)) as batches:
        return list(itertools.islice(batches, count))


def evaluate(split, **options):
    with evaluation_batches(split, Batching(**options)) as batches:
        return list(batches)


def assert_same(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b)


def joined(streams):
    """Concatenates the local batches of several processes."""
    return [jax.tree.map(lambda *parts: np.concatenate(parts), *parts) for parts in zip(*streams, strict=True)]


def test_a_training_batch_has_the_documented_arrays():
    (batch,) = train(FakeSplit(20, channels=3), 1)
    assert batch.pop("inputs") == {}
    assert {key: (value.shape, value.dtype.name) for key, value in batch.items()} == {
        "image": ((8, 12, 12, 3), "uint8"),
        "sex": ((8,), "int32"),
        "age": ((8,), "float32"),
        "index": ((8,), "int32"),
        "mask": ((8,), "bool"),
    }
    assert batch["mask"].all()
    np.testing.assert_array_equal(batch["sex"], batch["index"] % 2)
    np.testing.assert_array_equal(batch["age"], 10 + batch["index"])


def test_further_inputs_are_batched_by_name_in_image_order():
    (batch,) = train(FakeSplit(20, further=True), 1)
    index, inputs = batch["index"], batch["inputs"]
    assert {name: (values.shape, values.dtype.name) for name, values in inputs.items()} == {
        "weight": ((8,), "float32"),
        "ward": ((8,), "int32"),
        "points": ((8, 12, 12, 1), "uint8"),
    }
    np.testing.assert_array_equal(inputs["weight"], index / 2)
    np.testing.assert_array_equal(inputs["ward"], index % 3)


def test_a_heat_map_is_warped_with_its_image_but_not_recoloured():
    split = FakeSplit(20, further=True)
    moving = Augmentation(flip=0.5, rotation=20.0, shift=0.1, zoom=0.2)
    for crop in (0, 7):
        (batch,) = train(split, 1, augmentation=moving, crop=crop)
        np.testing.assert_array_equal(batch["inputs"]["points"], batch["image"])
        (recoloured,) = train(split, 1, augmentation=AUGMENTATION, crop=crop)
        np.testing.assert_array_equal(recoloured["inputs"]["points"], batch["image"])
        assert (recoloured["image"] != batch["image"]).any()


@pytest.mark.parametrize("augmentation", [Augmentation(), AUGMENTATION])
def test_random_crops_vary_and_are_determined_by_the_seed(augmentation):
    split = FakeSplit(20)
    batches = train(split, 2, augmentation=augmentation, crop=5)
    assert batches[0]["image"].shape == (8, 5, 5, 1)
    assert_same(batches, train(split, 2, augmentation=augmentation, crop=5))
    assert_same(batches[1:], train(split, 1, augmentation=augmentation, crop=5, start_step=1))
    places = set()
    for image, index in zip(batches[0]["image"], batches[0]["index"].tolist(), strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(split[index]["image"], (5, 5, 1)).reshape(8, 8, 5, 5, 1)
        places |= {tuple(place) for place in np.argwhere((windows == image).all(axis=(2, 3, 4))).tolist()}
    assert len(places) > 4 if augmentation == Augmentation() else not places


def test_a_crop_larger_than_the_images_is_rejected():
    with pytest.raises(BoneAgeError, match=r"crop is 13 pixels, expected 0 to the image's 12"):
        train(FakeSplit(20), 1, crop=13)


def test_without_augmentation_images_are_unchanged():
    split = FakeSplit(20)
    (batch,) = train(split, 1, augmentation=Augmentation())
    for image, index in zip(batch["image"], batch["index"].tolist(), strict=True):
        np.testing.assert_array_equal(image, split[index]["image"])


def test_epochs_are_distinct_permutations_and_batches_may_span_them():
    order = np.concatenate([batch["index"] for batch in train(FakeSplit(20), 10)])
    epochs = order.reshape(4, 20)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(20), (4, 1)))
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 4


def test_an_image_looks_different_in_every_epoch():
    batches = train(FakeSplit(8), 2)
    first, second = (batch["image"][np.argsort(batch["index"])] for batch in batches)
    assert all((a != b).any() for a, b in zip(first, second, strict=True))


def test_order_and_augmentation_are_reproducible_from_the_seed():
    split = FakeSplit(20)
    assert_same(train(split, 3), train(split, 3))
    other = train(split, 3, seed=4)
    assert any((a["index"] != b["index"]).any() for a, b in zip(train(split, 3), other, strict=True))
    # One batch holds all eight images, so each image can be compared with itself under the other seed.
    first, second = (train(FakeSplit(8), 1, seed=seed)[0] for seed in (3, 4))
    views = (batch["image"][np.argsort(batch["index"])] for batch in (first, second))
    assert all((a != b).any() for a, b in zip(*views, strict=True))


def test_augmentation_does_not_depend_on_the_batch_size():
    small, large = train(FakeSplit(20), 6, batch_size=4), train(FakeSplit(20), 3, batch_size=8)
    for key in ("index", "image"):
        np.testing.assert_array_equal(
            np.concatenate([batch[key] for batch in small]), np.concatenate([batch[key] for batch in large])
        )


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers_gives_the_same_batches(workers):
    split = FakeSplit(20, further=True)
    assert_same(train(split, 7, start_step=1, crop=8), train(split, 7, start_step=1, crop=8, workers=workers))
    assert_same(evaluate(split, batch_size=8), evaluate(split, batch_size=8, workers=workers))


@pytest.mark.parametrize("process_count", [2, 4])
def test_processes_split_each_global_batch(process_count):
    split = FakeSplit(22)
    parts = [
        train(split, 6, start_step=1, process_index=index, process_count=process_count)
        for index in range(process_count)
    ]
    assert_same(joined(parts), train(split, 6, start_step=1))


@pytest.mark.parametrize("start", [1, 2, 5, 9])
def test_resuming_at_a_step_continues_the_exact_stream(start):
    split = FakeSplit(20)
    assert_same(train(split, 12 - start, start_step=start), train(split, 12)[start:])


def test_training_can_start_at_a_very_large_step():
    split, start = FakeSplit(20), 10**9
    batches = train(split, 5, start_step=start)
    epochs = np.concatenate([batch["index"] for batch in batches]).reshape(2, 20)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(20), (2, 1)))
    assert (epochs[0] != epochs[1]).any()
    assert_same(batches[1:], train(split, 4, start_step=start + 1))
    assert (batches[0]["image"] != train(split, 1)[0]["image"]).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("count", [1, 7, 8, 9, 16])
@pytest.mark.parametrize("process_count", [1, 2])
def test_evaluation_sees_every_image_once_in_order(count, process_count):
    split = FakeSplit(count)
    parts = [
        evaluate(split, batch_size=8, process_index=index, process_count=process_count)
        for index in range(process_count)
    ]
    assert {batch["image"].shape for part in parts for batch in part} == {(8 // process_count, 12, 12, 1)}
    batches = joined(parts)
    assert len(batches) == -(-count // 8)
    whole = jax.tree.map(lambda *parts: np.concatenate(parts), *batches)
    np.testing.assert_array_equal(whole["mask"], np.arange(len(whole["mask"])) < count)
    np.testing.assert_array_equal(whole["index"][:count], np.arange(count))
    assert (whole["index"][count:] == -1).all()
    assert not whole["image"][count:].any()
    for index in range(count):
        np.testing.assert_array_equal(whole["image"][index], split[index]["image"])


def test_evaluation_pads_further_inputs_with_zeros():
    split = FakeSplit(5, further=True)
    inputs = joined([evaluate(split, batch_size=4)[1:]])[0]["inputs"]
    assert {name: values.dtype.name for name, values in inputs.items()} == {
        "weight": "float32",
        "ward": "int32",
        "points": "uint8",
    }
    np.testing.assert_array_equal(inputs["weight"], [2, 0, 0, 0])
    np.testing.assert_array_equal(inputs["ward"], [1, 0, 0, 0])
    np.testing.assert_array_equal(inputs["points"][0], split[4]["image"])
    assert not inputs["points"][1:].any()


@pytest.mark.parametrize("batch_size", [1, 8])
def test_modifying_a_training_batch_does_not_change_the_split(batch_size):
    shared = FakeSplit(8, further=True)[0]

    class Cached(FakeSplit):
        def __getitem__(self, index):
            return shared

    before = shared["image"].copy()
    # Without augmentation, the batch is made from the arrays of the split themselves.
    (batch,) = train(Cached(8), 1, batch_size=batch_size, augmentation=Augmentation())
    for image in (batch["image"], batch["inputs"]["points"]):
        image[...] = 0
    np.testing.assert_array_equal(shared["image"], before)
    np.testing.assert_array_equal(shared["inputs"]["points"], before)


def test_steps_per_epoch_counts_whole_batches():
    assert steps_per_epoch(FakeSplit(20), 8) == 2
    assert steps_per_epoch(FakeSplit(16), 8) == 2


def test_two_workers_give_the_same_batches_and_stop_when_closed():
    split = FakeSplit(20, further=True)
    batching = TrainingBatching(batch_size=8, seed=3, augmentation=AUGMENTATION, workers=2)
    batches = train_batches(split, batching)
    assert_same(list(itertools.islice(batches, 5)), train(split, 5))
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    batches.close()
    batches.close()
    assert not any(worker.is_alive() for worker in workers)
    with pytest.raises(ValueError, match="closed"):
        next(batches)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX signals")
def test_workers_ignore_sigint_and_sigterm_until_the_parent_stops_them():
    split = FakeSplit(40)
    batching = TrainingBatching(batch_size=8, seed=3, augmentation=AUGMENTATION, workers=1)
    with train_batches(split, batching) as batches:
        expected = [next(batches) for _ in range(2)]
        (worker,) = multiprocessing.active_children()
        assert worker.pid is not None
        for number in (signal.SIGINT, signal.SIGTERM):  # terminals and schedulers signal the whole process group
            os.kill(worker.pid, number)
        found = [next(batches) for _ in range(20)]
        assert worker.is_alive()
    assert_same(expected + found, train(split, 22))
    assert not worker.is_alive()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_raises_the_error_of_the_split(workers):
    with pytest.raises(BoneAgeError, match="Image 5 cannot be read"):
        evaluate(FakeSplit(8, unreadable=5), batch_size=4, workers=workers)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 21}, "20 images, fewer than one batch of 21"),
        ({"batch_size": 0}, "batch size must be 1 or more"),
        ({"process_count": 3}, "8 cannot be divided evenly among 3 processes"),
        ({"process_count": 2, "process_index": 2}, "Process index 2 is out of range for 2 processes"),
        ({"workers": -1}, "workers must be 0 or more"),
        ({"start_step": -1}, "must be 0 or more"),
        ({"seed": 2**32}, "seed of the training data"),
    ],
)
def test_invalid_batching_values_are_rejected(options, message):
    with pytest.raises(BoneAgeError, match=message):
        train(FakeSplit(20), 1, **options)


def test_an_empty_split_cannot_be_evaluated():
    with pytest.raises(BoneAgeError, match="has no images"):
        evaluate(FakeSplit(0), batch_size=8)
