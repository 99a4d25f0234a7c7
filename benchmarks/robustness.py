"""Measures how much a reading changes when the file changes and the child does not.

    python -m benchmarks.robustness --images DIR --labels CSV [--weights NAME] [--copies DIR] [--out FILE.json]

Every radiograph is read as it is and after each transform; the table gives the mean and the largest change in months,
the share refused by the input checks, and the mean absolute error against the labels. CSV is any label table of the
RSNA challenge. `--copies` names a folder with RSNA's files that holds smaller copies of the same radiographs.

The transforms follow Santomartino et al., "Evaluating the robustness of a deep learning bone age algorithm to clinical
image variation using computational stress testing" (Radiology: Artificial Intelligence 2024, doi 10.1148/ryai.230240).
There, the network that won the RSNA challenge had a baseline MAE of 6.8 months on 1,425 validation radiographs;
rotation, flips, brightness, contrast, inversion and resolution changed it significantly, a laterality marker did not.
"""

import argparse
import functools
import io
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from benchmarks import record
from boneage_jax import load
from boneage_jax.data import rsna
from boneage_jax.data.radiograph import read
from boneage_jax.errors import BoneAgeError, listed
from boneage_jax.predict.items import Item
from boneage_jax.predict.predictor import Predictor
from boneage_jax.released.weights import most_accurate
from boneage_jax.sex import Sex

Transform = Callable[[np.ndarray], np.ndarray]


def deeper(image: np.ndarray, bits: int) -> np.ndarray:
    """The same pixels at a higher bit depth: times 257 for 16 bits, times a power of two for fewer."""
    return image.astype(np.uint16) * (257 if bits == 16 else 2 ** (bits - 8))


def padded(image: np.ndarray, top: float, bottom: float, left: float, right: float) -> np.ndarray:
    """The image with black padding, given as fractions of its height and width."""
    height, width = image.shape
    rows, columns = ((round(top * height), round(bottom * height)), (round(left * width), round(right * width)))
    return np.pad(image, (rows, columns))


def brighter(image: np.ndarray, factor: float) -> np.ndarray:
    """Intensities times a factor, clipped to 8 bits."""
    return np.clip(np.rint(image * factor), 0, 255).astype(np.uint8)


def contrasted(image: np.ndarray, factor: float) -> np.ndarray:
    """Distance to the mean intensity times a factor, clipped to 8 bits."""
    mean = float(image.mean())
    return np.clip(np.rint((image - mean) * factor + mean), 0, 255).astype(np.uint8)


def curved(image: np.ndarray, gamma: float) -> np.ndarray:
    """A gamma curve, with 16 bits so that no level is lost."""
    return np.rint(65535 * (image / 255) ** gamma).astype(np.uint16)


def turned(image: np.ndarray, degrees: float) -> np.ndarray:
    """A rotation about the centre on a canvas that holds the whole image."""
    height, width = image.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
    cosine, sine = abs(matrix[0, 0]), abs(matrix[0, 1])
    size = (round(width * cosine + height * sine), round(width * sine + height * cosine))
    matrix[:, 2] += (size[0] - width) / 2, (size[1] - height) / 2
    return cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR)


def marked(image: np.ndarray) -> np.ndarray:
    """A laterality marker, a bright L, in the upper left corner."""
    image = image.copy()
    size = max(image.shape) / 700
    place = (round(0.05 * image.shape[1]), round(0.15 * image.shape[0]))
    cv2.putText(image, "L", place, cv2.FONT_HERSHEY_SIMPLEX, 3 * size, 255, max(round(8 * size), 1))
    return image


def compressed(image: np.ndarray, quality: int) -> np.ndarray:
    """The image after JPEG compression at this quality."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def smaller(image: np.ndarray, side: int) -> np.ndarray:
    """The image reduced by area averaging to `side` pixels on the longer side."""
    scale = side / max(image.shape)
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def blurred(image: np.ndarray, share: float) -> np.ndarray:
    """A Gaussian blur; `share` is its standard deviation as a fraction of the longer side."""
    return cv2.GaussianBlur(image, (0, 0), share * max(image.shape))


SIDES = {"top": (0.5, 0, 0, 0), "bottom": (0, 0.5, 0, 0), "left": (0, 0, 0.5, 0), "right": (0, 0, 0, 0.5)}
TRANSFORMS: dict[str, dict[str, Transform]] = {
    "bit depth": {f"{bits} bits": functools.partial(deeper, bits=bits) for bits in (10, 12, 14, 16)},
    "padding": {
        **{
            f"half a side, {name}": functools.partial(padded, top=top, bottom=bottom, left=left, right=right)
            for name, (top, bottom, left, right) in SIDES.items()
        },
        "a quarter on every side": functools.partial(padded, top=0.25, bottom=0.25, left=0.25, right=0.25),
    },
    "quarter turns": {f"{90 * turns} degrees": functools.partial(np.rot90, k=turns) for turns in (1, 2, 3)},
    "rotation": {f"{angle} degrees": functools.partial(turned, degrees=angle) for angle in (-20, -10, 10, 20)},
    "flips": {"left and right": np.fliplr, "up and down": np.flipud},
    "brightness": {f"times {factor}": functools.partial(brighter, factor=factor) for factor in (0.7, 0.85, 1.15, 1.3)},
    "contrast": {f"times {factor}": functools.partial(contrasted, factor=factor) for factor in (0.7, 1.3)},
    "gamma": {f"{gamma}": functools.partial(curved, gamma=gamma) for gamma in (0.7, 0.85, 1.2, 1.4)},
    "inversion": {"negative": np.invert},
    "marker": {"L in a corner": marked},
    "blur": {f"sigma {share:.1%} of the side": functools.partial(blurred, share=share) for share in (0.001, 0.002)},
    "JPEG": {f"quality {quality}": functools.partial(compressed, quality=quality) for quality in (90, 50)},
    "resolution": {f"{side} pixels": functools.partial(smaller, side=side) for side in (1024, 640, 400)},
}
"""Transforms by group and name; each takes an 8-bit image `[H, W]`."""


def readings(predictor: Predictor, images: Iterable[np.ndarray], sexes: Iterable[Sex]) -> np.ndarray:
    """Readings in months [N]; NaN where the image is refused."""
    items = (Item(np.ascontiguousarray(image), sex) for image, sex in zip(images, sexes, strict=True))
    found = predictor.predict_many(items, on_error="yield")
    return np.array([np.nan if isinstance(one, BoneAgeError) else one.months for one in found], np.float64)


def row(group: str, name: str, months: np.ndarray, plain: np.ndarray, ages: np.ndarray) -> dict[str, Any]:
    """One row of the table; changes and errors cover only the images that are not refused."""
    read_ = np.isfinite(months) & np.isfinite(plain)
    change = np.abs(months - plain)[read_]
    return {
        "group": group,
        "transform": name,
        "images": len(months),
        "refused": int(np.count_nonzero(~np.isfinite(months))),
        "mean_change": float(change.mean()) if change.size else None,
        "largest_change": float(change.max()) if change.size else None,
        "mae": float(np.abs(months - ages)[read_].mean()) if change.size else None,
    }


def measure(
    predictor: Predictor, labelled: list[rsna.LabelledImage], copies: dict[str, rsna.LabelledImage]
) -> list[dict[str, Any]]:
    """A row for each transform."""
    images = [read(one.file)[0] for one in labelled]
    if any(image.dtype != np.uint8 for image in images):
        raise SystemExit("the radiographs must be 8-bit images; the transforms produce the other bit depths")
    sexes, ages = [one.sex for one in labelled], np.array([one.age for one in labelled])
    plain = readings(predictor, images, sexes)
    rows = [row("as it is", "", plain, plain, ages)]
    cases = [(group, name, make) for group, named in TRANSFORMS.items() for name, make in named.items()]
    for group, name, make in tqdm(cases, desc="transforms"):
        rows.append(row(group, name, readings(predictor, map(make, images), sexes), plain, ages))
    rows.append(row("sex", "the other one", readings(predictor, images, [Sex(1 - sex) for sex in sexes]), plain, ages))
    if copies:
        small = [read(copies[one.id].file)[0] for one in labelled]
        rows.append(row("copies", "of --copies", readings(predictor, small, sexes), plain, ages))
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = ["| change | | mean change, months | largest | refused | MAE |", "|---|---|---|---|---|---|"]
    for one in rows:
        numbers = ("-" if one[key] is None else f"{one[key]:.2f}" for key in ("mean_change", "largest_change", "mae"))
        mean, largest, mae = numbers
        lines.append(f"| {one['group']} | {one['transform']} | {mean} | {largest} | {one['refused']} | {mae} |")
    return "\n".join(lines)


def main() -> None:
    """Measures all transforms, prints the table and writes the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=pathlib.Path, required=True, help="folder of full-size 8-bit radiographs")
    parser.add_argument("--labels", type=pathlib.Path, required=True, help="label table of these radiographs")
    parser.add_argument("--weights", help="name or file of released weights; default: the most accurate ones")
    parser.add_argument("--copies", type=pathlib.Path, help="folder with smaller copies of the same radiographs")
    parser.add_argument("--out", type=pathlib.Path, help="where to write the rows as JSON")
    flags = parser.parse_args()
    labelled = rsna.find_labelled(flags.labels, flags.images, on_missing="skip")
    copies = {}
    if flags.copies:
        copies = {one.id: one for one in rsna.find_labelled(flags.labels, flags.copies, on_missing="skip")}
        if missing := [one.id for one in labelled if one.id not in copies]:
            raise SystemExit(f"{flags.copies} has no copies of {listed(missing)}; complete it")
    name = flags.weights or most_accurate()
    rows = measure(load(name), labelled, copies)
    print(table(rows))
    if flags.out:
        record.write(flags.out, {"weights": str(name), "rows": rows})


if __name__ == "__main__":
    main()
