"""Finds the RSNA bone-age images and labels below a folder, in any form in which they are distributed."""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from absl import logging

from boneage_jax.data import splits
from boneage_jax.data.files import File, is_archive, list_files
from boneage_jax.data.inputs import Kind
from boneage_jax.data.labels import Label, LabelTable, read_labels
from boneage_jax.data.matching import match
from boneage_jax.data.radiograph import pixel_size, select_images, without_ending
from boneage_jax.data.sizes import all_sizes
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
      directory: the folder with the files, packed or unpacked; `~` is the user's home folder.
      on_missing: "error", or "skip" to log and leave out labels without image, images without label, table rows that
        cannot be used (if others of the table can), and files, folders and archives that cannot be read.
      inputs: further columns of the label tables. If two tables agree, the one that has these columns is used.

    Raises:
      BoneAgeError: nothing found, unreadable files, wrong labels, or (unless skipped) unpaired images or labels.
    """
    if on_missing not in ("error", "skip"):
        raise BoneAgeError(f"data.on_missing must be 'error' or 'skip', not {on_missing!r}")
    directory = pathlib.Path(os.path.expanduser(directory))
    if not os.path.isdir(directory):
        raise BoneAgeError(f"The data folder {directory} does not exist; {_WHERE_TO_GET_IT}")
    files = _files(directory, on_missing)
    tables = _all_tables(files, directory, inputs, on_missing)
    images = _images(files, directory)
    found = {}
    for split in SPLITS:
        table = tables.get(split)
        if pairs := _pair(f"{split} split", table, _candidates(split, images, table), on_missing):
            found[split] = pairs
    if "train" not in found:
        raise BoneAgeError(f"{directory} contains labels but no training images (<id>.png); {_WHERE_TO_GET_IT}")
    return found if "validation" in found else {**found, **_hold_out(found["train"], tables["train"].labels)}


def is_official(directory: str | pathlib.Path) -> bool:
    """Whether the training labels below a folder are the 12,611 official ones of the challenge, whatever the images.

    Tables that cannot be read are logged and left out.

    Raises:
      BoneAgeError: no training labels, or tables that contradict each other.
    """
    directory = pathlib.Path(os.path.expanduser(directory))
    tables = _all_tables(list_files(directory).files, directory, {}, on_missing="skip")
    held = _validation_tenth(tables["train"].labels)
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
      BoneAgeError: no label table, no bone ages, no usable row, no images, an id that matches several images, or
        (unless skipped) unpaired images or labels and rows that cannot be used.
    """
    if not os.path.isfile(labels):
        raise BoneAgeError(f"The label table {labels} does not exist; expected a csv or xlsx file")
    if not os.path.isdir(directory) and not is_archive(directory):
        raise BoneAgeError(f"The image folder {directory} does not exist")
    table = read_labels(File(labels.name, labels.stat().st_size, 0, labels), inputs)
    if table is None:
        raise BoneAgeError(f"{labels} is not a label table; expected the columns id, boneage (months), and male or sex")
    if not table.labels or not table.has_ages:
        raise BoneAgeError(f"{labels} has no bone ages; expected a column boneage with a number of months in each row")
    images = _images(_files(directory, on_missing), directory)
    if not images:
        raise BoneAgeError(
            f"{directory} contains no images; expected files named by their id: {table.labels[0].id}.png"
        )
    pairs = _pair(f"table {labels.name}", table, _by_label(table, images), on_missing, skip="--on-missing=skip")
    if not pairs:
        raise BoneAgeError(f"No image in {directory} has a label in {labels}; expected files named by their id")
    return pairs


def _files(directory: pathlib.Path, on_missing: str) -> list[File]:
    """The files below a folder; what cannot be read is an error, or is logged if `on_missing` is "skip"."""
    listing = list_files(directory)
    if on_missing == "error":
        listing.refuse_problems()
    if problems := list(listing.problems.values()):
        logging.warning(
            "%s: %d files, folders or archives are skipped: %s", directory, len(problems), ". ".join(problems[:10])
        )
    return listing.files


def _images(files: Iterable[File], directory: pathlib.Path) -> list[File]:
    """The images, with their original sizes if a table (`all_sizes`) gives them; other files are logged."""
    images, others = select_images(files)
    tables = [file for file in others if file.name.lower().endswith(SUFFIXES)]
    if left_out := [file.name for file in others if not file.name.lower().endswith(SUFFIXES)]:
        logging.info("%s: %d files are not images and are left out: %s", directory, len(left_out), listed(left_out))
    images = _with_sizes(images, all_sizes(tables))
    _warn_if_squashed(images)
    return images


def _with_sizes(images: Sequence[File], sizes: Mapping[str, tuple[int, int]]) -> list[File]:
    """The images with the original sizes that match them; sizes that match no image are logged."""
    meant = match(sizes, [file.name for file in images])
    if unmatched := [identifier for identifier in sizes if identifier not in meant]:
        logging.warning("%d original sizes match no image: %s", len(unmatched), listed(unmatched))
    known = {place: sizes[identifier] for identifier, places in meant.items() for place in places}
    return [dataclasses.replace(file, original_size=known.get(place)) for place, file in enumerate(images)]


def _warn_if_squashed(images: list[File]) -> None:
    """Warns if a sample of the images are all squares of one size: these are probably squashed copies of originals."""
    if any(file.original_size for file in images) or len(images) < 2:
        return
    sample = images[:: -(-len(images) // _SAMPLE)]
    shapes = set()
    for file in sample:
        with contextlib.suppress(BoneAgeError):  # Reading the image reports it.
            shapes.add(pixel_size(file))
    shape = shapes.pop() if len(shapes) == 1 else None
    if shape is not None and shape[0] == shape[1]:
        logging.warning(
            "All images are squares of %d pixels, as if radiographs had been squashed. Networks that crop to the hand "
            "(preprocess.region=hand) need true proportions: put a csv table with the columns id,width,height of the "
            "originals beside the images, or use the originals.",
            shape[0],
        )


def _all_tables(
    files: Iterable[File], directory: pathlib.Path, inputs: Mapping[str, Kind], on_missing: str = "error"
) -> dict[str, LabelTable]:
    tables: dict[str, LabelTable] = {}
    for file in files:
        try:
            table = read_labels(file, inputs) if file.name.lower().endswith(SUFFIXES) else None
        except BoneAgeError as error:
            if on_missing == "error":
                raise
            logging.warning("%s; the table is left out.", error)
            continue
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


def _candidates(split: str, images: Sequence[File], table: LabelTable | None) -> dict[str, File]:
    """Image files by id: those with the split in their path, or else (training only) with no split in it."""
    named = [file for file in images if splits.split_of_path(file.name) == split]
    if not named and split == "train":
        named = [file for file in images if splits.split_of_path(file.name) is None]
    chosen = _by_id(named, table)
    if len(chosen) < len(named):
        logging.info("%s: %d further copies of images are ignored.", split, len(named) - len(chosen))
    return chosen


def _by_id(images: Sequence[File], table: LabelTable | None) -> dict[str, File]:
    """Images by their id in the table, or else by their name; of several copies, the one in the fewest archives.

    Raises:
      BoneAgeError: two files of one name have different sizes, so they are not copies.
    """
    meant = match((label.id for label in table.labels) if table else (), [file.name for file in images])
    ids = {images[place].name: identifier for identifier, places in meant.items() for place in places}
    chosen: dict[str, File] = {}
    for file in sorted(images, key=lambda file: (file.depth, file.name)):
        plain = without_ending(pathlib.PurePosixPath(file.name).name)
        first = chosen.setdefault(ids.get(file.name, plain), file)
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
        if on_missing == "error" or len(faults) == len(labels):
            raise BoneAgeError(faults[0])
        logging.warning("%d rows of the %s are skipped: %s", len(faults), name, ". ".join(faults[:10]))
    known = {label.id for label in labels if label.id}
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
