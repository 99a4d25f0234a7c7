"""Micro-batches: images that arrive within a few milliseconds of each other go through the network together."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from boneage_jax.predict.items import Prepared
from boneage_jax.predict.prediction import Prediction

FULL = 8  # readings at once; the other compiled size is 1
WAIT = 0.004  # seconds from the first image of a batch to its start

_Job = tuple[Prepared, "Future[Prediction]"]


class Batcher:
    """Runs prepared images through the network in one thread.

    Args:
        predict: `Predictor.predict_prepared`.
        wait: seconds that the first image of a batch waits for others.
    """

    def __init__(self, predict: Callable[[Sequence[Prepared], int], list[Prediction]], wait: float = WAIT):
        self._predict = predict
        self._wait = wait
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    def submit(self, prepared: Prepared) -> "Future[Prediction]":
        """Queues an image; the future has the prediction, or the exception that the network raised."""
        future: Future[Prediction] = Future()
        self._jobs.put((prepared, future))
        return future

    def close(self) -> None:
        """Processes the queued images, then ends the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        closing = False
        while not closing and (first := self._jobs.get()) is not None:
            batch, closing = self._gather(first)
            self._answer([job for job in batch if job[1].set_running_or_notify_cancel()])

    def _gather(self, first: _Job) -> tuple[list[_Job], bool]:
        """The first job with those that arrive in time, and whether the queue was closed after them."""
        batch, readings, end = [first], len(first[0].sexes), time.monotonic() + self._wait
        while readings < FULL:
            try:
                job = self._jobs.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                break
            if job is None:
                return batch, True
            batch.append(job)
            readings += len(job[0].sexes)
        return batch, False

    def _answer(self, batch: Sequence[_Job]) -> None:
        if not batch:
            return
        readings = sum(len(prepared.sexes) for prepared, _ in batch)
        # A batch is padded to its compiled size; up to half of that size, single images are less work.
        size = FULL if 2 * readings > FULL else 1
        try:
            predictions = self._predict([prepared for prepared, _ in batch], size)
        except Exception as error:  # each caller gets it
            for _, future in batch:
                future.set_exception(error)
            return
        for (_, future), prediction in zip(batch, predictions, strict=True):
            future.set_result(prediction)
