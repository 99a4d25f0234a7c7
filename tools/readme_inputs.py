"""Makes the files that the README's commands use, from drawn hands.

hand.png and hand.dcm; FOLDER with three images, and sexes.csv; VISITS of one child, and visits.csv; DIR with a small
imitation of RSNA's official files, with their labels also in labels.csv.
"""

import io
from collections.abc import Mapping
from pathlib import Path

import cv2
import openpyxl

from boneage_jax.data import phantom
from boneage_jax.sex import Sex
from tests.data import dicom_files, rsna_forms

SIDE = 512  # pixels, of the hands that are read
SMALL = 160  # pixels, of those in DIR
SEED = 7  # of a drawn hand that the input checks accept
# UIDs of hand.dcm, which its DICOM results reference.
UIDS = {"StudyInstanceUID": "2.25.120", "SeriesInstanceUID": "2.25.121", "SOPInstanceUID": "2.25.122"}
# Image ids of the official splits; ids below 4560 are from Stanford.
TRAIN = tuple(map(str, [*range(1377, 1385), *range(9990, 10014)]))
VALIDATION = tuple(map(str, [*range(1386, 1390), *range(10020, 10028)]))
TEST = tuple(map(str, range(4360, 4368)))


def make(folder: Path) -> None:
    """Writes all files into the folder."""
    (folder / "hand.png").write_bytes(png(96, Sex.MALE))
    (folder / "hand.dcm").write_bytes(dcm(96, "008Y"))
    children = {"anna": (Sex.FEMALE, 84), "ben": (Sex.MALE, 96), "carl": (Sex.MALE, 132)}
    rsna_forms.write(folder / "FOLDER", {f"{name}.png": png(age, sex) for name, (sex, age) in children.items()})
    rows = [["id", "sex"], *([name, sex.letter] for name, (sex, _) in children.items())]
    (folder / "sexes.csv").write_bytes(rsna_forms.table(rows))
    _visits(folder)
    (folder / "labels.csv").write_bytes(rsna_forms.table(_labels((*TRAIN, *VALIDATION, *TEST))))
    rsna_forms.write(folder / "DIR", official())


def _visits(folder: Path) -> None:
    """Radiographs of one girl at 7, 8 and 9 years."""
    years = {f"visit{age}": age for age in (7, 8, 9)}
    rsna_forms.write(folder / "VISITS", {f"{name}.png": png(12 * age, Sex.FEMALE) for name, age in years.items()})
    rows = [["id", "sex", "birth_date", "date"]]
    rows += [[name, "F", "2015-05-31", f"{2015 + age}-05-31"] for name, age in years.items()]
    (folder / "visits.csv").write_bytes(rsna_forms.table(rows))


def official() -> dict[str, bytes]:
    """RSNA's files by name: training set zipped, validation set in nested zips, test set zipped with its table."""
    halves = [
        (f"boneage-validation-dataset-{i}", ids) for i, ids in enumerate((VALIDATION[::2], VALIDATION[1::2]), start=1)
    ]
    validation = {f"{name}.zip": rsna_forms.archive(_images(ids, f"{name}/")) for name, ids in halves}
    rows: list[list[object]] = [["Image ID", "male", "Bone Age (months)"]]
    rows += [[i, str(male).upper(), age] for i, age, male in _labels(VALIDATION)[1:]]
    test = _images(TEST, "Bone Age Test Set/Test Set Images/")
    return {
        "boneage-training-dataset.csv": rsna_forms.table(_labels(TRAIN)),
        "boneage-training-dataset.zip": rsna_forms.archive(_images(TRAIN, "boneage-training-dataset/")),
        "Bone Age Validation Set.zip": rsna_forms.archive(
            {**validation, "Validation Dataset.csv": rsna_forms.table(rows)}
        ),
        "Bone Age Test Set.zip": rsna_forms.archive({**test, "Bone age ground truth.xlsx": _test_table()}),
    }


def png(age: float, sex: Sex, side: int = SIDE, seed: int = SEED) -> bytes:
    """A drawn hand as a PNG file."""
    return cv2.imencode(".png", phantom.render(age, sex, size=side, seed=seed).image)[1].tobytes()


def dcm(months: float, age: str, side: int = SIDE) -> bytes:
    """A drawn girl's hand of this bone age as a DICOM file, with the child's age (such as 008Y) and UIDS."""
    drawn = phantom.render(months, Sex.FEMALE, size=side, seed=SEED).image
    header = {"PatientSex": "F", "PatientAge": age, "BodyPartExamined": "HAND", "Modality": "DX", **UIDS}
    made: bytes = dicom_files.write(dicom_files.dataset(drawn, **header))
    return made


def child(image_id: str) -> tuple[int, Sex]:
    """Bone age in months, 24 to 215, and sex, both derived from the id."""
    number = int(image_id)
    return 24 + 37 * number % 192, Sex.MALE if number % 2 else Sex.FEMALE


def _labels(ids: tuple[str, ...]) -> list[list[object]]:
    return [
        ["id", "boneage", "male"],
        *([image_id, age, sex == Sex.MALE] for image_id, (age, sex) in ((i, child(i)) for i in ids)),
    ]


def _images(ids: tuple[str, ...], prefix: str) -> Mapping[str, bytes]:
    return {f"{prefix}{i}.png": png(*child(i), side=SMALL, seed=int(i)) for i in ids}


def _test_table() -> bytes:
    book = openpyxl.Workbook()
    book.active.append(["Case ID", "Sex", "Ground truth bone age (months)"])
    for image_id in TEST:
        age, sex = child(image_id)
        book.active.append([int(image_id), sex.letter, age + 0.25])
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()
