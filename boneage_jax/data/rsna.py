"""Finds the RSNA bone-age images and labels below a folder, in any form in which they are distributed."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from absl import logging

from boneage_jax.data import splits
from boneage_jax.data.files import File, is_archive, list_files
from boneage_jax.data.inputs import Kind
from boneage_jax.data.labels import Label, LabelTable, read_labels, read_sizes, split_of_path
from boneage_jax.data.matching import match
from boneage_jax.data.radiograph import pixel_size, select_images
from boneage_jax.data.tables import SUFFIXES
from boneage_jax.errors import BoneAgeError, listed
from boneage_jax.sex import Sex

SPLITS = ("train", "validation", "test")
_OFFICIAL_TENTH = "f4cbb7b6d8cc43af0451ff997f59a91960e4ad565e57f502a01ba11de90951fe"
"""SHA-256 of the ids in `splits.validation_tenth` of the official training labels, sorted and joined by newlines."""
_SAMPLE = 8  # images that `_warn_if_squashed` opens
_WHERE_TO_GET_IT = (
    "get boneage-training-dataset.zip and boneage-training-dataset.csv from "
    "https://www.rsna.org/rsnai/ai-image-challenge/rsna-pediatric-bone-age-challenge-2017 "
    "(terms: non-commercial research and education)"
)


@dataclasses.dataclass(frozen=True)
class LabelledImage:
    """An image file of the challenge with its label: sex and bone age in months.

    `inputs` holds the further inputs that were requested: numbers, and names of categories.
    """

    id: str
    sex: Sex
    age: float
    file: File
    inputs: Mapping[str, float | str] = dataclasses.field(default_factory=dict)


def find(
    directory: str | pathlib.Path, on_missing: str = "error", inputs: Mapping[str, Kind] = {}
) -> dict[str, list[LabelledImage]]:
    """Pairs images with labels; each split is sorted by id, and "train" and "validation" always exist.

    Images are matched to labels by their name (`1377.png`, label 1377). If a split has several copies of an image, the
    one with the fewest enclosing archives is used; files of one name with different sizes are refused. If there are no
    official validation images, a fixed tenth of the labels (`splits.validation_tenth`) is selected, and its images move
    from "train" to "validation", even if some images are missing. Other splits exist only if found.

    Args:
      directory: the folder with the files, packed or unpacked.
      on_missing: "error", or "skip" to log and leave out labels without image, images without label, and table rows
        that cannot be used.
      inputs: further columns of the label tables. If two tables agree, the one that has these columns is used.

    Raises:
      BoneAgeError: nothing found, unreadable files, wrong labels, or (unless skipped) unpaired images or labels.
    """
    if on_missing not in ("error", "skip"):
        raise BoneAgeError(f"data.on_missing must be 'error' or 'skip', not {on_missing!r}")
    directory = pathlib.Path(directory)
    if not directory.is_dir():
        raise BoneAgeError(f"The data folder {directory} does not exist; {_WHERE_TO_GET_IT}")
    listing = list_files(directory)
    listing.refuse_problems()
    tables = _all_tables(listing.files, directory, inputs)
    images = _images(listing.files, directory)
    found = {}
    for split in SPLITS:
        if pairs := _pair(f"{split} split", tables.get(split), _candidates(split, images), on_missing):
            found[split] = pairs
    if "train" not in found:
        raise BoneAgeError(f"{directory} contains labels but no training images (<id>.png); {_WHERE_TO_GET_IT}")
    return found if "validation" in found else {**found, **_hold_out(found["train"], tables["train"].labels)}


def is_official(directory: str | pathlib.Path) -> bool:
    """Whether the training labels below a folder are the 12,611 official ones of the challenge, whatever the images.

    Raises:
      BoneAgeError: no training labels, or unreadable tables.
    """
    directory = pathlib.Path(directory)
    held = _validation_tenth(_all_tables(list_files(directory).files, directory, {})["train"].labels)
    return hashlib.sha256("\n".join(sorted(held)).encode()).hexdigest() == _OFFICIAL_TENTH


def find_labelled(
    labels: pathlib.Path, directory: pathlib.Path, on_missing: str = "error", inputs: Mapping[str, Kind] = {}
) -> list[LabelledImage]:
    """Pairs the images below a folder with one label table, regardless of split; sorted by id.

    Args:
      labels: csv or xlsx, with the columns of any table of the challenge.
      directory: the folder with the images, packed or unpacked, or their archive.
      on_missing: as in `find`.
      inputs: further columns of the table.

    Raises:
      BoneAgeError: no label table, no bone ages, no images, an id that matches several images, or (unless skipped)
        unpaired images or labels and rows that cannot be used.
    """
    if not labels.is_file():
        raise BoneAgeError(f"The label table {labels} does not exist; expected a csv or xlsx file")
    if not directory.is_dir() and not is_archive(directory):
        raise BoneAgeError(f"The image folder {directory} does not exist")
    table = read_labels(File(labels.name, labels.stat().st_size, 0, labels), inputs)
    if table is None:
        raise BoneAgeError(f"{labels} is not a label table; expected the columns id, boneage (months), and male or sex")
    if not table.labels or not table.has_ages:
        raise BoneAgeError(f"{labels} has no bone ages; expected a column boneage with a number of months in each row")
    listing = list_files(directory)
    listing.refuse_problems()
    images = _images(listing.files, directory)
    if not images:
        raise BoneAgeError(
            f"{directory} contains no images; expected files named by their id: {table.labels[0].id}.png"
        )
    pairs = _pair(f"table {labels.name}", table, _by_label(table, images), on_missing, skip="--on-missing=skip")
    if not pairs:
        raise BoneAgeError(f"No image in {directory} has a label in {labels}; expected files named by their id")
    return pairs


def _images(files: Iterable[File], directory: pathlib.Path) -> list[File]:
    """The images, with their original sizes if a table (`read_sizes`) gives them; other files are logged."""
    images, others = select_images(files)
    sizes: dict[str, tuple[int, int]] = {}
    left_out = []
    for file in others:
        if file.name.lower().endswith(SUFFIXES):
            sizes.update(read_sizes(file) or {})
        else:
            left_out.append(file.name)
    if left_out:
        logging.info("%s: %d files are not images and are left out: %s", directory, len(left_out), listed(left_out))
    images = [dataclasses.replace(file, original_size=sizes.get(_id(file))) for file in images]
    _warn_if_squashed(images)
    return images


def _warn_if_squashed(images: list[File]) -> None:
    """Warns if a sample of the images are all squares of one size: these are probably squashed copies of originals."""
    if any(file.original_size for file in images) or len(images) < 2:
        return
    sample = images[:: -(-len(images) // _SAMPLE)]
    (shape, *others) = {pixel_size(file) for file in sample}
    if not others and shape is not None and shape[0] == shape[1]:
        logging.warning(
            "All images are squares of %d pixels, as if radiographs had been squashed. Networks that crop to the hand "
            "(preprocess.region=hand) need true proportions: put a csv table with the columns id,width,height of the "
            "originals beside the images, or use the originals.",
            shape[0],
        )


def _all_tables(files: Iterable[File], directory: pathlib.Path, inputs: Mapping[str, Kind]) -> dict[str, LabelTable]:
    tables: dict[str, LabelTable] = {}
    for file in files:
        table = read_labels(file, inputs) if file.name.lower().endswith(SUFFIXES) else None
        if table is None:
            continue
        if not table.has_ages:
            logging.info("%s has no bone ages; the %s split is left out.", table.name, table.split)
            continue
        known = tables.get(table.split)
        if known and not known.agrees(table):
            raise BoneAgeError(
                f"{known.name} and {table.name} label the {table.split} split differently; remove one of them"
            )
        if known is None or known.lacks:
            tables[table.split] = table
    if not (train := tables.get("train")) or not train.labels:
        raise BoneAgeError(
            f"{directory} has no training labels (a csv table with the columns id,boneage,male); {_WHERE_TO_GET_IT}"
        )
    return tables


def _candidates(split: str, images: Iterable[File]) -> dict[str, File]:
    """Image files by id: those with the split in their path, or else (training only) with no split in it."""
    images = list(images)
    named = [file for file in images if split_of_path(file.name) == split]
    if not named and split == "train":
        named = [file for file in images if split_of_path(file.name) is None]
    chosen = _by_id(named)
    if len(chosen) < len(named):
        logging.info("%s: %d further copies of images are ignored.", split, len(named) - len(chosen))
    return chosen


def _by_id(images: Iterable[File]) -> dict[str, File]:
    """Images by id; of several copies, the one with the fewest enclosing archives.

    Raises:
      BoneAgeError: two files of one name have different sizes, so they are not copies.
    """
    chosen: dict[str, File] = {}
    for file in sorted(images, key=lambda file: (file.depth, file.name)):
        first = chosen.setdefault(_id(file), file)
        if first.size != file.size:
            raise BoneAgeError(
                f"{first.name} and {file.name} have the same id but different contents; remove one of them"
            )
    return chosen


def _by_label(table: LabelTable, images: Sequence[File]) -> dict[str, File]:
    """The images by their id in the table; images without a label by their name.

    Raises:
      BoneAgeError: several images match one id.
    """
    meant = match((label.id for label in table.labels), [file.name for file in images])
    for identifier, places in meant.items():
        if len(places) > 1:
            names = " and ".join(images[place].name for place in places)
            raise BoneAgeError(
                f"The id {identifier} of {table.name} matches {names}; rename one, or write ids with folders and "
                "suffixes"
            )
    labelled = {places[0]: identifier for identifier, places in meant.items()}
    return {labelled.get(place, file.name): file for place, file in enumerate(images)}


def _id(file: File) -> str:
    return pathlib.PurePosixPath(file.name).stem


def _pair(
    name: str, table: LabelTable | None, files: dict[str, File], on_missing: str, skip: str = "data.on_missing=skip"
) -> list[LabelledImage]:
    """Pairs labels with images; `name` and `skip` are used in messages for the labels and the option to skip."""
    labels = table.labels if table else []
    if not table or not labels or not files:
        if labels or files:
            missing = "labels" if files else "images"
            logging.info("No %s found for the %s; it is left out.", missing, name)
        return []
    table.refuse_gaps()
    if faults := [label.fault for label in labels if label.fault]:
        if on_missing == "error":
            raise BoneAgeError(faults[0])
        logging.warning("%d rows of the %s are skipped: %s", len(faults), name, ". ".join(faults[:10]))
    known = {label.id for label in labels}
    for what, unpaired in (
        ("labels without an image", known - set(files)),
        ("images without a label", set(files) - known),
    ):
        if unpaired:
            message = f"The {name} has {len(unpaired)} {what}: {listed(sorted(unpaired, key=_id_order))}"
            if on_missing == "error":
                raise BoneAgeError(f"{message}; complete the data, or set {skip}")
            logging.warning("%s; they are skipped.", message)
    return [
        LabelledImage(label.id, label.sex, label.age, files[label.id], label.inputs)
        for label in sorted(labels, key=_order)
        if label.id in files and isinstance(label.sex, Sex) and label.age is not None
    ]


def _hold_out(train: Sequence[LabelledImage], labels: Sequence[Label]) -> dict[str, list[LabelledImage]]:
    """Splits off validation images; the tenth is chosen from the labels, so missing images do not change it."""
    held = _validation_tenth(labels)
    if not held:
        raise BoneAgeError(f"{len(train)} training images are too few to hold out a tenth; at least 6 are needed")
    parts = {
        "train": [image for image in train if image.id not in held],
        "validation": [image for image in train if image.id in held],
    }
    if not all(parts.values()):
        raise BoneAgeError(
            f"{len(parts['validation'])} of the {len(train)} images belong to the tenth of the labels that is held out "
            "for validation; add images"
        )
    return parts


def _validation_tenth(labels: Iterable[Label]) -> set[str]:
    """`splits.validation_tenth` of the labels that can be used."""
    usable = [
        (label.id, label.sex, label.age) for label in labels if isinstance(label.sex, Sex) and label.age is not None
    ]
    return splits.validation_tenth(*zip(*usable, strict=True)) if usable else set()


def _order(label: Label) -> tuple[int, str]:
    return _id_order(label.id)


def _id_order(image_id: str) -> tuple[int, str]:
    """Sort key that orders numeric ids by value, and also accepts other ids."""
    return len(image_id), image_id
