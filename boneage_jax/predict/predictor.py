"""Predicts bone age with released weights, on the same code path for one image and for many."""

import contextlib
import dataclasses
import datetime
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, overload

import flax.errors
import jax
import numpy as np

from boneage_jax import compilation, cores
from boneage_jax.data import Preprocessing
from boneage_jax.data.header import contradictions
from boneage_jax.data.preprocess import check_grey
from boneage_jax.errors import BoneAgeError
from boneage_jax.inference import make_estimate
from boneage_jax.models import LARGEST_MONTHS, Description
from boneage_jax.predict.averaging import Member, averaged
from boneage_jax.predict.calibrated import Estimates, calibrated
from boneage_jax.predict.items import (
    UNKNOWN,
    Item,
    Picture,
    Prepared,
    SexLike,
    Source,
    find_joints,
    read_inputs,
    read_picture,
    read_sexes,
)
from boneage_jax.predict.prediction import Prediction, Provenance, RefusedImageError
from boneage_jax.regions.detector import Regions, packaged
from boneage_jax.released import weights as released
from boneage_jax.released.calibration import Calibration
from boneage_jax.released.checks import CORRECTED, WARNING, Checks
from boneage_jax.sex import Sex

OnError = Literal["raise", "yield"]

_UNFIT = (TypeError, ValueError, KeyError, AttributeError, IndexError, ArithmeticError)
"""Exceptions that a header written for another version, or by another program, can cause."""


class Predictor:
    """A network with its weights, preprocessing and calibration, or several whose estimates are averaged.

        predictor = boneage_jax.load("runs/xception.safetensors")
        predictor.predict("hand.png", sex="F").months
        predictor.predict(pixels, sex="M").interval

    Attributes:
        weights: header and parameters from the file.
        preprocessing: converts a single-channel image to the input of the network.
        network: the network.
        calibration: None if the file has none.
        checks: detect images unlike the hand radiographs of the training; None if the file has none.
        variables: variables of the network, on the device.
        others: predictors of the further networks whose estimates are averaged with those of this one; if one of them
            cannot read an image, the first network reads it alone.
    """

    def __init__(self, weights: released.Weights):
        """Raises BoneAgeError if the header does not describe a network that this version can build."""
        header = weights.header
        self.weights = weights
        try:
            self.preprocessing = Preprocessing.from_dict(header.preprocessing)
            self.preprocessing.check_views(header.views)
            self.network = Description.from_dict(header.model).network()
            self.calibration = _calibration(header)
            self._own = weights.members[0].header if weights.members else header
            self._own_calibration = _calibration(self._own)
            self.checks = Checks.from_parts(header.checks, weights.checks) if header.checks else None
        except (BoneAgeError, *_UNFIT) as error:
            raise self._unfit(error) from error
        self.others: tuple[Predictor, ...] = tuple(Predictor(each) for each in weights.members[1:])
        self.variables: Any = jax.device_put(weights.variables)
        self._estimate = jax.jit(make_estimate(self.network, self.preprocessing, header.views))

    @property
    def header(self) -> released.Header:
        """The description of the weights: data, terms, measured accuracy."""
        return self.weights.header

    @property
    def _reads_joints(self) -> bool:
        return self.preprocessing.region == "joints"

    @property
    def reads_regions(self) -> bool:
        """Whether at least one of its networks reads the regions of the hand."""
        return self._reads_joints or any(each.reads_regions for each in self.others)

    def provenance(self) -> Provenance:
        """The provenance of a result made now."""
        return Provenance(self.header.name, self.weights.sha256, datetime.datetime.now(datetime.UTC))

    def predict(
        self, image: Source, *, sex: SexLike | None, inputs: Mapping[str, Any] = {}, accept_warnings: bool = False
    ) -> Prediction:
        """Predicts one image.

        Args:
            image: single-channel pixels `[H, W]` of 8 or 16 bits, or the path or the bytes of an image file.
            sex: "F" or "M" (or a `Sex`), "unknown" for one reading per sex, or None to take it from the header of a
                DICOM file.
            inputs: the further inputs that the network was trained with: a number, the name of a category or, for a
                heat map, the key points [points, 2] in pixels (right, down) of the image, after its EXIF orientation
                if it has one.
            accept_warnings: whether to read an image that the checks distrust; the prediction then has their warnings.

        Raises:
            RefusedImageError: the checks distrust the image.
            BoneAgeError: not an image, an invalid sex, or inputs that are missing or do not fit.
        """
        prepared = self.prepare(Item(image, sex, inputs), accept_warnings=accept_warnings)
        return self.predict_prepared([prepared], batch_size=1)[0]

    @overload
    def predict_many(
        self,
        items: Iterable[Item],
        *,
        batch_size: int = ...,
        on_error: Literal["raise"] = ...,
        accept_warnings: bool = ...,
    ) -> Iterator[Prediction]: ...

    @overload
    def predict_many(
        self, items: Iterable[Item], *, batch_size: int = ..., on_error: OnError, accept_warnings: bool = ...
    ) -> Iterator[Prediction | BoneAgeError]: ...

    def predict_many(
        self,
        items: Iterable[Item],
        *,
        batch_size: int = 8,
        on_error: OnError = "raise",
        accept_warnings: bool = False,
    ) -> Iterator[Prediction | BoneAgeError]:
        """Predicts images in order; threads read them ahead of the network.

        Args:
            items: the items to predict; consumed as needed.
            batch_size: images per batch; a smaller last batch is padded, so that each size is compiled once. Except
                for rounding, the predictions do not depend on it.
            on_error: "raise", or "yield" the BoneAgeError in place of the prediction of its item.
            accept_warnings: as in `predict`.

        Yields:
            A `Prediction` for each item.
        """
        if batch_size < 1:
            raise BoneAgeError(f"batch_size is {batch_size}, expected 1 or more images")
        with contextlib.ExitStack() as stack:
            pool = ThreadPoolExecutor(cores.usable())
            stack.callback(pool.shutdown, cancel_futures=True)  # an early stop does not wait for queued images
            waiting: deque[list[Future[Prepared]]] = deque()
            for chunk in _chunks(items, batch_size):
                waiting.append([pool.submit(self.prepare, item, accept_warnings=accept_warnings) for item in chunk])
                if len(waiting) > 1:
                    yield from self._answers(waiting.popleft(), batch_size, on_error)
            while waiting:
                yield from self._answers(waiting.popleft(), batch_size, on_error)

    def prepare(self, item: Item, *, accept_warnings: bool = False) -> Prepared:
        """Reads, checks and prepares one image.

        Raises:
            BoneAgeError: as `predict`.
        """
        picture = self.look(item.image)
        header, where = picture.header, picture.name
        if not accept_warnings and (doubts := [one for one in picture.findings if one.severity == WARNING]):
            raise RefusedImageError(where, doubts)
        sexes = read_sexes(item.sex, header, where)
        inputs = read_inputs(self.network.inputs, item.inputs, picture, self.preprocessing.size)
        against = [] if header is None else contradictions(header, sexes[0] if len(sexes) == 1 else None)
        joints = find_joints(picture, self.header.name) if self._reads_joints else None
        others, missed = self._prepared_by_others(picture, item)
        return Prepared(
            self.preprocessing.prepare(picture.pixels, joints),
            sexes,
            inputs,
            header,
            warnings=(*picture.sentences(WARNING), *against),
            notes=(*picture.sentences(CORRECTED), *missed, *(header.notes if header else ())),
            others=others,
        )

    def _prepared_by_others(self, picture: Picture, item: Item) -> tuple[tuple[Prepared | None, ...], list[str]]:
        """The input for each further network, and notes about networks that cannot read the image."""
        others: list[Prepared | None] = []
        missed: list[str] = []
        for each in self.others:
            try:
                others.append(each.prepare(Item(picture, item.sex), accept_warnings=True))
            except BoneAgeError as error:
                others.append(None)
                # Notes go into responses and DICOM objects, which must not contain file names.
                reason = str(error).removeprefix(f"{picture.name}: ")
                missed.append(f"Read by {self._own.name!r} alone: {reason}.")
        return tuple(others), missed

    def look(self, source: Source) -> Picture:
        """Reads, checks and corrects an image as `prepare` does, but refuses none; returns a `Picture` unchanged.

        Raises:
            BoneAgeError: not an image, or a damaged one.
        """
        if isinstance(source, Picture):
            return source
        picture = read_picture(source)
        check_grey(picture.pixels)
        if self.checks is None:
            return picture
        seen: list[tuple[np.ndarray, Regions]] = []

        def completeness(image: np.ndarray) -> float:
            seen.append((image, packaged().find(image)))
            return seen[-1][1].completeness

        pixels, found = self.checks.inspect(picture.pixels, completeness)
        regions = next((regions for image, regions in seen if image is pixels), None)
        return picture._replace(pixels=pixels, findings=tuple(found), regions=regions)

    def estimate(self, images: np.ndarray, sexes: np.ndarray, inputs: Mapping[str, np.ndarray]) -> Estimates:
        """Runs the network on prepared images uint8 [B, S, S, C]; compiled once for each B.

        Raises:
            BoneAgeError: the weights do not fit the network, or their output is not a possible bone age.
        """
        batch = {"image": images, "sex": sexes.astype(np.int32), "inputs": dict(inputs)}
        try:
            found = self._estimate(self.variables, batch)
        except (flax.errors.FlaxError, *_UNFIT) as error:
            raise self._unfit(error) from error
        months, std = np.asarray(found.months), None if found.std is None else np.asarray(found.std)
        for values in (months, std):
            if values is not None and not (np.abs(values) <= LARGEST_MONTHS).all():
                raise BoneAgeError(
                    f"the weights {self.header.name!r} give {values[np.abs(values).argmax()]:g} months, which is not a "
                    "bone age; training has failed or the values were changed: use other weights"
                )
        return Estimates(months, std, None if found.parts is None else np.asarray(found.parts))

    def _unfit(self, error: Exception) -> BoneAgeError:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        return BoneAgeError(
            f"the weights {self.header.name!r}, written by version {self.header.version}, do not fit the network of "
            f"this version ({reason})"
        )

    def _answers(
        self, futures: Sequence[Future[Prepared]], batch_size: int, on_error: OnError
    ) -> Iterator[Prediction | BoneAgeError]:
        prepared: list[Prepared] = []
        errors: dict[int, BoneAgeError] = {}
        for place, future in enumerate(futures):
            try:
                prepared.append(future.result())
            except BoneAgeError as error:
                if on_error == "raise":
                    raise
                errors[place] = error
        predictions = iter(self.predict_prepared(prepared, batch_size))
        for place in range(len(futures)):
            yield errors[place] if place in errors else next(predictions)

    def predict_prepared(self, prepared: Sequence[Prepared], batch_size: int) -> list[Prediction]:
        """Predicts images from `prepare`; safe to call from one thread while others prepare images.

        Args:
            prepared: the images; an image of unknown sex is read twice.
            batch_size: images per batch; compiled once for each size.

        Returns:
            One prediction for each image, in the same order.
        """
        readings = [(one, sex) for one in prepared for sex in one.sexes]
        found: list[Prediction] = []
        for start in range(0, len(readings), batch_size):
            found += self._read(readings[start : start + batch_size], batch_size)
        each = iter(found)
        answers = [_both(next(each), next(each)) if len(one.sexes) == 2 else next(each) for one in prepared]
        provenance = self.provenance()
        return [
            dataclasses.replace(
                answer,
                warnings=one.warnings,
                notes=one.notes,
                header=one.header,
                inputs=one.inputs,
                provenance=provenance,
            )
            for answer, one in zip(answers, prepared, strict=True)
        ]

    def _read(self, readings: Sequence[tuple[Prepared, Sex]], batch_size: int) -> list[Prediction]:
        """Predicts at most `batch_size` readings."""
        letters = [sex.letter for _, sex in readings]
        estimates = self._estimates(readings, batch_size)
        if not self.others:
            return calibrated(estimates, letters, self.calibration)
        members = [Member(estimates, self._own_calibration)]
        for place, other in enumerate(self.others):
            theirs = [(one.others[place], sex) for one, sex in readings]
            members.append(Member(other._estimates(theirs, batch_size), other.calibration))
        return averaged(members, letters, self.calibration)

    def _estimates(self, readings: Sequence[tuple[Prepared | None, Sex]], batch_size: int) -> Estimates:
        """The network's estimates for at most `batch_size` readings; NaN where there is no image that it can read.

        The batch is padded with copies of its first image.
        """
        seen = [place for place, (one, _) in enumerate(readings) if one is not None]
        if not seen:
            return Estimates(np.full(len(readings), np.nan, np.float32), None)
        given = [(one, sex) for one, sex in readings if one is not None]
        given += [given[0]] * (batch_size - len(given))
        images, sexes = np.stack([one.image for one, _ in given]), np.array([sex for _, sex in given])
        inputs = {name: np.stack([one.inputs[name] for one, _ in given]) for name in given[0][0].inputs}
        return self.estimate(images, sexes, inputs).scattered(seen, len(readings))


def load(name_or_path: str | Path) -> Predictor:
    """Loads released weights by a name from `weights.names` or by the path of a file.

    JAX's compilation cache is kept in the user's cache folder, so that later programs start faster.

    Raises:
        BoneAgeError: there are no weights of that name, or the file is damaged or of a later version.
    """
    weights = released.read(released.find(name_or_path))
    compilation.use_cache(compilation.cache_folder(""))
    return Predictor(weights)


def _calibration(header: released.Header) -> Calibration | None:
    return None if header.calibration is None else Calibration.from_dict(header.calibration)


def _both(girl: Prediction, boy: Prediction) -> Prediction:
    by_sex = {Sex.FEMALE.letter: girl, Sex.MALE.letter: boy}
    return Prediction(None, None, None, UNKNOWN, by_sex=by_sex)


def _chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    each = iter(items)
    while chunk := list(itertools.islice(each, size)):
        yield chunk
