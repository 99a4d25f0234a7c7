"""Reads the bone age from radiographs: image and DICOM files, and whole folders and zip archives of them.

Results go to stdout, everything else to stderr. An image that fails the input checks is refused: it gets no bone
age unless --accept-warnings is given. Exit status: 0 if every file was read; 2 if some files could not be read, were
refused, or lack a picture or DICOM objects; 1 if no file could be read and none was refused, or if the command itself
is wrong; 130 after Ctrl-C, 143 after SIGTERM.
"""

import argparse
import sys
from typing import TYPE_CHECKING

from boneage_jax import program
from boneage_jax.commands import paths, reading, weights_option
from boneage_jax.commands.interrupts import Interrupts

if TYPE_CHECKING:
    from boneage_jax.predict.results import Result

NAME = "predict"
HELP = "read the bone age from radiographs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this command to its parser."""
    parser.add_argument(
        "paths",
        type=paths.path,
        nargs="+",
        metavar="FILE|FOLDER",
        help="radiographs, or folders and zip archives of them",
    )
    parser.add_argument(
        "--sex",
        type=reading.sex,
        metavar="F|M|unknown",
        help="sex of the children in files that --labels does not list; unknown: one reading for each sex; optional "
        "for DICOM files that name it in their header",
    )
    parser.add_argument(
        "--labels",
        type=paths.path,
        metavar="CSV",
        help="sexes and ages: columns id (file name); sex, gender or male; age (years), age_months, or date and "
        "birth_date",
    )
    weights_option.add(parser)
    parser.add_argument(
        "--age",
        type=reading.months,
        metavar="YEARS",
        help="chronological age to compare the bone age with, such as 9.5, for a single file; default: the age in "
        "--labels or in the DICOM header",
    )
    parser.add_argument(
        "--heatmap",
        type=paths.path,
        metavar="DIR",
        help="folder for heat maps: pictures of the regions that influenced the readings",
    )
    parser.add_argument(
        "--regions",
        type=paths.path,
        metavar="DIR",
        help="folder for pictures of the ossification regions; --format json lists their boxes and bone ages",
    )
    parser.add_argument(
        "--dicom-out",
        type=paths.path,
        metavar="DIR",
        help="folder for a Structured Report and a Secondary Capture for each DICOM image",
    )
    parser.add_argument(
        "--format", choices=("table", "json", "csv"), default="table", help="output format; default: table"
    )
    parser.add_argument(
        "--accept-warnings", action="store_true", help="also read images that fail the input checks, with a warning"
    )


def run(arguments: argparse.Namespace) -> int:
    """Predicts one file after the other; reports a bad file and continues with the rest."""
    from tqdm import tqdm

    from boneage_jax.commands.outputs import Outputs
    from boneage_jax.predict import worklist, writers  # these imports load jax, which takes seconds

    work = worklist.gather(arguments.paths, arguments.sex, arguments.age, arguments.labels)
    reading.print_worklist(work)
    predictor = weights_option.load(arguments)
    reading.refuse_further_inputs(predictor)
    outputs = None
    if arguments.heatmap or arguments.regions or arguments.dicom_out:
        outputs = Outputs(predictor, work.requests, arguments.heatmap, arguments.regions, arguments.dicom_out)
    writer = writers.make(arguments.format, [one.name for one in work.requests])
    quiet = len(work.requests) == 1 or not sys.stderr.isatty()
    results: list[Result] = []
    with (
        Interrupts() as interrupts,
        tqdm(total=len(work.requests), unit=" images", desc="predicting", disable=quiet) as bar,
    ):
        try:
            with interrupts.held():
                _print(writer.begin())
            for result in reading.read(predictor, work.requests, outputs, accept_warnings=arguments.accept_warnings):
                with interrupts.held(), bar.external_write_mode():
                    results.append(result)
                    reading.print_messages(result)
                    _print(writer.each(result))
                bar.update()
        except KeyboardInterrupt:
            print(f"stopped: {len(results)} of {len(work.requests)} files were processed", file=sys.stderr)
        finally:
            _print(writer.end())
    if interrupts.received is not None:
        return program.exit_status(interrupts.received)
    unmapped = arguments.heatmap is not None and any(result.heatmap is None for result in results)
    undrawn = arguments.regions is not None and any(not (result.regions or {}).get("picture") for result in results)
    return reading.status(results) or (2 if unmapped or undrawn else 0)


def _print(text: str) -> None:
    if text:
        print(text, flush=True)
