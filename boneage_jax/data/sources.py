"""Sources of the images of each dataset: the RSNA files and the phantom drawings."""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, SupportsFloat

import numpy as np
from absl import logging
from jaxtyping import Float

from boneage_jax.data import inputs, phantom, rsna, splits
from boneage_jax.data.builder import Example, PhantomBoneAge, RadiographBuilder, RsnaBoneAge
from boneage_jax.data.files import File
from boneage_jax.data.keypoints import POINTS, KeyPoints, draw_heatmap, gaps, read_key_points
from boneage_jax.data.preprocess import Preprocessing
from boneage_jax.data.radiograph import read
from boneage_jax.data.splits import hospital
from boneage_jax.errors import BoneAgeError
from boneage_jax.sex import Sex

PHANTOM_COUNT = {"train": 2000, "validation": 400}
_PHANTOM_SPLITS = ("train", "validation", "test")
# If the drawing changes at any of these stages (before and during the growth spurt, after fusion), caches are rebuilt.
_FINGERPRINT = ((60, Sex.FEMALE), (168, Sex.MALE), (216, Sex.FEMALE))
_FILM = (2044, 1514)  # Height and width of most RSNA originals; heat maps blur key points in these pixels.
_UNMARKED = KeyPoints("", np.full((POINTS, 2), np.nan))

Found = tuple[dict[str, Sequence[Example]], list[Any]]
"""The examples by split, and a manifest of everything else the built dataset depends on, as JSON types."""


@dataclasses.dataclass(frozen=True)
class Source:
    """How one dataset is found and cached; `options` are the keyword options of `find` after its three arguments."""

    builder: type[RadiographBuilder]
    find: Callable[..., Found]
    options: tuple[str, ...]


def _rsna(
    directory: str | pathlib.Path | None,
    preprocessing: Preprocessing,
    kinds: Mapping[str, inputs.Kind],
    on_missing: str = "error",
    keypoints: str | pathlib.Path = "",
    fold: str = "",
) -> Found:
    if directory is None:
        raise BoneAgeError("data.dir is not set; set it to the folder that contains the RSNA bone-age files")

    def prepare(file: File, points: KeyPoints | None) -> dict[str, np.ndarray]:
        image, _ = read(file)
        points = points and points.with_size(file.original_size)
        joints = points.on(image.shape) if points and preprocessing.region == "joints" else None
        record = {"image": preprocessing.prepare(image, joints)}
        if points is None or not inputs.heatmap(kinds):
            return record
        return record | {"heatmap": points.heatmap(image.shape, preprocessing.size)}

    found = rsna.find(directory, on_missing, inputs.columns(kinds))
    if fold:
        found = _fold_apart(found, fold)
    ids = [image.id for images in found.values() for image in images]
    reads_points = preprocessing.region == "joints" or inputs.heatmap(kinds)
    marked = _key_points(ids, keypoints, on_missing) if reads_points else {}
    examples: dict[str, Sequence[Example]] = {
        split: [
            Example(i.id, i.sex, i.age, hospital(i.id), functools.partial(prepare, i.file, marked.get(i.id)), i.inputs)
            for i in images
        ]
        for split, images in found.items()
    }
    manifest: list[Any] = [
        [split, i.id, i.sex, i.age, i.file.name, i.file.size, i.file.mark, i.file.original_size]
        for split, images in found.items()
        for i in images
    ]
    if marked:
        manifest.append([[np.nan_to_num(marked[i].points).tolist(), marked[i].shape] for i in ids])
    return examples, manifest


def _fold_apart(found: dict[str, list[rsna.LabelledImage]], which: str) -> dict[str, list[rsna.LabelledImage]]:
    """The splits, with one fold of the training images moved to its own split, "fold"."""
    train = found["train"]
    held = splits.fold(which, *zip(*((image.id, image.sex, image.age) for image in train), strict=True))
    parts = {"train": [i for i in train if i.id not in held], "fold": [i for i in train if i.id in held]}
    if not all(parts.values()):
        raise BoneAgeError(f"data.fold is {which}: {len(train)} training images are too few; choose fewer folds")
    return {**found, **parts}


def _key_points(ids: Sequence[str], path: str | pathlib.Path, on_missing: str) -> dict[str, KeyPoints]:
    """The key points of every image; all NaN for images without, which are allowed if `on_missing` is "skip"."""
    if not str(path):
        raise BoneAgeError(
            'data.inputs or the "joints" of preprocess.region require key points: set data.keypoints to their file; '
            "`python -m boneage_jax.regions.keypoints --data DIR --out FILE` creates it"
        )
    marked = read_key_points(path)
    if message := gaps(marked, ids, path):
        if on_missing == "error":
            raise BoneAgeError(f"{message}; complete it, or set data.on_missing=skip")
        logging.warning("%s; they are read without key points.", message)
    return {image_id: marked.get(image_id, _UNMARKED) for image_id in ids}


def _phantom(
    directory: Any,
    preprocessing: Preprocessing,
    kinds: Mapping[str, inputs.Kind],
    count: Mapping[str, int] | None = None,
    seed: int = 0,
    even: SupportsFloat = 0.0,
) -> Found:
    del directory
    count = dict(PHANTOM_COUNT if count is None else count)
    if unknown := sorted(set(count) - set(_PHANTOM_SPLITS)):
        raise BoneAgeError(f"The phantom has no split {', '.join(unknown)}; only {', '.join(_PHANTOM_SPLITS)}")
    if not {"train", "validation"} <= set(count) or min(count.values()) < 1:
        raise BoneAgeError(f"The phantom needs at least one training and one validation image, not {count}")
    if seed < 0:
        raise BoneAgeError(f"The seed of the phantom is {seed}, expected 0 or more; choose another seed")
    columns = inputs.columns(kinds)
    if columns not in ({}, {inputs.CHRONOLOGICAL_AGE: inputs.NUMBER}):
        raise BoneAgeError(
            f"The phantom has no input {', '.join(columns)} of this kind; besides key points, it only has the number "
            f"{inputs.CHRONOLOGICAL_AGE}"
        )
    examples: dict[str, Sequence[Example]] = {}
    for number, split in enumerate(_PHANTOM_SPLITS):
        if split in count:
            children, *images = _seeds(seed, number, count[split] + 1)
            ages, sexes = phantom.sample_children(count[split], children, even=even if split == "train" else 0)
            examples[split] = [
                _child(f"{split}-{i}", float(a), int(s), k, preprocessing, kinds)
                for i, (a, s, k) in enumerate(zip(ages, sexes, images, strict=True))
            ]
    drawn = [phantom.render(age, sex, size=64, seed=0) for age, sex in _FINGERPRINT]
    manifest: list[Any] = [
        count,
        seed,
        float(even),
        hashlib.sha256(np.stack([d.image for d in drawn]).tobytes()).hexdigest(),
    ]
    if inputs.heatmap(kinds) or preprocessing.region == "joints":
        manifest.append([_on_film(d).tolist() for d in drawn])
    return examples, manifest


def _child(
    name: str, age: float, sex: int, seed: int, preprocessing: Preprocessing, kinds: Mapping[str, inputs.Kind]
) -> Example:
    """One drawn child; its image is preprocessed in the same way as a radiograph."""
    size = preprocessing.size

    def prepare() -> dict[str, np.ndarray]:
        joints = preprocessing.region == "joints"
        drawn = phantom.render(age, sex, size=round(size / preprocessing.reach) if joints else size, seed=seed)
        record = {"image": preprocessing.prepare(drawn.image, drawn.key_points if joints else None)}
        if inputs.heatmap(kinds):
            record["heatmap"] = draw_heatmap(_on_film(drawn), _FILM, size)
        return record

    values = {key: phantom.chronological_age(age, seed) for key in inputs.columns(kinds)}
    return Example(name, sex, age, "", prepare, values)


def _on_film(drawn: phantom.Phantom) -> Float[np.ndarray, "points 2"]:
    """The key points of a drawing in pixels of `_FILM`."""
    return KeyPoints("", drawn.key_points, drawn.image.shape).on(_FILM)


def _seeds(seed: int, split: int, count: int) -> list[int]:
    """Independent seeds for the images of a split: no two splits share a child."""
    return [int(s) for s in np.random.SeedSequence([seed, split]).generate_state(count, np.uint64) >> 1]


SOURCES = {
    "rsna_bone_age": Source(RsnaBoneAge, _rsna, ("on_missing", "keypoints", "fold")),
    "phantom": Source(PhantomBoneAge, _phantom, ("count", "seed", "even")),
}
