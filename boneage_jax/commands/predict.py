"""Reads the bone age from radiographs: image and DICOM files, and whole folders and zip archives of them.

Results go to stdout, everything else to stderr. An image that the checks distrust is refused: it gets no bone age
unless --accept-warnings is given. Exit status: 0 if every file was read, 2 if some could not be, were refused or lack
a picture that was asked for, 1 if none could be read and none was refused, or if the command itself is wrong, 130 after
Ctrl-C.
"""

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from boneage_jax.commands.interrupts import Interrupts
from boneage_jax.errors import BoneAgeError
from boneage_jax.sex import Sex
from boneage_jax.terminal import printable

if TYPE_CHECKING:
    from boneage_jax.predict.prediction import Prediction, Provenance
    from boneage_jax.predict.predictor import Item, Predictor
    from boneage_jax.predict.results import Result
    from boneage_jax.predict.worklist import Request

NAME = "predict"
HELP = "read the bone age from radiographs"
_BATCH_SIZE = 8
_NAMED = 10  # of the files that were left out


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its flags."""
    parser.add_argument(
        "paths", type=Path, nargs="+", metavar="FILE|FOLDER", help="radiographs, or folders and zip archives of them"
    )
    parser.add_argument(
        "--sex",
        type=_sex,
        metavar="F|M|unknown",
        help="of the children in all files that --labels does not list; unknown gives a reading of each; "
        "may be left out for DICOM files that name it",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="CSV",
        help="sexes and ages: columns id (file name), and sex, gender or male, and age (years) or age_months",
    )
    parser.add_argument("--weights", metavar="NAME|FILE", help="default: the most accurate ones in the package")
    parser.add_argument(
        "--age",
        type=_months,
        metavar="YEARS",
        help="chronological age of the child in a single file, such as 9.5, to compare with; default: that of --labels "
        "or the header of a DICOM",
    )
    parser.add_argument("--heatmap", type=Path, metavar="DIR", help="folder for pictures of what moved the readings")
    parser.add_argument(
        "--regions", type=Path, metavar="DIR", help="folder for pictures of the growth plates; JSON lists their boxes"
    )
    parser.add_argument("--format", choices=("table", "json", "csv"), default="table", help="default: table")
    parser.add_argument(
        "--accept-warnings", action="store_true", help="read images that the checks distrust too, with their warnings"
    )


def run(arguments: argparse.Namespace) -> int:
    """Predicts file by file; a bad one is reported and does not stop the rest."""
    from tqdm import tqdm

    from boneage_jax import load
    from boneage_jax.predict import worklist, writers  # what follows jax takes seconds to import
    from boneage_jax.released import weights

    work = worklist.gather(arguments.paths, arguments.sex, arguments.age, arguments.labels)
    _report_left_out(work.left_out)
    predictor = load(arguments.weights or weights.most_accurate())
    _refuse_further_inputs(predictor)
    pictures: list[_Pictures] = []
    if arguments.heatmap:
        pictures.append(_Heatmaps(predictor, work.requests, arguments.heatmap))
    if arguments.regions:
        pictures.append(_Overlays(predictor, work.requests, arguments.regions))
    writer = writers.make(arguments.format, [one.name for one in work.requests])
    quiet = len(work.requests) == 1 or not sys.stderr.isatty()
    results: list[Result] = []
    with (
        Interrupts() as interrupts,
        tqdm(total=len(work.requests), unit=" images", desc="predicting", disable=quiet) as bar,
    ):
        try:
            with interrupts.held():
                _print(writer.begin())
            for result in _results(predictor, work.requests, pictures, accept_warnings=arguments.accept_warnings):
                with interrupts.held(), bar.external_write_mode():
                    results.append(result)
                    _report(result)
                    _print(writer.each(result))
                bar.update()
        except KeyboardInterrupt:
            print(f"stopped: {len(results)} of {len(work.requests)} files were looked at", file=sys.stderr)
        finally:
            _print(writer.end())
    if interrupts.received is not None:
        return 128 + interrupts.received
    return _status(results, pictures)


def _results(
    predictor: "Predictor", requests: "Sequence[Request]", pictures: "Sequence[_Pictures]", *, accept_warnings: bool
) -> "Iterator[Result]":
    """One for each request, in their order."""
    from boneage_jax.data.files import File
    from boneage_jax.predict.predictor import Item

    items = {
        place: Item(one.file, one.sex, _inputs(predictor, one.age))
        for place, one in enumerate(requests)
        if one.file and not one.error
    }
    held: dict[int, File] = {}  # with their contents in memory: pictures show the image that was read

    def given() -> "Iterator[Item]":
        for place, item in items.items():
            with contextlib.suppress(BoneAgeError):  # The predictor says why a file cannot be read.
                if pictures and isinstance(item.image, File):
                    held[place] = item.image.held()
            yield item._replace(image=held.get(place, item.image))

    batch_size = _BATCH_SIZE if len(items) >= _BATCH_SIZE else 1
    found = predictor.predict_many(given(), batch_size=batch_size, on_error="yield", accept_warnings=accept_warnings)
    for place, request in enumerate(requests):
        prediction = next(found) if place in items else BoneAgeError(request.error)
        file = held.pop(place, None)
        result = _result(request, prediction, predictor.provenance())
        if file is not None and not result.error:
            for one in pictures:
                result = one.added(result, place, items[place]._replace(image=file, sex=result.sex))
        yield result


def _result(request: "Request", prediction: "Prediction | BoneAgeError", provenance: "Provenance") -> "Result":
    from boneage_jax.predict import results
    from boneage_jax.predict.prediction import MissingSexError, RefusedImageError

    if isinstance(prediction, MissingSexError):
        hint = f"with --sex, or as {Path(request.place).stem} in the table of --labels"
        return results.failed(request.name, f"{prediction} ({hint})", provenance)
    if isinstance(prediction, RefusedImageError):
        return results.refused(request.name, prediction, "--accept-warnings reads it all the same.", provenance)
    if isinstance(prediction, BoneAgeError):
        return results.failed(request.name, str(prediction), provenance)
    return results.result(prediction, request)


class _Pictures(Protocol):
    """Writes a picture for each request."""

    def added(self, result: "Result", place: int, item: "Item") -> "Result":
        """The result of the item at this place of the requests, with its picture, or a warning that it has none."""

    def lacks(self, result: "Result") -> bool:
        """Whether the picture of a result could not be made."""


class _Heatmaps:
    """Writes the heat maps of requests into a folder."""

    def __init__(self, predictor: "Predictor", requests: "Sequence[Request]", folder: Path):
        from boneage_jax.predict import heatmap, worklist

        _make(folder, "--heatmap")
        self._paths = worklist.picture_paths(folder, requests, worklist.HEATMAP_ENDING)
        self._maps = heatmap.Maps(predictor)

    def lacks(self, result: "Result") -> bool:
        return result.heatmap is None

    def added(self, result: "Result", place: int, item: "Item") -> "Result":
        from boneage_jax.predict import heatmap

        try:
            heatmap.write(self._paths[place], self._maps.overlay(item))
        except BoneAgeError as error:
            return dataclasses.replace(result, warnings=(*result.warnings, f"There is no heat map: {error}."))
        return dataclasses.replace(result, heatmap=str(self._paths[place]))


class _Overlays:
    """Finds the regions of requests and writes their overlays into a folder."""

    def __init__(self, predictor: "Predictor", requests: "Sequence[Request]", folder: Path):
        from boneage_jax.predict import regions, worklist

        _make(folder, "--regions")
        self._paths = worklist.picture_paths(folder, requests, worklist.REGIONS_ENDING)
        self._finder = regions.RegionFinder(predictor)

    def lacks(self, result: "Result") -> bool:
        return result.regions is None or result.regions["picture"] is None

    def added(self, result: "Result", place: int, item: "Item") -> "Result":
        from boneage_jax.predict import heatmap

        found, overlay = self._finder.find(item.image)
        path: str | None = str(self._paths[place])
        try:
            heatmap.write(self._paths[place], overlay)
        except BoneAgeError as error:
            path = None
            result = dataclasses.replace(
                result, warnings=(*result.warnings, f"There is no picture of the regions: {error}.")
            )
        return dataclasses.replace(result, regions={**found, "picture": path})


def _make(folder: Path, flag: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise BoneAgeError(f"the folder {folder} of {flag} cannot be made: {reason}; name another") from error


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


def _report_left_out(left_out: "Mapping[str, Sequence[str]]") -> None:
    for folder, names in left_out.items():
        more = f", and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        what = "1 file is no image and was" if len(names) == 1 else f"{len(names)} files are no images and were"
        print(printable(f"{folder}: note: {what} left out: {', '.join(names[:_NAMED])}{more}"), file=sys.stderr)


def _report(result: "Result") -> None:
    """Errors, warnings and notes, on stderr."""
    if result.error:
        print(printable(f"error: {result.error}"), file=sys.stderr)
        return
    for kind, sentences in (("warning", result.warnings), ("note", result.notes)):
        for sentence in sentences:
            print(printable(f"{result.file}: {kind}: {sentence}"), file=sys.stderr)


def _status(results: "list[Result]", pictures: "Sequence[_Pictures]") -> int:
    failures = sum(bool(result.error) for result in results)
    if len(results) > 1 and failures:
        print(f"{len(results) - failures} of {len(results)} read, {failures} not", file=sys.stderr)
    if failures:
        return 1 if failures == len(results) and not any(result.refused for result in results) else 2
    return 2 if any(one.lacks(result) for one in pictures for result in results) else 0


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
    from boneage_jax.data.labels import OLDEST

    try:
        years = float(text)
    except ValueError:
        years = -1.0
    if not 0 <= years <= OLDEST:
        raise argparse.ArgumentTypeError(f"{text!r} is no age in years from 0 to {OLDEST:.0f}, such as 9.5")
    return 12 * years
