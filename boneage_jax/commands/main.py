"""`boneage`: the command line for using trained weights; `launch.py` is the one for training."""

import argparse
import io
import logging
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from boneage_jax import program
from boneage_jax.commands import (
    calibrate,
    combine_weights,
    evaluate,
    export_weights,
    info,
    listen,
    predict,
    report,
    serve,
)
from boneage_jax.version import __version__

COMMANDS: tuple[ModuleType, ...] = (
    predict,
    report,
    serve,
    listen,
    info,
    evaluate,
    calibrate,
    export_weights,
    combine_weights,
)


def command() -> NoReturn:
    """Runs the command line and ends the process."""
    program.leave(main)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status of the subcommand; 1 after an error, wrong arguments included; see `program.run`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # File names may contain characters outside the terminal's encoding.
            stream.reconfigure(errors="backslashreplace")
    # Its decoders log a traceback for each damaged file; the error of the file already gives the reason.
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    arguments = _parser().parse_args(argv)
    return program.run(lambda: arguments.run(arguments))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Exits with status 1, like every error; argparse's 2 is the status of `predict` if only some files failed."""
        self.print_usage(sys.stderr)
        self.exit(1, f"error: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="boneage",
        description="Bone age from hand radiographs. Research software, not a medical device.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"boneage_jax {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        subparser = subparsers.add_parser(
            command.NAME, help=command.HELP, description=command.__doc__, allow_abbrev=False
        )
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
    return parser
