"""Packs the best checkpoint of a training run as one file of weights, with its model card beside it."""

import argparse

from boneage_jax.commands import paths

NAME = "export-weights"
HELP = "export a run's best checkpoint to one file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this command to its parser."""
    parser.add_argument("--workdir", type=paths.path, required=True, help="folder of the training run")
    parser.add_argument("--out", type=paths.path, required=True, help="file to write, .safetensors")
    parser.add_argument(
        "--storage",
        default="float32",
        help="dtype of the stored kernels: float32 (default), bfloat16 or float16; vectors stay float32",
    )
    parser.add_argument("--split", help="split to calibrate and measure on; default: the run's evaluate.split")
    parser.add_argument(
        "--views", help="views to average: centre, flip, rotations or ten_crop; default: the run's evaluate.views"
    )
    parser.add_argument("--data-dir", type=paths.path, help="folder of the data; default: the folder that the run used")
    parser.add_argument(
        "--checks",
        type=int,
        metavar="N",
        help="most radiographs of the data's training split to fit the input checks on, at least 100; 0 for no checks; "
        "default: 8000",
    )
    parser.add_argument(
        "--source",
        metavar="TEXT",
        help="who provided the training data, for header and model card; default: the RSNA challenge if the labels are "
        "its official ones, otherwise nobody",
    )
    parser.add_argument(
        "--no-calibration", action="store_true", help="do not calibrate: no bias correction and no intervals"
    )


def run(arguments: argparse.Namespace) -> int:
    """Writes the weights and their model card; the exit status is 0."""
    from boneage_jax.data.files import make_folder  # jax and the data pipeline take seconds to import
    from boneage_jax.evaluate import report
    from boneage_jax.export.pack import CHECKS_IMAGES, export

    make_folder(arguments.out.parent, "--out")
    header = export(
        arguments.workdir.absolute(),
        arguments.out,
        storage=arguments.storage,
        split=arguments.split,
        data_dir=None if arguments.data_dir is None else str(arguments.data_dir),
        views=arguments.views,
        calibrated=not arguments.no_calibration,
        checks=CHECKS_IMAGES if arguments.checks is None else arguments.checks,
        source=arguments.source,
    )
    print(report.table(header.figures))
    if header.calibration is not None:
        measured = header.figures["calibration"]
        print(
            f"\ncross-fitted: MAE {measured['mae']:.2f} months ({measured['mae_uncorrected']:.2f} uncorrected), "
            f"{100 * measured['coverage']:.1f} % within the 90 % interval, mean width {measured['width']:.1f} months"
        )
    card = arguments.out.with_suffix(".md")
    print(f"\nwritten to {arguments.out} ({arguments.out.stat().st_size / 1e6:.1f} MB) and {card}")
    return 0
