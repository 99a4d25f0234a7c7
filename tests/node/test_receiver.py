"""The storage SCP: who may connect, and what happens to each received object."""

import io
import logging
import sqlite3

import numpy as np
import pydicom
import pytest
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    MPEG2MPML,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEGExtended12Bit,
)
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at run time

from boneage_jax.data import dicom_code
from boneage_jax.data.radiograph import decode
from boneage_jax.errors import BoneAgeError
from boneage_jax.node import receiver
from boneage_jax.node.queue import Queue, State
from tests.dicom_results import radiographs


@pytest.fixture
def queue(tmp_path):
    opened = Queue(tmp_path / "queue.sqlite", "weights")
    yield opened
    opened.close()


@pytest.fixture
def start(queue):
    servers = []

    def start(callers=()):
        servers.append(receiver.start("BONEAGE", "127.0.0.1", 0, callers, queue))
        return servers[-1].server_address[1]

    yield start
    for server in servers:
        server.shutdown()


def connect(port, caller="PACS", contexts=((ComputedRadiographyImageStorage, ExplicitVRLittleEndian),)):
    entity = AE(ae_title=caller)
    entity.add_requested_context(Verification)
    for kind, syntax in contexts:
        entity.add_requested_context(kind, syntax)
    return entity.associate("127.0.0.1", port, ae_title="BONEAGE")


def send(port, made):
    """Sends an object and returns the status of the response."""
    radiographs.written(made)  # sets the transfer syntax
    association = connect(port, contexts=[(made.SOPClassUID, ExplicitVRLittleEndian)])
    status = association.send_c_store(made).Status
    association.release()
    return status


def test_echo_requests_are_answered(start):
    association = connect(start())
    assert association.send_c_echo().Status == 0x0000
    association.release()


def test_only_listed_callers_may_connect(start, caplog):
    port = start(["PACS", "OTHER"])
    for caller, allowed in (("PACS", True), ("OTHER", True), ("INTRUDER", False)):
        association = connect(port, caller)
        assert association.is_established == allowed
        assert association.is_rejected != allowed
        association.release()
    assert "an association from INTRUDER is rejected" in caplog.text


@pytest.mark.parametrize("kind", ["CR", "DX", "SC"])
def test_an_acknowledged_image_is_queued_as_a_dicom_file(kind, start, queue):
    made = radiographs.dataset(kind)
    assert send(start(), made) == receiver.SUCCESS
    received = queue.next_waiting().source
    found = pydicom.dcmread(io.BytesIO(received))
    assert found == made
    assert found.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert found.file_meta.MediaStorageSOPInstanceUID == made.SOPInstanceUID
    np.testing.assert_array_equal(decode(received, "received"), radiographs.hand())


def test_an_image_received_twice_is_queued_once(start, queue):
    port, made = start(), radiographs.dataset("CR")
    assert [send(port, made), send(port, made)] == [receiver.SUCCESS] * 2
    assert queue.counts() == {State.WAITING: 1}


def test_other_objects_are_acknowledged_and_dropped(start, queue):
    port = start()
    assert send(port, radiographs.dataset("CR", BodyPartExamined="CHEST")) == receiver.SUCCESS
    assert send(port, radiographs.dataset("CR", SOPClassUID=CTImageStorage, Modality="CT")) == receiver.SUCCESS
    assert queue.counts() == {}


def test_an_image_that_cannot_be_queued_is_not_acknowledged(start, queue, monkeypatch, caplog):
    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(queue, "accept", full)
    assert send(start(), radiographs.dataset("CR")) == receiver.OUT_OF_RESOURCES
    assert "an image from PACS cannot be queued: database or disk is full" in caplog.text


def test_the_log_has_no_patient_data(start, caplog):
    caplog.set_level(logging.DEBUG, "boneage_jax")
    made = radiographs.dataset("CR")
    send(start(), made)
    assert "image 1 accepted from PACS" in caplog.text
    for word in ("Doe", "P4711", "20100310", "A99", made.SOPInstanceUID, made.StudyInstanceUID):
        assert word not in caplog.text


def test_deflated_transfer_syntax_is_not_accepted(start):
    association = connect(start(), contexts=[(ComputedRadiographyImageStorage, DeflatedExplicitVRLittleEndian)])
    assert [context.abstract_syntax for context in association.accepted_contexts] == [Verification]
    association.release()


def test_images_are_accepted_only_in_syntaxes_that_can_be_decoded(start):
    undecodable = (JPEGExtended12Bit, HTJ2KLossless, MPEG2MPML)
    kinds = (ComputedRadiographyImageStorage, CTImageStorage)
    association = connect(start(), contexts=[(kind, [syntax]) for kind in kinds for syntax in undecodable])
    accepted = {(one.abstract_syntax, *one.transfer_syntax) for one in association.accepted_contexts}
    association.release()
    assert {one for one in accepted if one[0] != Verification} == {(CTImageStorage, syntax) for syntax in undecodable}


def has_plugin(syntax, plugin):
    try:
        return plugin in get_decoder(syntax).available_plugins
    except NotImplementedError:
        return False


def test_images_are_accepted_in_every_syntax_that_can_be_decoded():
    decodable = {syntax for syntax, plugin in dicom_code._DECODERS.items() if has_plugin(syntax, plugin)}
    expected = (decodable | {*dicom_code._PLAIN}) - {DeflatedExplicitVRLittleEndian, JPEGExtended12Bit}
    assert set(receiver._READABLE_SYNTAXES) == expected


def test_an_address_in_use_is_an_error(start, queue):
    port = start()
    with pytest.raises(
        BoneAgeError, match=rf"cannot listen on 127\.0\.0\.1:{port}: Address already in use; choose another"
    ):
        receiver.start("BONEAGE", "127.0.0.1", port, (), queue)


def test_an_invalid_host_name_is_an_error(queue):
    with pytest.raises(BoneAgeError, match=r"cannot listen on pacs\.\.example:11112: .*; choose another address with"):
        receiver.start("BONEAGE", "pacs..example", 11112, (), queue)
