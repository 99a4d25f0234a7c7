"""The type of flags and arguments that name a file or a folder."""

import argparse
from pathlib import Path


def path(text: str) -> Path:
    """Parses the name of a file or folder.

    An empty name is refused: as a `Path` it would be the current folder, and it usually comes from an unset variable of
    a shell script.
    """
    if not text:
        raise argparse.ArgumentTypeError("the name is empty; give the name of a file or folder")
    return Path(text)
