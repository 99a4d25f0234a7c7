"""Reads the bytes of an upload and returns the JSON of its result; independent of HTTP except for status codes."""

import asyncio
import base64
import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import cv2

from boneage_jax import cores
from boneage_jax.data import phantom
from boneage_jax.data.header import Header, is_dicom
from boneage_jax.data.inputs import CHRONOLOGICAL_AGE
from boneage_jax.data.pictures import is_picture
from boneage_jax.errors import BoneAgeError, where
from boneage_jax.predict import about, further_inputs, heatmap, results
from boneage_jax.predict.items import Item, Picture, Prepared
from boneage_jax.predict.prediction import MissingSexError, RefusedImageError
from boneage_jax.predict.predictor import Predictor
from boneage_jax.predict.worklist import Request
from boneage_jax.serve.batching import FULL, Batcher
from boneage_jax.sex import Sex

MAX_UPLOADS = 64  # at the same time; together they take at most this many times the upload limit
_NAME = "the image"  # names of uploaded files may hold a patient's name
_FROM = "request"  # the source of sex and age in results
_log = logging.getLogger("boneage_jax.serve")


class Upload(NamedTuple):
    """An image file, and the sex and age that the user gave.

    Attributes:
        image: bytes of the file.
        sex: "F", "M", "unknown", or None to take it from the DICOM header.
        age: chronological age in months, or None.
        heatmap: whether to draw the heat map.
    """

    image: bytes
    sex: str | None = None
    age: float | None = None
    heatmap: bool = False


class FailedUploadError(Exception):
    """An upload without a reading.

    Attributes:
        status: HTTP status code.
        body: the JSON of the response, with a sentence as "error".
        retry_after: seconds after which to try again, or None.
    """

    def __init__(self, status: int, body: dict[str, Any], retry_after: int | None = None):
        super().__init__(status)
        self.status = status
        self.body = body
        self.retry_after = retry_after


class Reading:
    """Reads uploads with one predictor, in batches.

    Args:
        predictor: its network may take the chronological age besides image and sex, but no other input.
        max_uploads: most uploads at the same time.

    Raises:
        BoneAgeError: the network has further inputs.
    """

    def __init__(self, predictor: Predictor, max_uploads: int = MAX_UPLOADS):
        further_inputs.refuse_others(predictor, (CHRONOLOGICAL_AGE,), "for which requests have no field")
        self._predictor = predictor
        self._maps = heatmap.find_maps(predictor)
        self._batcher = Batcher(lambda prepared, size: predictor.predict_prepared(prepared, batch_size=size))
        self._preparing = ThreadPoolExecutor(cores.usable(), "prepare")
        self._drawing = ThreadPoolExecutor(1, "draw")  # a heat map takes as long as many readings
        self._free = max_uploads

    @property
    def has_heatmaps(self) -> bool:
        """Whether the weights have heat maps."""
        return self._maps is not None

    def warm_up(self) -> None:
        """Compiles the network for both batch sizes and, in the background, the heat maps."""
        pixels = phantom.render(96.0, Sex.FEMALE, size=256, seed=0).image
        item = Item(pixels, "F", further_inputs.from_age(self._predictor, 96.0))
        prepared = self._predictor.prepare(item, accept_warnings=True)
        for size in (1, FULL):
            self._predictor.predict_prepared([prepared], size)
        if self._maps is not None:
            self._drawing.submit(self._maps.find, item).add_done_callback(_log_failed_map)

    def close(self) -> None:
        """Waits for the readings in progress, then stops the threads."""
        self._preparing.shutdown()
        self._batcher.close()
        self._drawing.shutdown(cancel_futures=True)

    def describe(self) -> dict[str, Any]:
        """The weights, their figures and the environment, see `about.describe`."""
        return about.describe(self._predictor.header, self._predictor.provenance())

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Holds one place in the queue; enter it only from the thread of the event loop.

        Raises:
            FailedUploadError: all places are taken; status 503.
        """
        if self._free < 1:
            raise FailedUploadError(503, {"error": "The service is busy; try again in a second."}, retry_after=1)
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1

    async def read(self, upload: Upload) -> dict[str, Any]:
        """The result as `boneage predict --format json` gives it, with the heat map as a PNG in base64.

        Raises:
            FailedUploadError: the image is empty (400), has an unknown format (415), cannot be read or is refused
                (422), the sex or an age that the network needs is missing (400), or the weights have no heat map (400).
        """
        if upload.heatmap and self._maps is None:
            sentence = (
                "These weights read crops around the joints and have no heat map: leave out the parameter heatmap."
            )
            raise FailedUploadError(400, {"error": sentence})
        loop = asyncio.get_running_loop()
        picture, prepared = await loop.run_in_executor(self._preparing, self._prepare, upload)
        prediction = await asyncio.wrap_future(self._batcher.submit(prepared))
        request = Request(
            _NAME,
            _NAME,
            file=None,
            sex=upload.sex,
            sex_from=upload.sex and _FROM,
            age=upload.age,
            age_from=None if upload.age is None else _FROM,
        )
        result = results.result(prediction, request)
        warnings = tuple(_without_words(sentence, prediction.header) for sentence in result.warnings)
        body = dataclasses.replace(result, warnings=warnings).to_dict()
        if upload.heatmap and self._maps is not None:
            item = Item(picture, prediction.sex, further_inputs.from_age(self._predictor, upload.age))
            body["heatmap"] = await loop.run_in_executor(self._drawing, _png, self._maps, item)
        return body

    def _prepare(self, upload: Upload) -> tuple[Picture, Prepared]:
        data = upload.image
        if not data:
            raise FailedUploadError(400, {"error": "The image is empty (0 bytes)."})
        if not is_dicom(data) and not is_picture(data):
            expected = "expected PNG, JPEG, WebP, TIFF, BMP, JPEG 2000 or DICOM"
            raise FailedUploadError(415, {"error": f"The image format is unknown; {expected}."})
        provenance = self._predictor.provenance()
        inputs = further_inputs.from_age(self._predictor, upload.age)
        try:
            picture = self._predictor.look(data)
            known = upload.age is not None or (picture.header is not None and picture.header.age is not None)
            if not known and further_inputs.reads_age(self._predictor):
                sentence = "These weights also read the chronological age: add the field age."
                raise FailedUploadError(400, {"error": sentence})
            return picture, self._predictor.prepare(Item(picture, upload.sex, inputs))
        except MissingSexError:
            sentence = "The sex is given neither in the request nor in the file: add the field sex, F, M or unknown."
            raise FailedUploadError(400, {"error": sentence}) from None
        except RefusedImageError as error:
            hint = "`boneage predict --accept-warnings` reads it anyway"
            raise FailedUploadError(422, results.refused(_NAME, error, hint, provenance).to_dict()) from None
        except BoneAgeError as error:
            # Error messages about DICOM files may quote values of the header.
            reason = (
                "the DICOM file cannot be read; `boneage predict` gives the reason" if is_dicom(data) else str(error)
            )
            raise FailedUploadError(422, results.failed(_NAME, reason, provenance).to_dict()) from None


def _png(maps: heatmap.Maps, item: Item) -> str:
    """The radiograph and its heat map as a PNG in base64."""
    return base64.b64encode(cv2.imencode(".png", maps.overlay(item))[1].tobytes()).decode()


def _log_failed_map(done: "Future[Any]") -> None:
    """Logs why the heat map of `Reading.warm_up` failed."""
    if not done.cancelled() and (error := done.exception()) is not None:
        _log.error("the first heat map failed: %s", where(error))


def _without_words(warning: str, header: Header | None) -> str:
    """Removes the header's body part and view from a warning, because those fields could contain a typed name."""
    if header is None:
        return warning
    warning = warning.replace(f" ({header.view})", "")
    return warning.replace(f"the body part {header.body_part},", "another body part,")
