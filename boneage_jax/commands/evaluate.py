"""Measures trained weights on a folder of labelled radiographs, as `launch.py --mode=evaluate` measures a run.

Every labelled image counts, including those that `boneage predict` would refuse.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boneage_jax.commands import labelled, paths, weights_option
from boneage_jax.errors import BoneAgeError
from boneage_jax.terminal import printable

if TYPE_CHECKING:
    from boneage_jax.data.rsna import LabelledImage
    from boneage_jax.predict.prediction import Prediction

NAME = "evaluate"
HELP = "measure weights on a folder of labelled images"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this command to its parser."""
    labelled.add_arguments(parser)
    parser.add_argument(
        "--out", type=paths.path, help="folder for the report; default: evaluate-<name of the label file>"
    )
    parser.add_argument("--batch-size", type=int, default=16, help="images per batch; default: %(default)s")


def run(arguments: argparse.Namespace) -> int:
    """Predicts every labelled image, prints the figures and writes the report."""
    from tqdm import tqdm

    from boneage_jax.data.files import make_folder  # these imports load jax, which takes seconds
    from boneage_jax.evaluate import report

    predictor = weights_option.load(arguments)
    images, items = labelled.find(arguments, predictor.network.inputs)
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


def _report_columns(
    images: "list[LabelledImage]", found: "list[Prediction]", arguments: argparse.Namespace
) -> Mapping[str, Any]:
    """The arguments of `report.write`."""
    import numpy as np

    std = [one.std for one in found]
    intervals = [one.interval for one in found if one.interval is not None]
    return {
        "ids": [image.id for image in images],
        "sex": np.array([image.sex for image in images], np.int32),
        "age": np.array([image.age for image in images], np.float64),
        "predicted": np.array([one.months for one in found], np.float64),
        "std": None if None in std else np.array(std, np.float64),
        "interval": tuple(np.array(intervals, np.float64).T) if intervals else None,
        "hospital": labelled.hospitals(arguments, images),
        "split": arguments.labels.stem,
    }
