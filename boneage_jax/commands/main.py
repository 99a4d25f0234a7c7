"""`boneage`: the command line of those who use trained weights; `launch.py` is that of those who train."""

import argparse
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from boneage_jax.commands import evaluate, export_weights, listen, predict
from boneage_jax.errors import BoneAgeError
from boneage_jax.version import __version__

COMMANDS: tuple[ModuleType, ...] = (predict, listen, evaluate, export_weights)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0; 1 after an error, wrong arguments too; what a subcommand says."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except BoneAgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `| head` has seen enough; without this, closing stdout would fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


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
