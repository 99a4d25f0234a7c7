"""Combines several files of weights into one that averages their readings, with a joint calibration."""

import argparse

from boneage_jax.commands import paths

NAME = "combine-weights"
HELP = "combine several networks in one file, with a joint calibration"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this command to its parser."""
    parser.add_argument(
        "weights", nargs="+", metavar="NAME|FILE", help="two or more weights; heat maps show the first one"
    )
    parser.add_argument("--out", type=paths.path, required=True, help="file to write, .safetensors")
    parser.add_argument(
        "--data-dir", type=paths.path, required=True, help="the folder with the data that they were trained on"
    )


def run(arguments: argparse.Namespace) -> int:
    """Writes the weights, their model card and the report on the validation split; the exit status is 0."""
    from boneage_jax.evaluate import report  # these imports load jax, which takes seconds
    from boneage_jax.export.ensemble import combine
    from boneage_jax.released import weights

    files = [weights.find(one) for one in arguments.weights]
    header = combine(files, arguments.out, data_dir=arguments.data_dir)
    print(report.table(header.figures))
    size, card = arguments.out.stat().st_size / 1e6, arguments.out.with_suffix(".md")
    print(f"\nwritten to {arguments.out} ({size:.1f} MB), {card} and {arguments.out.with_suffix('')}")
    return 0
