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
