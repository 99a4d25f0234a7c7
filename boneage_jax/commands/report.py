"""Writes one page about a child: radiograph, heat map, bone age and chronological age, and a chart of all visits.

Exit status: 0 if the page shows every file, 2 if some could not be read or were refused (the page names them). If none
could be read, there is no page, and the status is that of `predict`.
"""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from boneage_jax import extras
from boneage_jax.atomic_files import write_bytes
from boneage_jax.commands import paths, reading, weights_option

if TYPE_CHECKING:
    from boneage_jax.predict.items import Item
    from boneage_jax.predict.results import Result

NAME = "report"
HELP = "write a page about a child, as HTML or PDF"
_PACKAGES = {".html": ("jinja2",), ".pdf": ("jinja2", "weasyprint")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this command to its parser."""
    parser.add_argument(
        "path",
        type=paths.path,
        metavar="FILE|FOLDER",
        help="a radiograph, or a folder with the radiographs of one child's visits",
    )
    parser.add_argument(
        "--sex", type=reading.sex, metavar="F|M", help="sex of the child; optional for DICOM files that name it"
    )
    parser.add_argument(
        "--age",
        type=reading.months,
        metavar="YEARS",
        help="chronological age on the day of a single radiograph, such as 9.5; default: the age in --labels or in the "
        "DICOM header",
    )
    parser.add_argument(
        "--labels",
        type=paths.path,
        metavar="CSV",
        help="table of the visits, with the columns id (file name); date (such as 2024-05-31); birth_date, age (years) "
        "or age_months",
    )
    weights_option.add(parser)
    parser.add_argument("--out", type=_page, required=True, metavar="FILE", help="page to write, .html or .pdf")
    parser.add_argument(
        "--accept-warnings", action="store_true", help="also read images that fail the input checks, with a warning"
    )


def run(arguments: argparse.Namespace) -> int:
    """Reads the visits and writes the page."""
    extras.require("boneage report", "report", *_PACKAGES[arguments.out.suffix.lower()])
    from boneage_jax.data.files import make_folder  # these imports load jax, which takes seconds
    from boneage_jax.predict import heatmap, worklist
    from boneage_jax.report import page, visits

    is_pdf = arguments.out.suffix.lower() == ".pdf"
    if is_pdf:
        page.check_pdf()
    make_folder(arguments.out.parent, "--out")
    work = worklist.gather([arguments.path], arguments.sex, arguments.age, arguments.labels)
    reading.print_worklist(work)
    predictor = weights_option.load(arguments)
    reading.refuse_further_inputs(predictor)
    images = _Images()
    results: list[Result] = []
    for result in reading.read(predictor, work.requests, images, accept_warnings=arguments.accept_warnings):
        reading.print_messages(result)
        results.append(result)
    found = {
        place: visits.Visit(request.place, result, request.date)
        for place, (result, request) in enumerate(zip(results, work.requests, strict=True))
        if not result.error
    }
    if found:
        order = visits.in_order(found)
        visits.refuse_several_children([images.items[place].image for place in order])
        maps = heatmap.find_maps(predictor)
        content = page.Report(
            visits=[found[place] for place in order],
            picture=heatmap.illustrate(predictor, maps, images.items[order[-1]]),
            has_heatmap=maps is not None,
            errors=[result.error for result in results if result.error],
            accuracy=page.accuracy(predictor.header),
        )
        text = page.html(content)
        write_bytes(arguments.out, page.pdf(text) if is_pdf else text.encode())
        print(f"written to {arguments.out}")
    return reading.status(results)


class _Images:
    """Keeps the images that were read, by the index of their requests; their files are in memory."""

    def __init__(self) -> None:
        self.items: dict[int, Item] = {}

    def added(self, result: "Result", place: int, item: "Item") -> "Result":
        """Stores the item and returns the result unchanged."""
        self.items[place] = item
        return result


def _page(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in _PACKAGES or os.path.isdir(path):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a page; expected the name of a file that ends in .html or .pdf"
        )
    return path
