"""Compares our data pipeline with other libraries, alternately on one core and on the same files.

    pip install -e . -r benchmarks/requirements.txt
    python -m benchmarks.pipelines

Every contestant turns radiographs of 299 pixels (procedural hands, JPEG) into batches of 32 float images, flipped,
rotated, shifted and zoomed at random:

- ours: as in training with `launch.py`. Decoding and CLAHE are done once, before the first epoch, and kept as bytes;
  that time is reported separately.
- albumentations: decoding, CLAHE, affine, contrast and normalisation of every image, in PyTorch's DataLoader.
- keras: `ImageDataGenerator` over images in memory, without decoding and CLAHE.
- opencv: decoding, CLAHE, one warp and normalisation, as bare calls: the minimum cost of decoding every time.
"""

import argparse
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks import record
from boneage_jax.atomic_files import write_text

SIZE, BATCH = 299, 32
ROTATION, SHIFT, ZOOM = 20.0, 0.1, 0.1
Stream = Iterator[np.ndarray]  # of float32 batches


def write_images(folder: Path, count: int) -> list[Path]:
    """Writes procedural hands as the image files and labels of the training set."""
    from boneage_jax.data import phantom

    ages, sexes = phantom.sample_children(count, seed=0)
    paths, rows = [], ["id,boneage,male"]
    (folder / "boneage-training-dataset").mkdir()
    for number, (age, sex) in enumerate(zip(ages, sexes, strict=True), start=1377):
        image = phantom.render(age, sex, size=SIZE, seed=number).image
        paths.append(folder / "boneage-training-dataset" / f"{number}.jpg")
        cv2.imwrite(str(paths[-1]), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
        rows.append(f"{number},{max(1, round(float(age)))},{bool(sex)}")
    (folder / "boneage-training-dataset.csv").write_text("\n".join(rows) + "\n")
    return paths


def decoded(path: Path) -> np.ndarray:
    """The intensities of an image file, uint8 [H, W]."""
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert image is not None, path
    return image


def ours(paths: list[Path]) -> Stream:
    """The pipeline of `launch.py` in threads of this process, then the scaling, compiled as in the training step."""
    import jax

    from boneage_jax import data
    from boneage_jax.data import pipeline
    from boneage_jax.data.augment import Augmentation
    from boneage_jax.data.stream import TrainingBatching

    folder = paths[0].parents[1]
    preprocessing = data.Preprocessing(size=SIZE)
    split = data.load("rsna_bone_age", folder, preprocessing, cache=folder / "cache")["train"]
    scale = jax.jit(preprocessing.scale)
    augmentation = Augmentation(0.5, ROTATION, SHIFT, ZOOM, brightness=0.1, contrast=0.1)
    batching = TrainingBatching(batch_size=BATCH, seed=0, augmentation=augmentation)
    for batch in pipeline.train_batches(split, batching):
        yield np.asarray(scale(batch["image"]))


def albumentations(paths: list[Path]) -> Stream:
    """Albumentations in PyTorch's DataLoader, in this process."""
    import albumentations as library
    import torch

    torch.set_num_threads(1)
    changes = library.Compose(
        [
            library.CLAHE(clip_limit=(2, 2), tile_grid_size=(8, 8), p=1),
            library.HorizontalFlip(p=0.5),
            library.Affine(
                scale=(1 - ZOOM, 1 + ZOOM), translate_percent=(-SHIFT, SHIFT), rotate=(-ROTATION, ROTATION), p=1
            ),
            library.RandomBrightnessContrast(0.1, 0.1, p=1),
            library.Normalize(mean=(0.5,), std=(0.5,)),
        ]
    )

    class Files(torch.utils.data.Dataset):
        """Reads and augments one file after the other."""

        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, index: int) -> Any:
            image = decoded(paths[index])
            return torch.from_numpy(changes(image=image[..., None])["image"])

    loader = torch.utils.data.DataLoader(Files(), BATCH, shuffle=True, drop_last=True)
    while True:
        for batch in loader:
            yield batch.numpy()


def keras(paths: list[Path]) -> Stream:
    """Keras' ImageDataGenerator over images in memory."""
    os.environ["KERAS_BACKEND"] = "jax"
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    images = np.stack([decoded(path) for path in paths])[..., None]
    generator = ImageDataGenerator(
        rotation_range=ROTATION,
        width_shift_range=SHIFT,
        height_shift_range=SHIFT,
        zoom_range=ZOOM,
        horizontal_flip=True,
        rescale=1 / 127.5,
    )
    return iter(generator.flow(images, batch_size=BATCH, seed=0))


def opencv(paths: list[Path]) -> Stream:
    """Bare OpenCV calls for every image."""
    clahe, rng = cv2.createCLAHE(2.0, (8, 8)), np.random.default_rng(0)
    batch = np.empty((BATCH, SIZE, SIZE, 1), np.float32)
    endless = itertools.cycle(paths)
    while True:
        for place, path in enumerate(itertools.islice(endless, BATCH)):
            image = clahe.apply(decoded(path))
            angle, scale = rng.uniform(-ROTATION, ROTATION), rng.uniform(1 - ZOOM, 1 + ZOOM)
            matrix = np.asarray(cv2.getRotationMatrix2D((SIZE / 2, SIZE / 2), angle, scale), np.float64)
            matrix[:, 2] += rng.uniform(-SHIFT, SHIFT, 2) * SIZE
            warped = cv2.warpAffine(image, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR)
            batch[place, ..., 0] = warped if rng.random() < 0.5 else warped[:, ::-1]
        yield batch / 127.5 - 1


CONTESTANTS: dict[str, Callable[[list[Path]], Stream]] = {
    "ours": ours,
    "albumentations": albumentations,
    "keras": keras,
    "opencv": opencv,
}


def started(paths: list[Path]) -> tuple[dict[str, Stream], dict[str, float]]:
    """Streams of the contestants that are installed, and the seconds until the first batch of each."""
    streams, first = {}, {}
    for name, make in CONTESTANTS.items():
        try:
            start = time.perf_counter()
            stream = make(paths)
            next(stream)
        except ImportError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
        else:
            streams[name], first[name] = stream, time.perf_counter() - start
    return streams, first


def rate(stream: Stream, seconds: float) -> float:
    """Images per second, measured over at least `seconds`."""
    start, images = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < seconds:
        images += len(next(stream))
    return images / passed


def main() -> None:
    """Measures the contestants that are installed, in turns."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each contestant in each round")
    parser.add_argument("--out", type=Path, default=record.RESULTS / "pipelines.json")
    flags = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_images(Path(folder), flags.images)
        streams, first = started(paths)
        rates: dict[str, list[float]] = {name: [] for name in streams}
        for _ in range(flags.rounds):
            for name, stream in streams.items():
                rates[name].append(rate(stream, flags.seconds))
    lines = ["| pipeline, one core | images/s | ours is faster by | first batch, s |", "|---|---|---|---|"]
    for name, found in rates.items():
        ratios = [mine / theirs for mine, theirs in zip(rates["ours"], found, strict=True)]
        spread = "" if name == "ours" else f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        lines.append(f"| {name} | {statistics.median(found):,.0f} | {spread} | {first[name]:.1f} |")
    result = {"images_per_second": rates, "first_batch_seconds": first}
    record.write(flags.out, result, peers=("albumentations", "torch", "keras"))
    write_text(flags.out.with_suffix(".md"), "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
