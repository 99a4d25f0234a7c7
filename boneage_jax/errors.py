"""The exceptions that users see: one sentence on what is wrong, where, and what to do."""

import difflib
from collections.abc import Iterable


class BoneAgeError(Exception):
    """A mistake in the input, the configuration or a file, described in one clear sentence.

    The command line prints the sentence without a traceback and exits with `exit_status`.
    """

    exit_status = 1


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: "; did you mean xception?", or "" if no known name is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def listed(names: Iterable[str], most: int = 10) -> str:
    """The first `most` names, followed by an ellipsis if there are more."""
    names = list(names)
    return ", ".join(names[:most]) + ", ..." * (len(names) > most)


def where(error: BaseException) -> str:
    """Type and source line of an unexpected error, without its message, which may quote a DICOM header."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    line = "" if place is None else f" at {place.tb_frame.f_code.co_filename}:{place.tb_lineno}"
    return f"{type(error).__name__}{line}"
