"""Reads the bone age from radiographs: PNG, JPEG, WebP, TIFF or DICOM files, and whole folders of them.

Results go to stdout, everything else to stderr. Exit status: 0 if every file was read, 2 if some could not be (or were
refused with --strict), 1 if none could be, or if the command itself is wrong.
"""

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boneage_jax.errors import BoneAgeError
from boneage_jax.sex import Sex

if TYPE_CHECKING:
    from boneage_jax.predict.predictor import Item, Predictor
    from boneage_jax.predict.results import Result
    from boneage_jax.predict.worklist import Request

NAME = "predict"
HELP = "read the bone age from radiographs"
_BATCH_SIZE = 8
_OLDEST = 25.0  # years


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its flags."""
    parser.add_argument(
        "paths", type=Path, nargs="+", metavar="FILE|FOLDER", help="radiographs, or folders that hold some"
    )
    parser.add_argument(
        "--sex",
        type=_sex,
        metavar="F|M|unknown",
        help="of the children in all files that --labels does not list; unknown gives a reading of each; "
        "may be left out for DICOM files that name it",
    )
    parser.add_argument(
        "--labels", type=Path, metavar="CSV", help="sexes: columns id (file name without ending), and male or sex"
    )
    parser.add_argument("--weights", metavar="NAME|FILE", help="default: the most accurate ones in the package")
    parser.add_argument(
        "--age",
        type=_months,
        metavar="YEARS",
        help="chronological age of the child, such as 9.5, to compare with; default: what the header of a DICOM says",
    )
    parser.add_argument("--heatmap", type=Path, metavar="DIR", help="folder for pictures of what moved the readings")
    parser.add_argument("--format", choices=("table", "json", "csv"), default="table", help="default: table")
    parser.add_argument("--strict", action="store_true", help="refuse what would only be warned about")


def run(arguments: argparse.Namespace) -> int:
    """Predicts file by file; a bad one is reported and does not stop the rest."""
    from tqdm import tqdm

    from boneage_jax import load
    from boneage_jax.predict import worklist, writers  # what follows jax takes seconds to import
    from boneage_jax.released import weights

    requests = worklist.gather(arguments.paths, arguments.sex, arguments.labels)
    predictor = load(arguments.weights or weights.most_accurate())
    _refuse_further_inputs(predictor)
    heatmaps = _Heatmaps(predictor, requests, arguments.heatmap) if arguments.heatmap else None
    writer = writers.make(arguments.format, [one.name for one in requests])
    quiet = len(requests) == 1 or not sys.stderr.isatty()
    results: list[Result] = []
    with tqdm(total=len(requests), unit=" images", desc="predicting", disable=quiet) as bar:
        _print(writer.begin())
        for result in _results(predictor, requests, heatmaps, arguments):
            with bar.external_write_mode():
                _report(result)
                _print(writer.each(result))
            results.append(result)
            bar.update()
        _print(writer.end())
    return _status(results)


def _results(
    predictor: "Predictor", requests: "list[Request]", heatmaps: "_Heatmaps | None", arguments: argparse.Namespace
) -> "Iterator[Result]":
    """One for each request, in their order."""
    from boneage_jax.predict import results
    from boneage_jax.predict.predictor import Item, MissingSexError

    inputs = _inputs(predictor, arguments.age)
    items = {i: Item(one.file, one.sex, inputs) for i, one in enumerate(requests) if one.file and not one.error}
    batch_size = _BATCH_SIZE if len(items) >= _BATCH_SIZE else 1
    found = predictor.predict_many(items.values(), batch_size=batch_size, on_error="yield")
    for place, request in enumerate(requests):
        prediction = next(found) if place in items else None
        if prediction is None:
            yield results.failed(request.name, request.error)
        elif isinstance(prediction, MissingSexError):
            hint = f"with --sex, or as {Path(request.place).stem} in the table of --labels"
            yield results.failed(request.name, f"{prediction} ({hint})")
        elif isinstance(prediction, BoneAgeError):
            yield results.failed(request.name, str(prediction))
        else:
            result = results.result(request.name, prediction, request.sex_from, arguments.age, strict=arguments.strict)
            shown = items[place]._replace(sex=prediction.sex)
            yield result if heatmaps is None or result.error else heatmaps.added(result, place, shown)


class _Heatmaps:
    """Writes the heat maps of requests into a folder."""

    def __init__(self, predictor: "Predictor", requests: "list[Request]", folder: Path):
        from boneage_jax.predict import heatmap, worklist

        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or error
            raise BoneAgeError(f"the folder {folder} of --heatmap cannot be made: {reason}; name another") from error
        self._predictor = predictor
        self._paths = worklist.heatmap_paths(folder, requests)
        self._maps = heatmap.Maps(predictor)

    def added(self, result: "Result", place: int, item: "Item") -> "Result":
        """The result of the item at this place of the requests, with its heat map."""
        from boneage_jax.predict import heatmap

        pixels = self._predictor.look(item.image).pixels
        heatmap.write(self._paths[place], self._maps.overlay(item._replace(image=pixels)))
        return dataclasses.replace(result, heatmap=str(self._paths[place]))


def _inputs(predictor: "Predictor", age: float | None) -> dict[str, Any]:
    from boneage_jax.data.inputs import CHRONOLOGICAL_AGE

    reads_age = any(spec.name == CHRONOLOGICAL_AGE for spec in predictor.network.inputs)
    return {CHRONOLOGICAL_AGE: age} if reads_age and age is not None else {}


def _refuse_further_inputs(predictor: "Predictor") -> None:
    from boneage_jax.data.inputs import CHRONOLOGICAL_AGE

    if others := [spec.name for spec in predictor.network.inputs if spec.name != CHRONOLOGICAL_AGE]:
        raise BoneAgeError(
            f"the weights {predictor.header.name!r} also read {', '.join(others)}, for which there is no flag; "
            "in Python, boneage_jax.load(...).predict(..., inputs=...) takes them"
        )


def _report(result: "Result") -> None:
    """Errors, warnings and notes, on stderr."""
    if result.error:
        print(f"error: {result.error}", file=sys.stderr)
        return
    for kind, sentences in (("warning", result.warnings), ("note", result.notes)):
        for sentence in sentences:
            print(f"{result.file}: {kind}: {sentence}", file=sys.stderr)


def _status(results: "list[Result]") -> int:
    failures = sum(bool(result.error) for result in results)
    if len(results) > 1 and failures:
        print(f"{len(results) - failures} of {len(results)} read, {failures} not", file=sys.stderr)
    return 0 if not failures else 1 if failures == len(results) else 2


def _print(text: str) -> None:
    if text:
        print(text, flush=True)


def _sex(text: str) -> str:
    if text.casefold() == "unknown":
        return "unknown"
    try:
        return Sex.parse(text).letter
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is none of F, M and unknown") from None


def _months(text: str) -> float:
    try:
        years = float(text)
    except ValueError:
        years = -1.0
    if not 0 <= years <= _OLDEST:
        raise argparse.ArgumentTypeError(f"{text!r} is no age in years from 0 to {_OLDEST:.0f}, such as 9.5")
    return 12 * years
