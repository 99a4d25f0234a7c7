"""Functions shared by the commands that read radiographs: flags about the child, reading, and messages."""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

from boneage_jax.errors import BoneAgeError
from boneage_jax.terminal import printable

if TYPE_CHECKING:
    from boneage_jax.predict.items import Item
    from boneage_jax.predict.prediction import Prediction, Provenance
    from boneage_jax.predict.predictor import Predictor
    from boneage_jax.predict.results import Result
    from boneage_jax.predict.worklist import Request, Worklist

_Value = TypeVar("_Value")
_BATCH_SIZE = 8
_NAMED = 10  # most skipped files that are listed by name


@runtime_checkable
class Follower(Protocol):
    """Processes an image after it has been read, for example by drawing its heat map."""

    def added(self, result: "Result", place: int, item: "Item") -> "Result":
        """Returns the result that replaces `result`, of request number `place`; the item's file is held in memory."""


def read(
    predictor: "Predictor", requests: "Sequence[Request]", follower: Follower | None, *, accept_warnings: bool
) -> "Iterator[Result]":
    """Reads the requests in order; a bad one yields a result with an error, and the others are still read."""
    from boneage_jax.data.files import File
    from boneage_jax.predict import further_inputs
    from boneage_jax.predict.items import Item

    items = {
        place: Item(one.file, one.sex, further_inputs.from_age(predictor, one.age))
        for place, one in enumerate(requests)
        if one.file and not one.error
    }
    held: dict[int, File] = {}  # contents kept in memory, so that a heat map shows the same image that was read

    def given() -> "Iterator[Item]":
        for place, item in items.items():
            with contextlib.suppress(BoneAgeError):  # The predictor reports why a file cannot be read.
                if follower is not None and isinstance(item.image, File):
                    held[place] = item.image.held()
            yield item._replace(image=held.get(place, item.image))

    batch_size = _BATCH_SIZE if len(items) >= _BATCH_SIZE else 1
    found = predictor.predict_many(given(), batch_size=batch_size, on_error="yield", accept_warnings=accept_warnings)
    for place, request in enumerate(requests):
        prediction = next(found) if place in items else BoneAgeError(request.error)
        file = held.pop(place, None)
        result = _result(request, prediction, predictor.provenance())
        if follower is not None and file is not None and not result.error:
            result = follower.added(result, place, items[place]._replace(image=file, sex=result.sex))
        yield result


def _result(request: "Request", prediction: "Prediction | BoneAgeError", provenance: "Provenance") -> "Result":
    from boneage_jax.data.radiograph import without_ending
    from boneage_jax.predict import results
    from boneage_jax.predict.prediction import MissingSexError, RefusedImageError

    if isinstance(prediction, MissingSexError):
        hint = f"with --sex, or as {Path(without_ending(request.place)).name} in the table of --labels"
        return results.failed(request.name, f"{prediction} ({hint})", provenance)
    if isinstance(prediction, RefusedImageError):
        return results.refused(request.name, prediction, "--accept-warnings reads it anyway", provenance)
    if isinstance(prediction, BoneAgeError):
        return results.failed(request.name, str(prediction), provenance)
    return results.result(prediction, request)


def refuse_further_inputs(predictor: "Predictor") -> None:
    """Raises BoneAgeError if these weights need an input that no flag provides."""
    from boneage_jax.data.inputs import CHRONOLOGICAL_AGE
    from boneage_jax.predict import further_inputs

    further_inputs.refuse_others(
        predictor,
        (CHRONOLOGICAL_AGE,),
        "which no flag provides; in Python, pass them to boneage_jax.load(...).predict(..., inputs=...)",
    )


def print_worklist(work: "Worklist") -> None:
    """Prints the names of the skipped files, by folder, and the messages about the label table to stderr."""
    for folder, names in work.left_out.items():
        more = f", and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        what = "1 file is not an image and was" if len(names) == 1 else f"{len(names)} files are not images and were"
        print(printable(f"{folder}: note: {what} left out: {', '.join(names[:_NAMED])}{more}"), file=sys.stderr)
    for kind, sentences in (("warning", work.warnings), ("note", work.notes)):
        for sentence in sentences:
            print(printable(f"{kind}: {sentence}"), file=sys.stderr)


def print_messages(result: "Result") -> None:
    """Prints the error, or the warnings and notes, of a result to stderr."""
    if result.error:
        print(printable(f"error: {result.error}"), file=sys.stderr)
        return
    for kind, sentences in (("warning", result.warnings), ("note", result.notes)):
        for sentence in sentences:
            print(printable(f"{result.file}: {kind}: {sentence}"), file=sys.stderr)


def status(results: "Sequence[Result]") -> int:
    """Exit status: 0 if all were read; 1 if none was read and none was refused; 2 in all other cases."""
    failures = sum(bool(result.error) for result in results)
    if len(results) > 1 and failures:
        print(f"{len(results) - failures} of {len(results)} read, {failures} not", file=sys.stderr)
    if not failures:
        return 0
    return 1 if failures == len(results) and not any(result.refused for result in results) else 2


def sex(text: str) -> str:
    """Parses --sex: F, M or unknown."""
    from boneage_jax.data.child import parse_sex

    return _flag(parse_sex, text)


def months(text: str) -> float:
    """Parses --age in years; returns months."""
    from boneage_jax.data.child import parse_age

    return _flag(parse_age, text)


def _flag(parse: Callable[[str], _Value], text: str) -> _Value:
    try:
        return parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
