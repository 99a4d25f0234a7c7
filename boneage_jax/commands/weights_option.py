"""The flag --weights of the commands that read radiographs or describe weights."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from boneage_jax.predict.predictor import Predictor


def add(parser: argparse.ArgumentParser) -> None:
    """Adds --weights to a parser."""
    parser.add_argument(
        "--weights", metavar="NAME|FILE", help="name or file of the weights; default: the most accurate in the package"
    )


def name(arguments: argparse.Namespace) -> str:
    """The name or file that --weights gives, or the name of the most accurate weights in the package.

    Raises:
        BoneAgeError: the flag is not given, and the package has no weights.
    """
    from boneage_jax.released import weights  # jax takes seconds to import

    return weights.most_accurate() if arguments.weights is None else arguments.weights


def load(arguments: argparse.Namespace) -> "Predictor":
    """The predictor of the weights that --weights names.

    Raises:
        BoneAgeError: there is no such file, or it cannot be used.
    """
    import boneage_jax  # jax takes seconds to import

    return boneage_jax.load(name(arguments))
