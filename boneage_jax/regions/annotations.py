"""Reads the boxes that Koitka et al. drew around the ossification regions of 328 radiographs of the RSNA challenge.

S. Koitka, A. Demircioglu, M. S. Kim, C. M. Friedrich, F. Nensa, "Ossification area localization in pediatric hand
radiographs using deep neural networks for object detection", PLOS ONE 2018; 13(11): e0207496. Their table is a CSV file
with the columns `COLUMNS` and one box per row.
"""

import csv
import dataclasses
import math
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from boneage_jax.data import rsna
from boneage_jax.errors import BoneAgeError, listed
from boneage_jax.regions.boxes import LABELS, area, rescaled, whole

COLUMNS = ("id", "set", "reader", "label", "xmin", "ymin", "xmax", "ymax", "width", "height")
TRAIN, TEST = "train", "test"
EXPERT, NON_EXPERT = "expert", "non-expert"


@dataclasses.dataclass(frozen=True)
class Annotation:
    """The boxes that one reader drew on one radiograph.

    Attributes:
      id: of the radiograph, such as "1377".
      set: "train" or "test".
      reader: "expert" or "non-expert"; "" in the training set, which has one reader.
      size: width and height in pixels of the picture on which the boxes were drawn.
      labels: index into `LABELS` of each box.
      boxes: in pixels of that picture.
    """

    id: str
    set: str
    reader: str
    size: tuple[float, float]
    labels: Int[np.ndarray, "N"]
    boxes: Float[np.ndarray, "N 4"]

    def boxes_in(self, shape: tuple[int, int]) -> Float[np.ndarray, "N 4"]:
        """The boxes in pixels of a resized copy of the radiograph with the size `shape` (height, width)."""
        height, width = shape
        return rescaled(self.boxes, whole(*self.size), whole(width, height))


def read_annotations(path: pathlib.Path) -> list[Annotation]:
    """Reads the table; one annotation for each radiograph and reader, sorted by id.

    Raises:
      BoneAgeError: no such file, not a csv table in UTF-8, a missing column, an unknown set or label, an invalid
        number, a box without area or outside its picture; the message names the row.
    """
    groups: dict[tuple[str, str, str], list[tuple[int, list[float]]]] = {}
    sizes: dict[tuple[str, str, str], tuple[float, float]] = {}
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            if missing := sorted(set(COLUMNS) - set(table.fieldnames or ())):
                raise BoneAgeError(f"{path} lacks the columns {', '.join(missing)}; expected {','.join(COLUMNS)}")
            for row in table:
                key = (row["id"], row["set"], row["reader"])
                label, box, size = _parse(row, f"{path}, row {table.line_num}")
                if sizes.setdefault(key, size) != size:
                    raise BoneAgeError(f"{path}, row {table.line_num}: {row['id']} has two sizes; expected one")
                groups.setdefault(key, []).append((label, box))
    except OSError as error:
        raise BoneAgeError(f"The region boxes {path} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise BoneAgeError(f"{path} is not a csv table in UTF-8 ({error}); save it as 'CSV UTF-8'") from None
    return [
        Annotation(*key, sizes[key], np.array([label for label, _ in rows]), np.array([box for _, box in rows]))
        for key, rows in sorted(groups.items(), key=lambda item: (len(item[0][0]), item[0]))
    ]


def radiographs(directory: pathlib.Path, annotations: Sequence[Annotation]) -> list[rsna.LabelledImage]:
    """The annotated radiographs among the RSNA files, in the order of the annotations.

    Raises:
      BoneAgeError: one of them is missing.
    """
    found = {image.id: image for split in rsna.find(directory).values() for image in split}
    if missing := [one.id for one in annotations if one.id not in found]:
        raise BoneAgeError(f"{directory} lacks the annotated radiographs {listed(missing)}; complete the data")
    return [found[one.id] for one in annotations]


def _parse(row: dict[str, str], where: str) -> tuple[int, list[float], tuple[float, float]]:
    if row["set"] not in (TRAIN, TEST):
        raise BoneAgeError(f"{where}: the set {row['set']!r} is unknown; expected {TRAIN} or {TEST}")
    if row["label"] not in LABELS:
        raise BoneAgeError(f"{where}: the label {row['label']!r} is unknown; expected one of {', '.join(LABELS)}")
    try:
        *box, width, height = (float(row[column]) for column in COLUMNS[4:])
    except (TypeError, ValueError):
        box, width, height = [], math.nan, math.nan
    if not all(map(math.isfinite, (*box, width, height))):
        raise BoneAgeError(f"{where}: expected numbers of pixels in {', '.join(COLUMNS[4:])}")
    inside = min(box) >= 0 and max(box[::2]) <= width and max(box[1::2]) <= height
    if not inside or not area(np.array([box]))[0] > 0:
        raise BoneAgeError(
            f"{where}: the box {box} is empty or extends beyond its image of {width:g} x {height:g} pixels"
        )
    return LABELS.index(row["label"]), box, (width, height)
