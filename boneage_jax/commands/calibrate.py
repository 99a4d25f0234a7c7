"""Fits the calibration of trained weights anew to labelled radiographs, without a training.

Bias correction and intervals are fitted to at least 100 images that the networks were not trained on, for weights that
read regions 100 of each region; the networks, their preprocessing and the checks of input images stay the same.
"""

import argparse

from boneage_jax.commands import labelled, paths, weights_option

NAME = "calibrate"
HELP = "fit bias correction and intervals of weights to labelled images of your own"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this command to its parser."""
    labelled.add_arguments(parser)
    parser.add_argument("--out", type=paths.path, required=True, help="weights file to write, .safetensors")
    parser.add_argument(
        "--source", metavar="TEXT", help="who provided the images, for header and model card; default: nobody is named"
    )


def run(arguments: argparse.Namespace) -> int:
    """Writes the weights, their model card and the report on the images; the exit status is 0."""
    from boneage_jax.evaluate import report  # these imports load jax, which takes seconds
    from boneage_jax.export.recalibration import recalibrate

    predictor = weights_option.load(arguments)
    images, items = labelled.find(arguments, predictor.network.inputs)
    done = recalibrate(
        predictor.weights,
        arguments.out,
        images=images,
        items=items,
        hospitals=labelled.hospitals(arguments, images),
        split=arguments.labels.stem,
        source=arguments.source,
        on_error="yield" if arguments.on_missing == "skip" else "raise",
    )
    after, before = done.header.figures["calibration"], done.coverage_before
    covered = "none" if before is None else f"{100 * before:.1f} %"
    size, described = arguments.out.stat().st_size / 1e6, arguments.out.with_suffix(".md")
    print(report.table(done.header.figures))
    which = " that every network reads" if predictor.weights.members else ""
    print(f"\non the {after['images']:,} images{which}:")
    print(f"before: MAE {done.mae_before:.2f} months, within the 90 % interval: {covered}")
    print(
        f"now, cross-fitted: MAE {after['mae']:.2f} months, within the 90 % interval: {100 * after['coverage']:.1f} %, "
        f"mean width {after['width']:.1f} months"
    )
    print(f"\nwritten to {arguments.out} ({size:.1f} MB), {described} and {arguments.out.with_suffix('')}")
    return 0
