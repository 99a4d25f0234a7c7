"""Small synthetic RSNA folders: random images with realistic ids, in the layouts in circulation."""

import csv
import io
import zipfile

import cv2
import numpy as np

TRAIN_IDS = [str(n) for n in (*range(1377, 1387), *range(9990, 10010))]
TRAIN_CSV = "boneage-training-dataset.csv"


def png(seed, ending=".png", dtype=np.uint8, channels=None):
    shape = (24, 20) if channels is None else (24, 20, channels)
    image = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape).astype(dtype)
    return cv2.imencode(ending, image)[1].tobytes()


def train_rows(ids=TRAIN_IDS):
    return [
        ["id", "boneage", "male"],
        *([i, str(12 + 7 * n % 200), str(n % 2 == 0)] for n, i in enumerate(ids)),
    ]


def table(rows, end="\n", bom=False):
    text = io.StringIO()
    csv.writer(text, lineterminator=end).writerows(rows)
    return ("\ufeff" * bom + text.getvalue()).encode()


def archive(entries):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return data.getvalue()


def write(folder, entries):
    for name, content in entries.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def images(ids, prefix="", **options):
    ending = options.get("ending", ".png")
    return {f"{prefix}{i}{ending}": png(int(i), **options) for i in ids}


def official(folder):
    """The training set as RSNA distributes it: one archive and one table."""
    packed = archive(images(TRAIN_IDS, "boneage-training-dataset/"))
    return write(folder, {"boneage-training-dataset.zip": packed, TRAIN_CSV: table(train_rows())})
