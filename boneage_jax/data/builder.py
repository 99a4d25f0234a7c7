"""TFDS builders that cache prepared radiographs in ArrayRecord files, without TensorFlow.

Images are stored as raw bytes, which ArrayRecord compresses: reading an image of 299 pixels takes 0.1 ms, while
decoding it from PNG takes 0.8 ms. Records are written in order as they are prepared: TFDS's shuffling builder
would hold a split in memory and, beyond 1 GB (500 pixels), need TensorFlow.
"""

import contextlib
import csv
import dataclasses
import functools
import math
import os
import pathlib
import shutil
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from array_record.python.array_record_module import ArrayRecordReader
from tqdm import tqdm

from boneage_jax import cache, cores, locks
from boneage_jax.atomic_files import is_disk_full
from boneage_jax.data import checksums
from boneage_jax.errors import BoneAgeError

LABELS_FILE = "labels-{split}.csv"
_CHUNK = 128  # Prepared images in flight; more would only use memory if writing is slower than preparing.
_SHARD_BYTES = 256 * 2**20  # Before compression.


@dataclasses.dataclass(frozen=True)
class Example:
    """A radiograph that has yet to be prepared.

    `prepare()` returns its record, a dict of arrays such as {"image": uint8 `[size, size, channels]`}. `inputs` are
    the further inputs: numbers, and names of categories.
    """

    id: str
    sex: int
    age: float
    hospital: str
    prepare: Callable[[], dict[str, np.ndarray]]
    inputs: Mapping[str, float | str] = dataclasses.field(default_factory=dict)


class RadiographBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Caches prepared radiographs; records keep the order of the examples. Subclasses name the dataset.

    Each split has a table of ids and labels beside its records, so that labels can be read without images.
    """

    VERSION = tfds.core.Version("1.1.0")

    def __init__(
        self, *, examples: Mapping[str, Sequence[Example]], shapes: Mapping[str, tuple[int, int, int]], **kwargs: Any
    ):
        """Raises BoneAgeError if the dataset exists but is damaged."""
        self._examples = examples
        self._shapes = shapes
        built = pathlib.Path(kwargs["data_dir"], self.name, str(self.VERSION))
        if os.path.isdir(built):  # TFDS would read a damaged description and raise an arbitrary exception
            checksums.verify(built)
        super().__init__(file_format="array_record", **kwargs)

    def _make_download_manager(self, download_dir: Any, download_config: Any) -> Any:
        """Replaces TFDS's download manager, which would leave an empty download folder in the cache."""
        del download_dir, download_config
        return types.SimpleNamespace(downloaded_size=0)

    def _log_download_bytes(self) -> None:
        """Says nothing: nothing is downloaded."""

    def _log_download_done(self) -> None:
        """Says nothing: nothing is downloaded."""

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Hand radiographs, prepared, with sex (0 female, 1 male) and bone age in months.",
            features=tfds.features.FeaturesDict(
                {
                    name: tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding="bytes")
                    for name, shape in self._shapes.items()
                }
            ),
            disable_shuffling=True,
        )

    def _shard_iterators_per_split(self, dl_manager: Any) -> dict[str, list[Callable[[], Iterator[Any]]]]:
        del dl_manager
        size = max(1, _SHARD_BYTES // self._record_bytes())
        shards: dict[str, list[Callable[[], Iterator[Any]]]] = {}
        for split, examples in self._examples.items():
            bar = functools.partial(tqdm, total=len(examples), desc=f"Preparing {split}", unit=" images")
            starts = range(0, len(examples), size)
            shards[split] = [functools.partial(_prepared, examples[i : i + size], bar, i) for i in starts]
        return shards

    def _download_and_prepare(self, dl_manager: Any, download_config: Any) -> None:
        """Runs inside TFDS's temporary folder, so that a failure leaves no dataset behind."""
        super()._download_and_prepare(dl_manager=dl_manager, download_config=download_config)
        folder = pathlib.Path(self.data_dir)
        for split, examples in self._examples.items():
            _write_labels(folder / LABELS_FILE.format(split=split), examples)
            _check_complete(folder, split, len(examples))
        self.info.write_to_directory(folder)  # TFDS also writes it, but only after the checksums
        checksums.write(folder)

    def build(self) -> pathlib.Path:
        """Builds the dataset unless it exists, and returns its folder.

        A second process waits for the first. A killed build leaves a temporary folder, which the next build removes.
        A new cache folder is accessible to the current user only.

        Raises:
          BoneAgeError: the disk is full, or the cache folder cannot be used.
        """
        folder = pathlib.Path(self.data_dir)
        try:
            if folder.is_dir():
                return folder
            cache.make_private(folder.parent)
            with locks.hold(folder.parent / ".lock", _announce_wait), _quiet():
                if not folder.is_dir():  # another process may have built it meanwhile
                    self._build(folder.parent)
        except BoneAgeError:
            raise
        except Exception as error:
            if is_disk_full(error):
                raise BoneAgeError(_full_disk(folder.parent)) from None
            if isinstance(error, OSError):
                raise BoneAgeError(
                    f"The cache folder {folder.parent} cannot be used ({error.strerror or error}); choose another one "
                    "(data.cache)"
                ) from None
            raise
        return folder

    def _build(self, folder: pathlib.Path) -> None:
        for leftover in folder.glob("*incomplete*"):
            shutil.rmtree(leftover)
        self._check_disk(folder)
        self.download_and_prepare()

    def _record_bytes(self) -> int:
        return sum(math.prod(shape) for shape in self._shapes.values())

    def _check_disk(self, folder: pathlib.Path) -> None:
        count = sum(len(examples) for examples in self._examples.values())
        if (needed := count * self._record_bytes()) > shutil.disk_usage(folder).free:
            raise BoneAgeError(f"{_full_disk(folder)}: the {count} images need up to {needed / 1e9:.1f} GB")


class RsnaBoneAge(RadiographBuilder, skip_registration=True):  # type: ignore[call-arg]
    """The RSNA Pediatric Bone Age data (Halabi et al., Radiology 2019; 290(2):498-503)."""

    name = "rsna_bone_age"


class PhantomBoneAge(RadiographBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Synthetic radiographs of imaginary children (`boneage_jax.data.phantom`)."""

    name = "phantom_bone_age"


def _prepared(
    examples: Sequence[Example], bar: "Callable[..., tqdm[Any]]", first: int
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Keys and records of one shard, in order; its progress bar continues from the previous shard."""
    last = first + len(examples)
    with ThreadPoolExecutor(cores.usable()) as pool:
        progress = bar(initial=first)
        progress.leave = last == progress.total
        with progress:
            for start in range(0, len(examples), _CHUNK):
                records = pool.map(lambda example: example.prepare(), examples[start : start + _CHUNK])
                with contextlib.closing(records):  # type: ignore[type-var]  # a stop need not wait for the chunk
                    for number, record in enumerate(records, first + start):
                        yield number, record
                        progress.update()


class Records(Sequence[dict[str, np.ndarray]]):
    """Random access to a split of a built dataset: items are the records that `Example.prepare` returned."""

    def __init__(self, folder: pathlib.Path, split: str):
        """Raises BoneAgeError if the dataset is damaged; so does reading a damaged record."""
        checksums.verify(folder)
        self._folder = folder
        self._source = tfds.builder_from_directory(str(folder)).as_data_source(split)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(f"record index {index} is out of range for {len(self)} records")
        try:
            return self._source[index]
        except (RuntimeError, OSError, ValueError) as error:  # ArrayRecord raises RuntimeError
            checksums.refuse(self._folder, str(error).partition("\n")[0][:200])


def read_labels(folder: pathlib.Path, split: str) -> list[dict[str, str]]:
    """The rows (id, sex, age, hospital, further inputs) of a split of a built dataset, in the order of its records.

    Raises:
      BoneAgeError: the dataset is damaged.
    """
    checksums.verify(folder)
    with open(folder / LABELS_FILE.format(split=split), newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _write_labels(path: pathlib.Path, examples: Sequence[Example]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "sex", "age", "hospital", *examples[0].inputs])
        writer.writerows([e.id, e.sex, repr(float(e.age)), e.hospital, *e.inputs.values()] for e in examples)


def _check_complete(folder: pathlib.Path, split: str, count: int) -> None:
    """Counts the records on disk: the writer does not report every failed write."""
    written = 0
    for path in folder.glob(f"*-{split}.array_record*"):
        reader = ArrayRecordReader(str(path))
        written += reader.num_records()
        reader.read([reader.num_records() - 1])
        reader.close()
    if written != count:
        raise BoneAgeError(f"{folder} holds {written} of {count} images of {split}; free disk space and run again")


def _announce_wait(holder: str) -> None:
    logging.warning("Waiting for %s, which is preparing the same images.", holder)


def _full_disk(folder: pathlib.Path) -> str:
    return f"The disk of the cache folder {folder} is full; free space or choose another folder (data.cache)"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Disables TFDS's progress bars, which ours replaces, and OpenCV's threads, which would compete with the pool."""
    threads = cv2.getNumThreads()
    tfds.disable_progress_bar()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
        tfds.enable_progress_bar()
