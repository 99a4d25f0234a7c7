"""Measures trained weights on a folder of labelled radiographs, as `launch.py --mode=evaluate` measures a run.

Every labelled image counts, including those that `boneage predict` would refuse.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boneage_jax.commands import weights_option
from boneage_jax.errors import BoneAgeError
from boneage_jax.terminal import printable

if TYPE_CHECKING:
    from boneage_jax.data.rsna import LabelledImage
    from boneage_jax.models import Input
    from boneage_jax.predict.items import Item
    from boneage_jax.predict.prediction import Prediction

NAME = "evaluate"
HELP = "measure weights on a folder of labelled images"
_LEAST_OLDEST = 25.0
"""Months; if the largest bone age is lower, the ages are probably in years."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this command to its parser."""
    parser.add_argument(
        "--labels",
        type=Path,
        required=True,
        help="csv or xlsx with the columns id, boneage (months), male or sex; or the official test labels",
    )
    parser.add_argument(
        "--images", type=Path, required=True, help="folder or zip archive of the images, such as <id>.png"
    )
    weights_option.add(parser)
    parser.add_argument("--out", type=Path, help="folder for the report; default: evaluate-<name of the label file>")
    parser.add_argument(
        "--on-missing",
        choices=("error", "skip"),
        default="error",
        help="how to treat missing labels, missing images and unreadable files; default: error",
    )
    parser.add_argument(
        "--rsna", action="store_true", help="the ids are those of the RSNA challenge: also report by hospital"
    )
    parser.add_argument("--keypoints", type=Path, help="file of key points, for networks with a heat-map input")
    parser.add_argument("--batch-size", type=int, default=16, help="images per batch; default: %(default)s")


def run(arguments: argparse.Namespace) -> int:
    """Predicts every labelled image, prints the figures and writes the report."""
    from tqdm import tqdm

    from boneage_jax.data import rsna  # these imports load jax, which takes seconds
    from boneage_jax.data.files import make_folder
    from boneage_jax.evaluate import report

    predictor = weights_option.load(arguments)
    specs = predictor.network.inputs
    images = rsna.find_labelled(arguments.labels, arguments.images, arguments.on_missing, _columns(specs))
    if (oldest := max(image.age for image in images)) < _LEAST_OLDEST:
        print(
            f"warning: the largest bone age in {arguments.labels} is {oldest:g}, but bone ages must be in months; "
            "multiply them by 12 if they are in years",
            file=sys.stderr,
        )
    items = _items(images, specs, arguments.keypoints)
    out = arguments.out or Path(f"evaluate-{arguments.labels.stem}")
    make_folder(out, "--out")
    predictions = predictor.predict_many(
        items,
        batch_size=arguments.batch_size,
        on_error="yield" if arguments.on_missing == "skip" else "raise",
        accept_warnings=True,
    )
    answers = list(tqdm(predictions, total=len(images), unit=" images", desc="predicting", mininterval=1))
    images, found = _readable(images, answers)
    result = report.write(out, **_report_columns(images, found, arguments))
    print(f"\n{report.table(result)}\n\nwritten to {out}")
    return 0


def _readable(
    images: "list[LabelledImage]", answers: "list[Prediction | BoneAgeError]"
) -> "tuple[list[LabelledImage], list[Prediction]]":
    """The images that could be read and their predictions; prints a warning about each of the others.

    Raises:
        BoneAgeError: no image could be read.
    """
    errors = [answer for answer in answers if isinstance(answer, BoneAgeError)]
    for error in errors:
        print(printable(f"warning: {error}; the image is left out"), file=sys.stderr)
    if len(errors) == len(answers):
        raise BoneAgeError("no image could be read")
    pairs = [
        (image, answer) for image, answer in zip(images, answers, strict=True) if not isinstance(answer, BoneAgeError)
    ]
    return [image for image, _ in pairs], [answer for _, answer in pairs]


def _columns(specs: "tuple[Input, ...]") -> dict[str, Any]:
    """The further inputs that are columns of the label table, with their categories or kind."""
    return {spec.name: spec.categories or spec.kind for spec in specs if spec.kind != "heatmap"}


def _items(images: "list[LabelledImage]", specs: "tuple[Input, ...]", keypoints: Path | None) -> "list[Item]":
    from boneage_jax.data.keypoints import gaps, read_key_points
    from boneage_jax.predict.items import Item

    heatmaps = [spec.name for spec in specs if spec.kind == "heatmap"]
    if not heatmaps:
        return [Item(image.file, image.sex, image.inputs) for image in images]
    if keypoints is None:
        raise BoneAgeError("these weights read a heat map of key points: give the key-point file with --keypoints")
    marked = read_key_points(keypoints)
    if message := gaps(marked, [image.id for image in images], keypoints):
        raise BoneAgeError(f"{message}; add them")
    placed = {image.id: marked[image.id].with_size(image.file.original_size) for image in images}
    return [
        Item(image.file, image.sex, {**image.inputs, **dict.fromkeys(heatmaps, placed[image.id])}) for image in images
    ]


def _report_columns(
    images: "list[LabelledImage]", found: "list[Prediction]", arguments: argparse.Namespace
) -> Mapping[str, Any]:
    """The arguments of `report.write`."""
    import numpy as np

    from boneage_jax.data.splits import hospital

    std = [one.std for one in found]
    intervals = [one.interval for one in found if one.interval is not None]
    return {
        "ids": [image.id for image in images],
        "sex": np.array([image.sex for image in images], np.int32),
        "age": np.array([image.age for image in images], np.float64),
        "predicted": np.array([one.months for one in found], np.float64),
        "std": None if None in std else np.array(std, np.float64),
        "interval": tuple(np.array(intervals, np.float64).T) if intervals else None,
        "hospital": [hospital(image.id) if arguments.rsna else "" for image in images],
        "split": arguments.labels.stem,
    }
