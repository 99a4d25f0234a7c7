"""Reading from the queue: results, refusals, and errors that leave the node running."""

import contextlib
import io
import sqlite3
import threading

import numpy as np
import pydicom
import pytest

from boneage_jax.errors import BoneAgeError
from boneage_jax.node.queue import MOST_ATTEMPTS, Queue, State
from boneage_jax.node.reader import Reader
from boneage_jax.predict.prediction import RefusedImageError
from boneage_jax.released.checks import Finding
from tests.dicom_results import radiographs
from tests.predict import random_weights, test_region_readings
from tests.predict.random_weights import CALIBRATION


@pytest.fixture(scope="module")
def predictor():
    return random_weights.predictor(calibration=CALIBRATION)


@pytest.fixture(scope="module")
def reader(predictor):
    return Reader(predictor)


@pytest.fixture
def queue(tmp_path):
    opened = Queue(tmp_path / "queue.sqlite", "weights")
    yield opened
    opened.close()


def run(reader, queue, until):
    stop = threading.Event()
    thread = threading.Thread(target=reader.run, args=(queue, stop))
    thread.start()
    for _ in range(600):
        if until():
            break
        queue.wait(0.1)
    stop.set()
    queue.wake()
    thread.join()
    assert until()


def test_each_image_is_answered_with_the_bone_age_of_the_predictor(reader, predictor, queue):
    files = [radiographs.file(kind, radiographs.hand(i)) for i, kind in enumerate(("CR", "DX", "SC"))]
    for i, content in enumerate(files):
        queue.accept(f"1.2.{i}", content)
    run(reader, queue, lambda: queue.counts() == {State.ANSWERED: 3})
    for content in files:
        entry = queue.next_answered()
        expected = predictor.predict(content, sex=None).months
        assert radiographs.bone_age(entry.files["report"]) == pytest.approx(expected, abs=0.006)
        for role in ("report", "capture"):
            queue.sent(entry.id, role)


def test_an_image_without_a_sex_is_refused_with_the_reason(reader, queue, caplog):
    queue.accept("1.2.3", radiographs.file("CR", PatientSex=""))
    run(reader, queue, lambda: queue.counts() == {State.REFUSED: 1})
    assert "image 1 is refused: its header does not give the sex as F or M; correct it" in caplog.text


def test_an_image_that_fails_the_checks_is_refused_with_the_reason(reader, queue, monkeypatch, caplog):
    def refuse(*_, **__):
        raise RefusedImageError("the image", [Finding("blank", "The image is blank.")])

    monkeypatch.setattr(reader._predictor, "predict", refuse)
    queue.accept("1.2.3", radiographs.file("CR"))
    run(reader, queue, lambda: queue.counts() == {State.REFUSED: 1})
    assert "image 1 is refused: the image is refused: The image is blank\n" in caplog.text


def test_a_damaged_image_is_refused_without_logging_its_values(reader, queue, caplog):
    queue.accept("1.2.3", radiographs.file("CR", PixelData=b"short", PatientName="Canary"))
    queue.accept("1.2.4", radiographs.file("CR", StudyDate="Canary"))
    run(reader, queue, lambda: queue.counts() == {State.REFUSED: 2})
    assert "image 1 is refused: it cannot be read" in caplog.text
    assert "image 2 is refused: the image has a StudyDate that DICOM does not allow" in caplog.text
    # pydicom's own log, which quotes values, is switched off on the command line.
    assert not any("Canary" in one.getMessage() for one in caplog.records if one.name != "pydicom")


def test_an_unexpected_error_keeps_the_image_and_the_node_continues(reader, queue, monkeypatch, caplog):
    original = reader._predictor.look

    def look(data):
        if data == b"broken":
            raise ValueError("Doe^Jane")
        return original(data)

    monkeypatch.setattr(reader._predictor, "look", look)
    queue.accept("1.2.3", b"broken")
    queue.accept("1.2.4", radiographs.file("CR"))
    run(reader, queue, lambda: queue.counts() == {State.FAILED: 1, State.ANSWERED: 1})
    assert "image 1 is set aside until the next start: ValueError at" in caplog.text
    assert "Doe" not in caplog.text


def test_a_full_disk_costs_an_image_no_attempts(reader, queue, monkeypatch, tmp_path):
    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    queue.accept("1.2.3", b"not an image")
    for method in ("answer", "refuse", "fail"):
        monkeypatch.setattr(queue, method, full)
    for _ in range(MOST_ATTEMPTS):
        with pytest.raises(sqlite3.OperationalError):
            reader.run(queue, threading.Event())
    queue.close()
    with contextlib.closing(Queue(tmp_path / "queue.sqlite", "weights")) as again:
        assert again.counts() == {State.WAITING: 1}


def test_weights_with_further_inputs_are_rejected():
    with pytest.raises(BoneAgeError, match="the weights 'tiny' also read chronological_age"):
        Reader(random_weights.predictor(inputs=random_weights.AGE))


def test_weights_without_heat_maps_give_a_capture_of_the_radiograph_alone():
    made = Reader(test_region_readings.predictor()).read(radiographs.file("CR", test_region_readings.hand()))
    capture = pydicom.dcmread(io.BytesIO(made.capture))
    assert (capture.SeriesDescription, capture.Columns) == ("Bone age, research use only", 1024)
    assert np.ptp(capture.pixel_array[:400], axis=2).max() == 0  # the radiograph is greyscale
    expected = test_region_readings.predictor().predict(test_region_readings.hand(), sex="F").months
    assert radiographs.bone_age(made.report) == pytest.approx(expected, abs=0.006)
