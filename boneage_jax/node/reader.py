"""Reads the images in the queue one at a time and replaces them with their results."""

import logging
import sqlite3
import threading
import time

from boneage_jax.dicom_results import objects
from boneage_jax.dicom_results.source import SourceError
from boneage_jax.errors import BoneAgeError, where
from boneage_jax.node.queue import Entry, Queue
from boneage_jax.predict import further_inputs, heatmap, results
from boneage_jax.predict.items import Item
from boneage_jax.predict.prediction import MissingSexError, RefusedImageError
from boneage_jax.predict.predictor import Predictor
from boneage_jax.predict.worklist import Request

_NAME = "the image"  # in errors; the queue has no file names
_NO_VALUES = (RefusedImageError, SourceError)  # errors that quote no values of the header

_log = logging.getLogger(__name__)


class Reader:
    """Reads images with one predictor.

    Raises:
        BoneAgeError: the network has inputs besides image and sex, which a node cannot provide.
    """

    def __init__(self, predictor: Predictor):
        further_inputs.refuse_others(predictor, (), "which radiographs do not contain; choose others with --weights")
        self._predictor = predictor
        self._maps = heatmap.find_maps(predictor)

    def run(self, queue: Queue, stop: threading.Event) -> None:
        """Reads waiting and arriving images until `stop` is set."""
        while not stop.is_set():
            entry = queue.next_waiting()
            if entry is None:
                queue.wait(1.0)
                continue
            try:
                self._answer(queue, entry)
            except sqlite3.OperationalError:  # such as a full disk: the image itself is not at fault
                queue.take_back_attempt(entry.id)
                raise

    def read(self, data: bytes) -> objects.Objects:
        """Reads a radiograph and makes its DICOM results.

        Args:
            data: the bytes of its file; sex and age are taken from the header.

        Raises:
            BoneAgeError: the image is refused, its sex is not known, or it cannot be a source of DICOM results.
        """
        picture = self._predictor.look(data)
        prediction = self._predictor.predict(picture, sex=None)
        result = results.result(prediction, Request(_NAME, _NAME, file=None))
        item = Item(picture, prediction.sex)
        return objects.make(
            data,
            _NAME,
            result,
            lambda: heatmap.illustrate(self._predictor, self._maps, item),
            has_heatmap=self._maps is not None,
        )

    def _answer(self, queue: Queue, entry: Entry) -> None:
        start = time.perf_counter()
        try:
            made = self.read(entry.source)
        except BoneAgeError as error:
            reason = _reason(error)
            queue.refuse(entry.id, reason)
            _log.warning("image %d is refused: %s", entry.id, reason)
        except Exception as error:  # the node continues with the next image
            queue.fail(entry.id, type(error).__name__)
            _log.error("image %d is set aside until the next start: %s", entry.id, where(error))
        else:
            queue.answer(entry.id, {"report": made.report, "capture": made.capture})
            _log.info("image %d read in %.1f s", entry.id, time.perf_counter() - start)


def _reason(error: BoneAgeError) -> str:
    """The reason to refuse an image, without values of its header."""
    if isinstance(error, MissingSexError):
        return "its header does not give the sex as F or M; correct it in the archive and send the image again"
    return str(error) if isinstance(error, _NO_VALUES) else "it cannot be read"
