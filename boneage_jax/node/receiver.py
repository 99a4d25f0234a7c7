"""The node's storage SCP: queues radiographs of hands, and acknowledges and drops other objects."""

import logging
import sqlite3
from collections.abc import Sequence

from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGExtended12Bit
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at run time
from pynetdicom.transport import ThreadedAssociationServer

from boneage_jax.data import dicom_code
from boneage_jax.dicom_results.source import CLASSES
from boneage_jax.errors import BoneAgeError
from boneage_jax.node.queue import Queue
from boneage_jax.node.selection import reason_to_ignore

SUCCESS, OUT_OF_RESOURCES, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000

_SYNTAXES = [syntax for syntax in ALL_TRANSFER_SYNTAXES if syntax != DeflatedExplicitVRLittleEndian]
"""Accepted for objects that are dropped: all but the deflated one, in which a small message could fill the memory."""

_READABLE_SYNTAXES = [syntax for syntax in dicom_code.SYNTAXES if syntax in _SYNTAXES and syntax != JPEGExtended12Bit]
"""Accepted for images, so that senders convert images in others; of JPEG Extended only a rare form could be read."""

_log = logging.getLogger(__name__)


def start(title: str, host: str, port: int, callers: Sequence[str], queue: Queue) -> ThreadedAssociationServer:
    """Starts listening in separate threads.

    Echo requests are answered. An image is acknowledged once it is in the queue; objects that the node does not read
    are acknowledged and dropped.

    Args:
        title: AE title of the node.
        host: address to bind to.
        port: port to listen on; 0 for any free port.
        callers: AE titles that may connect; empty for all.
        queue: receives the images.

    Raises:
        BoneAgeError: the address cannot be bound.
    """
    entity = AE(ae_title=title)
    entity.require_calling_aet = list(callers)
    entity.add_supported_context(Verification)
    for context in AllStoragePresentationContexts:
        assert context.abstract_syntax is not None
        is_read = context.abstract_syntax in CLASSES
        entity.add_supported_context(context.abstract_syntax, _READABLE_SYNTAXES if is_read else _SYNTAXES)
    try:
        server = entity.start_server(
            (host, port), block=False, evt_handlers=[(evt.EVT_C_STORE, _store, [queue]), (evt.EVT_REJECTED, _rejected)]
        )
    except (OSError, UnicodeError) as error:  # UnicodeError: the host cannot be a name, such as pacs..example
        reason = getattr(error, "strerror", None) or error
        raise BoneAgeError(
            f"cannot listen on {host}:{port}: {reason}; choose another address with --host and --port"
        ) from error
    assert server is not None  # start_server returns a server with block=False
    return server


def _store(event: evt.Event, queue: Queue) -> int:
    """Handles a C-STORE request and returns its status."""
    caller = event.assoc.requestor.ae_title
    request = event.request
    assert isinstance(request, C_STORE)
    if request.AffectedSOPClassUID is None or request.AffectedSOPInstanceUID is None:
        _log.warning("an object from %s is refused: the request has no UID", caller)
        return CANNOT_UNDERSTAND
    data = event.encoded_dataset()
    try:
        if reason := reason_to_ignore(request.AffectedSOPClassUID, data):
            _log.info("an object from %s is ignored: %s", caller, reason)
            return SUCCESS
        number = queue.accept(request.AffectedSOPInstanceUID, data)
    except BoneAgeError as error:
        _log.warning("an object from %s is refused: %s", caller, error)
        return CANNOT_UNDERSTAND
    except sqlite3.Error as error:
        _log.error("an image from %s cannot be queued: %s", caller, error)
        return OUT_OF_RESOURCES
    if number is None:
        _log.info("an image from %s was received before and is not read again", caller)
    else:
        _log.info("image %d accepted from %s", number, caller)
    return SUCCESS


def _rejected(event: evt.Event) -> None:
    _log.warning("an association from %s is rejected", event.assoc.requestor.ae_title)
