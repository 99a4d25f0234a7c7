"""`boneage`: the command line of those who use trained weights; `launch.py` is that of those who train."""

import argparse
import io
import logging
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from boneage_jax import program
from boneage_jax.commands import combine_weights, evaluate, export_weights, info, listen, predict, report, serve
from boneage_jax.version import __version__

COMMANDS: tuple[ModuleType, ...] = (predict, report, serve, listen, info, evaluate, export_weights, combine_weights)


def command() -> NoReturn:
    """The command as a process of its own."""
    program.leave(main)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: that of the subcommand; 1 after an error, wrong arguments too; see `program.run` for the others."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # Names of files may hold what the terminal's encoding does not.
            stream.reconfigure(errors="backslashreplace")
    # Its decoders log a traceback of each damaged file, and the file's own error has the reason.
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    arguments = _parser().parse_args(argv)
    return program.run(lambda: arguments.run(arguments))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Ends with status 1, as every error does; argparse's 2 is what `predict` says when some files failed."""
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
