"""Images held on the device match the host pipeline: same order, same views."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boneage_jax.data import Repeated
from boneage_jax.data.augment import Augmentation, View, apply
from boneage_jax.data.stream import Batching, TrainingBatching
from boneage_jax.errors import BoneAgeError
from boneage_jax.train import loop, parallel, placement, resident
from boneage_jax.train.evaluation import evaluate_checkpoint
from boneage_jax.train.experiment import load_data
from tests.train.runs import assert_same_to_the_bit, newest
from tests.train.test_loop import InterruptedRunError, interrupted_at

ALL = Augmentation(flip=0.5, rotation=20.0, shift=0.1, zoom=0.2, brightness=0.1, contrast=0.3, sharpness=1.0)


def picture(size, channels=1, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (size, size, channels), dtype=np.uint8)


def on_device(image, view):
    size = image.shape[0]
    source = jnp.asarray(view.source(size)[None], jnp.float32)
    warped = resident.warp(jnp.asarray(image)[None], source, view.crop or size)
    sharp = resident.sharpen(warped, jnp.asarray(view.kernel())[None])
    return np.asarray(resident.recolour(sharp, jnp.asarray(view.table())[None]))[0]


@pytest.mark.parametrize(
    "view",
    [
        View(),
        View(flip=True),
        View(shift=(3.0, -7.0)),
        View(crop=8, corner=(2, 5)),
        View(sharpness=-1.0),
        View(sharpness=39 / 64),
        View(gain=1.3, offset=-20.0),
    ],
    ids=["nothing", "flip", "shift", "crop", "blur", "sharpen", "intensities"],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_views_without_interpolation_are_exact(view, channels):
    image = picture(21, channels)
    np.testing.assert_array_equal(on_device(image, view), apply(image, view))


@pytest.mark.parametrize(("channels", "crop"), [(1, 0), (3, 24)])
def test_the_warp_differs_from_the_host_by_one_level_in_few_pixels(channels, crop):
    size, count = 32, 64
    images = np.stack([picture(size, channels, seed) for seed in range(count)])  # noise has the steepest gradients
    views = ALL.sample_batch(seed=5, number=3, count=count, size=size, crop=crop)
    source = jnp.asarray(np.stack([view.source(size) for view in views]), jnp.float32)
    warped = resident.warp(jnp.asarray(images), source, crop or size)
    host = np.stack([apply(image, view.geometry()) for image, view in zip(images, views, strict=True)])

    difference = np.abs(np.asarray(warped).astype(int) - host)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.001
    coloured = resident.recolour(jnp.asarray(host), jnp.asarray(np.stack([view.table() for view in views])))
    views = [dataclasses.replace(view, sharpness=0.0) for view in views]
    host = np.stack([apply(image, view) for image, view in zip(images, views, strict=True)])
    np.testing.assert_array_equal(coloured, host)


class Pictures:
    """A split of noise images, each with a number and a map as further inputs."""

    name = "train"

    def __init__(self, count, size=24):
        self.count, self.size = count, size

    def __len__(self):
        return self.count

    def labels(self, index):
        inputs = {"weight": np.float32(index / 2)}
        return {"sex": np.int32(index % 2), "age": np.float32(index), "inputs": inputs, "index": np.int32(index)}

    def __getitem__(self, index):
        known = self.labels(index)
        known["inputs"]["points"] = picture(self.size, 1, 100 + index)
        return {"image": picture(self.size, 3, index), **known}


def seen(source, batches, side):
    """The batches as the network sees them, on four devices."""
    on_devices = jax.pmap(lambda batch: {**resident.view(batch, side), "resident": 0})
    return [jax.tree.map(np.asarray, on_devices(source.lay_out(batch))) for batch in batches]


def assert_same_but_for_roundings(device, host):
    """Labels are equal bit for bit; images differ by at most two intensity levels in few pixels."""
    for name in ("index", "mask", "sex", "age"):
        np.testing.assert_array_equal(device[name], host[name])
    np.testing.assert_array_equal(device["inputs"]["weight"], host["inputs"]["weight"])
    for a, b in ((device["image"], host["image"]), (device["inputs"]["points"], host["inputs"]["points"])):
        assert a.shape == b.shape
        assert a.dtype == b.dtype == np.uint8
        difference = np.abs(a.astype(int) - b)
        assert difference.max() <= 2
        assert (difference > 0).mean() < 0.001


@pytest.mark.parametrize("crop", [0, 16])
def test_device_placement_trains_on_the_same_images_in_the_same_order(crop):
    batching = TrainingBatching(batch_size=8, seed=3, augmentation=ALL, crop=crop, start_step=2)
    sources = [placement.create(where, Pictures(20)) for where in ("host", "device")]
    host, device = (seen(source, itertools.islice(source.train_batches(batching), 3), crop or 24) for source in sources)

    assert device[0]["image"].shape == (4, 2, crop or 24, crop or 24, 3)
    for a, b in zip(device, host, strict=True):
        assert_same_but_for_roundings(a, b)
    assert len(np.unique([batch["index"] for batch in host])) > 8


def test_device_placement_evaluates_identical_images_and_padding():
    sources = [placement.create(where, Pictures(10)) for where in ("host", "device")]
    host, device = (seen(source, source.evaluation_batches(Batching(batch_size=8)), 24) for source in sources)

    assert len(host) == 2
    assert not host[1]["mask"].all()
    jax.tree.map(np.testing.assert_array_equal, device, host)


def test_each_device_holds_all_images_once():
    kept = parallel.keep({"image": picture(5, 1)})["image"]

    assert kept.shape == (4, 5, 5, 1)
    assert {(shard.device, shard.data.shape) for shard in kept.addressable_shards} == {
        (device, (1, 5, 5, 1)) for device in jax.devices()
    }


def test_images_that_an_epoch_repeats_are_held_once(config):
    split = load_data(config)["train"]
    split.hospital = ["Stanford"] * 8 + ["Colorado"] * 16
    repeated = Repeated(split, "Stanford", 3)
    batching = TrainingBatching(batch_size=8, seed=3, augmentation=Augmentation())
    sources = [placement.create(where, repeated) for where in ("host", "device")]
    host, device = (seen(source, itertools.islice(source.train_batches(batching), 5), 32) for source in sources)

    assert placement._read(repeated)["image"].shape == (24, 32, 32, 1)
    assert sum(batch["index"].size for batch in host) == len(repeated) == 40
    for a, b in zip(device, host, strict=True):
        for name in ("index", "image"):
            np.testing.assert_array_equal(a[name], b[name])


def test_an_unknown_placement_is_refused(config):
    with pytest.raises(BoneAgeError, match=r"data.placement is 'disk', expected one of host, device"):
        placement.create("disk", Pictures(8))


def test_too_little_device_memory_is_refused_before_it_overflows(monkeypatch):
    class Small:
        def memory_stats(self):
            return {"bytes_limit": 10_000, "bytes_in_use": 4_000}

        def __str__(self):
            return "gpu:0"

    monkeypatch.setattr(jax, "local_devices", lambda: [Small()])
    with pytest.raises(BoneAgeError, match=r"8 images .* gpu:0 has 0.00 GB free: use data.placement=host"):
        placement.create("device", Pictures(8))


@pytest.fixture
def on_device_config(config):
    config.data.placement = "device"
    return config


@pytest.mark.slow
def test_a_run_with_device_placement_resumes_bit_for_bit(on_device_config, tmp_path, monkeypatch):
    config = on_device_config
    whole = loop.train_and_evaluate(config, tmp_path / "whole")
    config.train.checkpoint_every = 2
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_batches", interrupted_at(5))
        with pytest.raises(InterruptedRunError):
            loop.train_and_evaluate(config, tmp_path / "broken")

    assert loop.train_and_evaluate(config, tmp_path / "broken") == whole
    assert_same_to_the_bit(newest(tmp_path / "broken"), newest(tmp_path / "whole"))
    config.data.placement = "host"
    assert evaluate_checkpoint(tmp_path / "whole", config) == whole
