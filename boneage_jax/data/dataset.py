"""Datasets by name: built on first use, then random access to prepared images, and labels without images."""

import functools
import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from boneage_jax.data import phantom, rsna
from boneage_jax.data.preprocess import Preprocessing
from boneage_jax.data.radiograph import FEMALE, MALE, decode
from boneage_jax.data.splits import hospital
from boneage_jax.errors import BoneAgeError

_PHANTOM_SPLITS = ("train", "validation", "test")
PHANTOM_COUNT = {"train": 2000, "validation": 400}


class Split:
    """Random access to one split of a built dataset. Pickles as a path: each worker process opens it anew.

    Attributes:
      name: "train", "validation" or "test".
      ids: one per image, in the order of the records.
      sex: int32 `[N]`, FEMALE or MALE.
      age: float32 `[N]`, bone age in months.
      hospital: "Stanford" or "Colorado" for RSNA, "" where it is unknown.
    """

    def __init__(self, folder: str | pathlib.Path, name: str):
        from boneage_jax.data import builder

        rows = builder.read_labels(pathlib.Path(folder), name)
        self.name = name
        self.ids = [row["id"] for row in rows]
        self.sex = np.array([row["sex"] for row in rows], np.int32)
        self.age = np.array([row["age"] for row in rows], np.float32)
        self.hospital = [row["hospital"] for row in rows]
        self._folder = str(folder)
        self._records: Any = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns {"image": uint8 `[S, S, C]`, "sex": int32, "age": float32, "index": int32}."""
        if self._records is None:
            from boneage_jax.data import builder

            self._records = builder.open_records(pathlib.Path(self._folder), self.name)
        return {
            "image": self._records[index]["image"],
            "sex": self.sex[index],
            "age": self.age[index],
            "index": np.int32(index),
        }

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_records": None}

    def __repr__(self) -> str:
        return f"Split({self.name!r}, {len(self)} images, {self._folder!r})"


def load(
    name: str,
    directory: str | pathlib.Path | None,
    preprocessing: Preprocessing,
    *,
    cache: str | pathlib.Path,
    **options: Any,
) -> dict[str, Split]:
    """Opens a dataset, building it in `cache` if this source and this preprocessing are not there yet.

    Args:
      name: "rsna_bone_age" or "phantom".
      directory: the folder with the RSNA files; the phantom needs none.
      preprocessing: how images are prepared; `scaling` may change without a new build.
      cache: the folder for built datasets.
      **options: of RSNA, `on_missing` ("error" or "skip"); of the phantom, `count` (images by split) and
        `seed`.

    Returns:
      The splits by name; "train" and "validation" always, "test" if found or asked for.

    Raises:
      BoneAgeError: an unknown name, or a source that cannot be read.
    """
    if name not in _SOURCES:
        raise BoneAgeError(f"There is no dataset {name!r}; data.name must be one of {', '.join(_SOURCES)}.")
    builder_name, source, allowed = _SOURCES[name]
    if unknown := sorted(set(options) - set(allowed)):
        raise BoneAgeError(f"{name} has no option {', '.join(unknown)}; it has {', '.join(allowed)}.")
    from boneage_jax.data import builder  # TFDS takes about a second to import.

    examples, manifest = source(directory, preprocessing, **options)
    size, channels = preprocessing.size, preprocessing.channels
    digest = hashlib.sha256(json.dumps([_fingerprint(preprocessing), manifest]).encode()).hexdigest()
    folder = getattr(builder, builder_name)(
        examples=examples,
        shape=(size, size, channels),
        data_dir=str(pathlib.Path(cache).expanduser() / f"{name}-{size}px-{digest[:12]}"),
    ).build()
    return {split: Split(folder, split) for split in examples}


def label_statistics(split: Split) -> tuple[float, float]:
    """Mean and standard deviation (divisor n) of the bone ages of a split, in months."""
    return float(split.age.mean(dtype=np.float64)), float(split.age.std(dtype=np.float64))


def _rsna(directory: Any, preprocessing: Preprocessing, on_missing: str = "error") -> tuple[dict, list]:
    from boneage_jax.data.builder import Example

    if directory is None:
        raise BoneAgeError("data.dir is not set; name the folder that holds the RSNA bone-age files.")

    def prepare(file: Any) -> np.ndarray:
        return preprocessing.prepare(decode(file.read(), file.name))

    found = rsna.find(directory, on_missing)
    examples = {
        split: [Example(i.id, i.sex, i.age, hospital(i.id), functools.partial(prepare, i.file)) for i in images]
        for split, images in found.items()
    }
    manifest = [
        [split, i.id, i.sex, i.age, i.file.name, i.file.size] for split, images in found.items() for i in images
    ]
    return examples, manifest


def _phantom(
    directory: Any, preprocessing: Preprocessing, count: Mapping[str, int] | None = None, seed: int = 0
) -> tuple[dict, list]:
    """Draws every image larger than needed, so that it goes through the same path as a radiograph."""
    from boneage_jax.data.builder import Example

    del directory
    count = dict(PHANTOM_COUNT if count is None else count)
    if unknown := sorted(set(count) - set(_PHANTOM_SPLITS)):
        raise BoneAgeError(f"The phantom has no split {', '.join(unknown)}; only {', '.join(_PHANTOM_SPLITS)}.")
    if not {"train", "validation"} <= set(count) or min(count.values()) < 1:
        raise BoneAgeError(f"The phantom needs at least one training and one validation image, not {count}.")

    def prepare(age: float, sex: int, image_seed: int) -> np.ndarray:
        return preprocessing.prepare(phantom.render(age, sex, size=preprocessing.size, seed=image_seed).image)

    examples: dict[str, Sequence[Example]] = {}
    for number, split in enumerate(_PHANTOM_SPLITS):
        if split in count:
            children, *images = _seeds(seed, number, count[split] + 1)
            ages, sexes = phantom.sample_children(count[split], children)
            examples[split] = [
                Example(f"{split}-{i}", int(s), float(a), "", functools.partial(prepare, float(a), int(s), k))
                for i, (a, s, k) in enumerate(zip(ages, sexes, images, strict=True))
            ]
    drawn = [phantom.render(age, sex, size=64, seed=0).image for age, sex in ((60, FEMALE), (168, MALE))]
    return examples, [count, seed, hashlib.sha256(np.stack(drawn).tobytes()).hexdigest()]


def _seeds(seed: int, split: int, count: int) -> list[int]:
    """Independent seeds for the images of a split: no two splits share a child."""
    return [int(s) for s in np.random.SeedSequence([seed, split]).generate_state(count, np.uint64) >> 1]


def _fingerprint(preprocessing: Preprocessing) -> list:
    """What the cached pixels depend on: the settings, and what `prepare` makes of a test image."""
    fields = {key: value for key, value in preprocessing.to_dict().items() if key != "scaling"}
    test_image = np.random.default_rng(0).integers(0, 256, (64, 48)).astype(np.uint8)
    return [fields, hashlib.sha256(preprocessing.prepare(test_image).tobytes()).hexdigest()]


_SOURCES: dict[str, tuple[str, Callable[..., tuple[dict, list]], tuple[str, ...]]] = {
    "rsna_bone_age": ("RsnaBoneAge", _rsna, ("on_missing",)),
    "phantom": ("PhantomBoneAge", _phantom, ("count", "seed")),
}
