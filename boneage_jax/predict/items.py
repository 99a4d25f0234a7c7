"""The input of a prediction, as given and as prepared: an image, the child's sex, and the network's further inputs."""

import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from boneage_jax.data import inputs as further
from boneage_jax.data import radiograph
from boneage_jax.data.files import File
from boneage_jax.data.header import Header
from boneage_jax.data.keypoints import KeyPoints
from boneage_jax.errors import BoneAgeError
from boneage_jax.models import Input, check_inputs
from boneage_jax.predict.prediction import MissingSexError
from boneage_jax.regions.detector import Regions, packaged
from boneage_jax.released.checks import CORRECTED, QUARTER_TURNS, Finding
from boneage_jax.sex import Sex

UNKNOWN = "unknown"

LEAST_JOINTS = 9
"""The number of joints, out of 17, that must be found for a network that reads joints."""


class Picture(NamedTuple):
    """An image as it is read, from `Predictor.look`.

    Attributes:
        pixels: [H, W], bright bones, corrected where the checks found the image inverted or turned.
        header: the metadata of the file, see `Header`; None for pixels that were not read from a file.
        name: the name of the image in errors.
        findings: the findings of the checks.
        regions: the hand regions that the checks detected; None if they did not run the detector.
    """

    pixels: np.ndarray
    header: Header | None
    name: str
    findings: tuple[Finding, ...] = ()
    regions: Regions | None = None

    @property
    def turns(self) -> int:
        """Anticlockwise quarter turns, 0 to 3, by which the checks turned the image."""
        return sum(QUARTER_TURNS.get(one.code, 0) for one in self.findings if one.severity == CORRECTED) % 4

    @property
    def unturned_shape(self) -> tuple[int, int]:
        """Rows and columns of the image before the checks turned it."""
        height, width = self.pixels.shape
        return (width, height) if self.turns % 2 else (height, width)

    @property
    def stored_shape(self) -> tuple[int, int]:
        """Rows and columns of the image in the file, before it was resampled to square pixels and turned."""
        return (self.header and self.header.stored_shape) or self.unturned_shape

    def find_regions(self) -> Regions:
        """The regions of the hand; runs the detector only if the checks have not."""
        return packaged().find(self.pixels) if self.regions is None else self.regions

    def sentences(self, severity: str) -> tuple[str, ...]:
        """The texts of the findings of this severity, "warning" or "corrected"."""
        return tuple(one.text for one in self.findings if one.severity == severity)


Source = np.ndarray | bytes | str | os.PathLike[str] | File | Picture
"""A single-channel image `[H, W]` of 8 or 16 bits; an image file as bytes, path or archive entry; or a picture."""

SexLike = str | int | np.integer
"""A `Sex` or its number, or "F", "M", "female", "male", "unknown" in any case."""


class Item(NamedTuple):
    """The input of one prediction: an image, the child's sex, and the network's further inputs by name.

    If `sex` is None, the sex is taken from the DICOM header; there is no default. A network's input `chronological_age`
    is taken from there too if it is not given.
    """

    image: Source
    sex: SexLike | None
    inputs: Mapping[str, Any] = {}


class Prepared(NamedTuple):
    """An item as the network takes it, from `Predictor.prepare`; `sexes` has both sexes if the sex is unknown."""

    image: np.ndarray  # uint8 [S, S, C]
    sexes: tuple[Sex, ...]
    inputs: dict[str, Any]
    header: Header | None
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    others: tuple["Prepared | None", ...] = ()  # for the further networks; None if one cannot read the image


def read_picture(source: np.ndarray | bytes | str | os.PathLike[str] | File) -> Picture:
    """Reads the image without checking or correcting it.

    Raises:
        BoneAgeError: not an image, or a damaged one.
    """
    if isinstance(source, np.ndarray):
        return Picture(source, None, "the image")
    name = source.name if isinstance(source, File) else "the image" if isinstance(source, bytes) else os.fspath(source)
    return Picture(*radiograph.read(source), name)


def read_sexes(sex: SexLike | None, header: Header | None, where: str) -> tuple[Sex, ...]:
    """The given sex, or else the sex in the header; both sexes if the given one is "unknown".

    Raises:
        MissingSexError: neither names a sex; the error calls the image `where`.
        BoneAgeError: the given sex is invalid.
    """
    if sex is None and header is not None and header.sex is not None:
        return (header.sex,)
    if sex is None:
        raise MissingSexError(
            f"{where}: the sex is not given, and the file does not name it either; give 'F', 'M', or 'unknown' for a "
            "reading of each"
        )
    if isinstance(sex, str) and sex.casefold() == UNKNOWN:
        return tuple(Sex)
    try:
        number = isinstance(sex, int | np.integer) and not isinstance(sex, bool)
        return (Sex(int(sex)) if number else Sex.parse(str(sex)),)
    except ValueError:
        expected = "expected 'F', 'M', or 'unknown' for a reading of each"
        raise BoneAgeError(f"{where}: invalid sex {sex!r}; {expected}") from None


def read_inputs(specs: Iterable[Input], given: Mapping[str, Any], picture: Picture, size: int) -> dict[str, Any]:
    """The further inputs as the network takes them: float32, the index of a category, a heat map uint8 [S, S, 1].

    A chronological age that is not given is taken from the header of a DICOM file.

    Raises:
        BoneAgeError: an input is missing, unknown, or of the wrong kind.
    """
    specs = tuple(specs)
    age = None if picture.header is None else picture.header.age
    if age is not None and any(spec.name == further.CHRONOLOGICAL_AGE for spec in specs):
        given = {further.CHRONOLOGICAL_AGE: age, **given}
    check_inputs(specs, given)
    where = picture.name
    values: dict[str, Any] = {}
    for spec in specs:
        value = given[spec.name]
        if spec.kind == "heatmap":
            points = value if isinstance(value, KeyPoints) else KeyPoints(where, _points(value, spec.name, where))
            values[spec.name] = _heatmap(points, picture, size)
        elif spec.kind == "category":
            cell = further.read_cell(spec.name, spec.categories, str(value), where)
            values[spec.name] = np.int32(spec.categories.index(str(cell)))
        else:
            values[spec.name] = np.float32(further.read_cell(spec.name, further.NUMBER, str(value), where))
    return values


def _heatmap(points: KeyPoints, picture: Picture, size: int) -> UInt8[np.ndarray, "size size 1"]:
    """The heat map of points in pixels of the file, for the picture as it was read."""
    shape = picture.unturned_shape
    if points.shape is None and picture.stored_shape != shape:
        points = KeyPoints(points.source, dataclasses.replace(points, shape=picture.stored_shape).on(shape))
    return np.ascontiguousarray(np.rot90(points.heatmap(shape, size), picture.turns))


def find_joints(picture: Picture, weights: str) -> Float[np.ndarray, "17 2"]:
    """The centres of the regions of an upright hand in pixels (right, down), for a network that reads joints.

    Args:
        picture: the image.
        weights: the name of the weights, for the error.

    Returns:
        Points as `Regions.centres` gives them; NaN where a region was not found.

    Raises:
        BoneAgeError: fewer than `LEAST_JOINTS` were found.
    """
    points = picture.find_regions().centres()
    if (found := np.count_nonzero(~np.isnan(points[:, 0]))) < LEAST_JOINTS:
        raise BoneAgeError(
            f"{picture.name}: {found} of {len(points)} joints were found, of which the weights {weights!r} need "
            f"{LEAST_JOINTS} or more; use weights that read the hand as a whole"
        )
    return points


def _points(value: Any, name: str, where: str) -> np.ndarray:
    try:
        points = np.asarray(value, np.float64)
        if points.ndim != 2 or points.shape[1] != 2:
            raise ValueError(f"the shape is {points.shape}")
    except (TypeError, ValueError) as error:
        raise BoneAgeError(f"{where}: {name} is {value!r:.80}, expected key points [points, 2] in pixels") from error
    return points
