"""Loads datasets by name: built on first use, then random access to prepared images, or to labels alone."""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from boneage_jax.data import inputs as further
from boneage_jax.data.keypoints import POINTS, draw_heatmap
from boneage_jax.data.preprocess import Preprocessing
from boneage_jax.errors import BoneAgeError

_TEST_SHAPE = (64, 48)
_REDUCED = ((24, 16), (48, 39), (48, 42))
"""Sizes and sides of the copies for the test image of `_fingerprint`: averaged and blurred, only blurred, and just not
large enough to be blurred."""


class Split:
    """Random access to one split of a built dataset; pickled without open files, so each worker opens its own.

    Attributes:
      name: "train", "validation", "test" or "fold".
      ids: one per image, in the order of the records.
      sex: int32 `[N]`, see `Sex`.
      age: float32 `[N]`, bone age in months.
      hospital: "Stanford" or "Colorado" for RSNA, "" if unknown.
      inputs: further inputs by name: numbers as float32 `[N]`, and categories as int32 `[N]`, their index in the kind.
      heatmap: the name of the heat-map input, or None; the heat map is read together with the image.
    """

    def __init__(self, folder: str | pathlib.Path, name: str, kinds: Mapping[str, further.Kind] = {}):
        from boneage_jax.data import builder

        rows = builder.read_labels(pathlib.Path(folder), name)
        self.name = name
        self.ids = [row["id"] for row in rows]
        self.sex = np.array([row["sex"] for row in rows], np.int32)
        self.age = np.array([row["age"] for row in rows], np.float32)
        self.hospital = [row["hospital"] for row in rows]
        self.inputs = {key: _values(kind, [row[key] for row in rows]) for key, kind in further.columns(kinds).items()}
        self.heatmap = further.heatmap(kinds)
        self._folder = str(folder)
        self._records: Any = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns one image with its labels and further inputs.

        {"image": uint8 `[S, S, C]`, "sex": int32, "age": float32, "index": int32, "inputs": {name: float32, int32, or
        uint8 `[S, S, 1]` for a heat map}}; "inputs" is empty if none were requested.
        """
        if self._records is None:
            from boneage_jax.data import builder

            self._records = builder.Records(pathlib.Path(self._folder), self.name)
        record = self._records[index]
        known = self.labels(index)
        if self.heatmap:
            known["inputs"][self.heatmap] = record["heatmap"]
        return {"image": record["image"], **known}

    def labels(self, index: int) -> dict[str, Any]:
        """Returns the labels and inputs of one image without the image and its heat map; reads nothing from disk."""
        return {
            "sex": self.sex[index],
            "age": self.age[index],
            "inputs": {name: values[index] for name, values in self.inputs.items()},
            "index": np.int32(index),
        }

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_records": None}

    def __repr__(self) -> str:
        return f"Split({self.name!r}, {len(self)} images, {self._folder!r})"


class Repeated:
    """A training split that repeats the images of one hospital in each epoch, with different views each time.

    "index" remains the image's position in the original split.
    """

    def __init__(self, split: Split, hospital: str, copies: int):
        extra = [i for i, name in enumerate(split.hospital) if name == hospital] * (copies - 1)
        self._split = split
        self._images = [*range(len(split)), *extra]

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """See `Split.__getitem__`."""
        return self._split[self._images[index]]

    def labels(self, index: int) -> dict[str, Any]:
        """See `Split.labels`."""
        return self._split.labels(self._images[index])


def load(
    name: str,
    directory: str | pathlib.Path | None,
    preprocessing: Preprocessing,
    *,
    cache: str | pathlib.Path,
    inputs: Mapping[str, str | Sequence[str]] = {},
    limit: int = 0,
    **options: Any,
) -> dict[str, Split]:
    """Opens a dataset; builds it first if `cache` does not have it for this source and preprocessing.

    Args:
      name: "rsna_bone_age" or "phantom".
      directory: the folder with the RSNA files; the phantom needs none.
      preprocessing: how images are prepared; `scaling` and `crop` can change without a rebuild.
      cache: the folder for built datasets.
      inputs: inputs in addition to image and sex, by name: "number", the names of the categories, or "keypoints".
        RSNA reads numbers and categories from a column of that name in its label tables; the phantom has
        "chronological_age", in months.
      limit: images of each split, spread evenly over it, for a quick trial; 0 for all.
      **options: for RSNA, `on_missing` ("error" or "skip"), `keypoints` (the key-point file, for an input of that kind
        or preprocessing of region "joints") and `fold` ("K/N": the K-th of N folds moves from "train" to "fold");
        for the phantom, `count` (images by split), `seed` and `even` (fraction of the training children with uniformly
        distributed ages).

    Returns:
      The splits by name: always "train" and "validation", and "test" and "fold" if found or requested.

    Raises:
      BoneAgeError: an unknown name, a source that cannot be read, or an input that the source does not have.
    """
    from boneage_jax.data.sources import SOURCES  # TFDS takes about a second to import.

    if name not in SOURCES:
        raise BoneAgeError(f"There is no dataset {name!r}; data.name must be one of {', '.join(SOURCES)}")
    source = SOURCES[name]
    if unknown := sorted(set(options) - set(source.options)):
        raise BoneAgeError(f"{name} has no option {', '.join(unknown)}; its options are {', '.join(source.options)}")
    kinds = further.checked(inputs)
    examples, manifest = source.find(directory, preprocessing, kinds, **options)
    if kinds:
        manifest = [manifest, kinds, {split: [dict(e.inputs) for e in found] for split, found in examples.items()}]
    if limit:
        examples = {split: _spread(found, limit) for split, found in examples.items()}
        manifest = [manifest, limit]
    size = preprocessing.size
    shapes = {"image": (size, size, preprocessing.channels)}
    fingerprint = _fingerprint(preprocessing)
    if further.heatmap(kinds):
        shapes["heatmap"] = (size, size, 1)
        fingerprint.append(_digest(draw_heatmap(np.array([[20.0, 30.0]]), (64, 48), 16)))
    digest = hashlib.sha256(json.dumps([fingerprint, manifest]).encode()).hexdigest()
    folder = source.builder(
        examples=examples,
        shapes=shapes,
        data_dir=str(pathlib.Path(os.path.expanduser(cache)) / f"{name}-{size}px-{digest[:12]}"),
    ).build()
    return {split: Split(folder, split, kinds) for split in examples}


def label_statistics(split: Split) -> tuple[float, float]:
    """Mean and standard deviation (divisor n) of the bone ages of a split, in months."""
    return float(split.age.mean(dtype=np.float64)), float(split.age.std(dtype=np.float64))


def input_statistics(split: Split) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation (divisor n) of the numeric inputs of a split, by name."""
    return {
        name: (float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64)))
        for name, values in split.inputs.items()
        if values.dtype == np.float32
    }


def _spread(examples: Sequence[Any], limit: int) -> list[Any]:
    """At most `limit` examples, evenly spaced from the first to the last."""
    if limit < 0:
        raise BoneAgeError(f"data.limit is {limit}, expected a number of images, or 0 for all")
    places = np.linspace(0, len(examples) - 1, min(limit, len(examples)))
    return [examples[i] for i in places.round().astype(int)]


def _values(kind: further.Kind, cells: list[str]) -> np.ndarray:
    """Converts a column of the label table that the builder wrote to an array."""
    if kind == further.NUMBER:
        return np.array(cells, np.float32)
    return np.array([kind.index(cell) for cell in cells], np.int32)


def _fingerprint(preprocessing: Preprocessing) -> list[Any]:
    """Fingerprint of the cached pixels: the settings, and digests of `prepare` applied to a test image.

    For the sizes in `_REDUCED`, the test image counts as a larger one, so that a change of their blur changes a digest.
    """
    fields = {key: value for key, value in preprocessing.to_dict().items() if key not in ("scaling", "crop")}
    test_image = np.random.default_rng(0).integers(0, 256, _TEST_SHAPE).astype(np.uint8)
    points = np.full((POINTS, 2), 20.0) if preprocessing.region == "joints" else None
    region = "hand" if preprocessing.region == "joints" else preprocessing.region
    reduced = [
        dataclasses.replace(
            preprocessing,
            region=region,
            size=size,
            copy_side=min(copy_side, preprocessing.copy_side),
            clahe_grid=min(preprocessing.clahe_grid, size),
            crop=0,
        ).prepare(test_image)
        for size, copy_side in _REDUCED
    ]
    return [fields, _digest(preprocessing.prepare(test_image, points)), *map(_digest, reduced)]


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()
