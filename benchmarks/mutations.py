"""Generates files of every kind that the commands read, from phantoms, and damages them with seeded randomness."""

import io
import pathlib
import zipfile

import cv2
import numpy as np
import openpyxl

from boneage_jax.data import phantom
from tests.data import dicom_files
from tests.pretrained import weight_files

HAND = "hand.png"
_SIDE = 160
_CHILDREN = 40
_HEADER = 512  # half of the damage begins within this many bytes


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """The content with bits flipped, or a part overwritten, cut off, cut out, doubled or set to zero."""
    size = len(content)
    place = int(rng.integers(min(size, _HEADER) if rng.random() < 0.5 else size))
    end = min(size, place + int(2 ** rng.uniform(0, 12)))
    kind = rng.integers(6)
    if kind == 0:
        changed = bytearray(content)
        for spot in [place, *rng.integers(0, size, rng.integers(8))]:
            changed[spot] ^= 1 << int(rng.integers(8))
        return bytes(changed)
    if kind == 1:
        return content[:place]
    put = [rng.bytes(end - place), b"", content[place:end] * 2, bytes(end - place)][kind - 2]
    return content[:place] + put + content[end:]


def hand() -> np.ndarray:
    """A phantom hand as greyscale pixels `[H, W]`, uint8."""
    return phantom.render(100.0, 0, size=_SIDE, seed=1).image


def _encoded(ending: str, pixels: np.ndarray) -> bytes:
    return cv2.imencode(ending, pixels)[1].tobytes()


def images(folder: pathlib.Path) -> dict[str, bytes]:
    """One file of each format that the reader accepts."""
    grey = hand()
    deep, twelve = grey.astype(np.uint16) * 257, grey.astype(np.uint16) * 16
    plain = {f"hand{ending}": _encoded(ending, grey) for ending in (".png", ".jpg", ".tif", ".webp", ".bmp", ".jp2")}
    dicom = {
        "plain.dcm": dicom_files.make(grey),
        "12_bits.dcm": dicom_files.make(twelve, bits=12),
        "rle.dcm": dicom_files.make_rle(grey),
    } | {
        f"{kind}.dcm": dicom_files.make_by_gdcm(grey, kind, folder)
        for kind in ("jpeg_baseline", "jpeg_lossless", "jpeg_ls", "jpeg_2000_lossless")
    }
    return plain | {"16_bits.png": _encoded(".png", deep)} | dicom


def tables(_: pathlib.Path) -> dict[str, bytes]:
    """Label tables that list the child of `HAND`, a girl of 9.5 years, among others."""
    rows = [("id", "sex", "age"), (pathlib.Path(HAND).stem, "F", 9.5)]
    rows += [(str(1000 + number), "MF"[number % 2], 2 + number / 4) for number in range(_CHILDREN)]
    book, file = openpyxl.Workbook(), io.BytesIO()
    for row in rows:
        book.active.append(row)
    book.save(file)
    text = "".join(",".join(map(str, row)) + "\n" for row in rows)
    return {
        "commas.csv": text.encode(),
        "semicolons.csv": text.replace(",", ";").encode("utf-16"),
        "sheet.xlsx": file.getvalue(),
    }


def archives(_: pathlib.Path) -> dict[str, bytes]:
    """Zip archives with one image, stored or deflated, and an archive inside another."""
    stored, deflated = (
        _zipped({HAND: _encoded(".png", hand())}, how) for how in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    )
    return {"stored.zip": stored, "deflated.zip": deflated, "nested.zip": _zipped({"inner.zip": deflated})}


def _zipped(files: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", how) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def foreign_weights(folder: pathlib.Path) -> dict[str, bytes]:
    """Weights files in the formats of PyTorch and Keras."""
    state = {f"layer{number}.weight": weight_files.numbers(8, 4 + number) for number in range(4)}
    layers = {"stem_conv": {"kernel": weight_files.numbers(3, 3, 1, 4)}, "stem_bn": weight_files.norm(4)}
    weight_files.write_torch(folder / "zip.pth", state, zipped=True)
    weight_files.write_torch(folder / "sequence.pth", state, zipped=False)
    weight_files.write_old(folder / "keras_2.h5", layers)
    weight_files.write_archive(folder / "keras_3.keras", layers)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
