"""The files that `boneage predict` writes beside its results: heat maps, overlays of regions and DICOM objects."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

from boneage_jax import extras
from boneage_jax.data.files import File, make_folder
from boneage_jax.errors import BoneAgeError
from boneage_jax.predict import heatmap, results, worklist
from boneage_jax.predict.items import Item
from boneage_jax.predict.predictor import Predictor
from boneage_jax.predict.regions import RegionFinder
from boneage_jax.predict.results import Result
from boneage_jax.predict.worklist import Request


class Outputs:
    """Writes the output files of requests into folders.

    Args:
        predictor: reads the images.
        requests: all requests of this run.
        heatmaps: folder for heat maps, or None.
        overlays: folder for pictures of the ossification regions, or None.
        dicom: folder for Structured Reports and Secondary Captures, or None.

    Raises:
        BoneAgeError: the weights have no heat maps, a folder cannot be created, or a package is missing.
    """

    def __init__(
        self,
        predictor: Predictor,
        requests: Sequence[Request],
        heatmaps: Path | None,
        overlays: Path | None,
        dicom: Path | None,
    ):
        if dicom is not None:
            extras.require("--dicom-out", "dicom", "highdicom")
        self._predictor = predictor
        self._maps = heatmap.Maps(predictor) if heatmaps else heatmap.find_maps(predictor)
        self._heatmaps = heatmaps and _paths("--heatmap", heatmaps, requests, worklist.HEATMAP_ENDING)
        self._overlays = overlays and _paths("--regions", overlays, requests, worklist.REGIONS_ENDING)
        self._finder = RegionFinder(predictor) if overlays else None
        self._reports = dicom and _paths("--dicom-out", dicom, requests, worklist.REPORT_ENDING)
        self._captures = dicom and _paths("--dicom-out", dicom, requests, worklist.CAPTURE_ENDING)

    def added(self, result: Result, place: int, item: Item) -> Result:
        """Writes the files of a result and adds their names to it.

        Args:
            result: a result without an error.
            place: index of its request.
            item: the predicted item, with the sex that it was read for; its file is in memory.

        Returns:
            The result with the names of the files. If a picture cannot be written, the result has a warning; if the
            DICOM objects cannot, the result is an error.
        """
        picture = functools.cache(lambda: heatmap.illustrate(self._predictor, self._maps, item))
        unwritten: list[str] = []  # warnings for the user alone: DICOM objects must not contain local paths
        if self._heatmaps:
            try:
                heatmap.write(self._heatmaps[place], picture())
                result = dataclasses.replace(result, heatmap=str(self._heatmaps[place]))
            except BoneAgeError as error:
                unwritten.append(f"There is no heat map: {error}.")
        if self._overlays and self._finder:
            result = _with_regions(result, self._finder, item, self._overlays[place], unwritten)
        if self._reports and self._captures:
            from boneage_jax.dicom_results import objects  # needs the extra "dicom"

            assert isinstance(item.image, File)
            report, capture = self._reports[place], self._captures[place]
            try:
                made = objects.make(item.image.read(), result.file, result, picture, has_heatmap=self._maps is not None)
                made.write(report, capture)
            except BoneAgeError as error:
                assert result.provenance is not None
                return results.failed(result.file, str(error), result.provenance)
            result = dataclasses.replace(result, dicom_report=str(report), dicom_capture=str(capture))
        return dataclasses.replace(result, warnings=(*result.warnings, *unwritten))


def _with_regions(result: Result, finder: RegionFinder, item: Item, path: Path, unwritten: list[str]) -> Result:
    """Adds the regions to the result, with warnings about them; a picture that cannot be written to `unwritten`."""
    found, overlay, doubts = finder.find(item)
    picture: str | None = str(path)
    try:
        heatmap.write(path, overlay)
    except BoneAgeError as error:
        unwritten.append(f"There is no picture of the regions: {error}.")
        picture = None
    return dataclasses.replace(result, regions={**found, "picture": picture}, warnings=(*result.warnings, *doubts))


def _paths(flag: str, folder: Path, requests: Sequence[Request], ending: str) -> list[Path]:
    """The output path of each request; creates the folder if it is missing."""
    make_folder(folder, flag)
    return worklist.output_paths(folder, requests, ending)
