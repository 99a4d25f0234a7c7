"""Destinations of the results: an archive that accepts C-STORE, or a DICOMweb service that accepts STOW-RS."""

import contextlib
import io
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from http import HTTPStatus
from typing import Any, Protocol, runtime_checkable

import pydicom
import requests
from dicomweb_client import DICOMwebClient
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)
from pynetdicom import AE, evt
from pynetdicom.pdu import A_ASSOCIATE_RJ

_TIMEOUT = 30.0  # seconds without a response
_UNCONFIRMED = "its response does not list the object as stored"
_UNAVAILABLE = {401, 403, 404, 408, 429, 502, 503, 504}  # HTTP statuses that concern the service, not the object
# The object is there already: an earlier confirmation got lost. PS3.7, C.5 and, for Azure's DICOM service, 45070.
_DUPLICATE, _DUPLICATE_IN_AZURE = 0x0111, 0xB00E


class UnreachableError(Exception):
    """The destination cannot be reached or denies access, whatever the object; it may be available again later."""


class UnconfirmedError(Exception):
    """The destination does not confirm that it has stored this object; it may accept the same object later."""


class RejectedError(Exception):
    """The destination responds but does not accept this object."""


@runtime_checkable
class Destination(Protocol):
    """Where results are sent."""

    def connect(self) -> AbstractContextManager[Callable[[bytes], None]]:
        """Yields a function that sends the bytes of a DICOM file; it is valid within the context.

        The function raises UnreachableError, UnconfirmedError or RejectedError. Entering the context can raise
        UnreachableError.
        """


class Archive:
    """A storage SCP.

    Args:
        own_title: AE title of the node.
        title: AE title of the archive.
        host: address of the archive.
        port: port of the archive.
    """

    def __init__(self, own_title: str, title: str, host: str, port: int):
        self._entity = AE(ae_title=own_title)
        self._entity.connection_timeout = self._entity.dimse_timeout = self._entity.acse_timeout = _TIMEOUT
        for kind in (Comprehensive3DSRStorage, SecondaryCaptureImageStorage):
            self._entity.add_requested_context(kind, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        self._title, self._host, self._port = title, host, port

    def __str__(self) -> str:
        return f"{self._title}@{self._host}:{self._port}"

    @contextlib.contextmanager
    def connect(self) -> Iterator[Callable[[bytes], None]]:
        """See `Destination`; opens one association."""
        rejections: list[A_ASSOCIATE_RJ] = []

        def receive(event: evt.Event) -> None:
            if isinstance(event.pdu, A_ASSOCIATE_RJ):
                rejections.append(event.pdu)

        try:
            association = self._entity.associate(
                self._host, self._port, ae_title=self._title, evt_handlers=[(evt.EVT_PDU_RECV, receive)]
            )
        except (socket.gaierror, UnicodeError) as error:  # UnicodeError: it cannot be a name, such as pacs..example
            raise UnreachableError("its name cannot be resolved") from error
        if association.rejected_contexts and not association.accepted_contexts:
            raise UnreachableError("it accepts neither Comprehensive 3D SR nor Secondary Capture objects")
        if not association.is_established:
            # Not `association.is_rejected`: a rejection at once counts there as a failure to connect.
            raise UnreachableError("it rejects the association" if rejections else "it does not answer")

        def send(content: bytes) -> None:
            try:
                status = association.send_c_store(pydicom.dcmread(io.BytesIO(content)))
            except ValueError as error:  # no presentation context
                raise RejectedError("it does not accept objects of this SOP class") from error
            except RuntimeError as error:  # the association has ended
                raise UnconfirmedError("it ended the association") from error
            if "Status" not in status:
                raise UnconfirmedError("it does not answer")
            is_warning = status.Status & 0xF000 == 0xB000  # the object was stored nevertheless
            if status.Status not in (0x0000, _DUPLICATE) and not is_warning:
                raise RejectedError(f"it answers with status 0x{status.Status:04X}")

        try:
            yield send
        finally:
            association.release()


class Service:
    """A DICOMweb service; user name and password are taken from the user's netrc file.

    An object counts as stored only if the response lists it in its Referenced SOP Sequence, as PS3.18, I.1 requires, or
    as a duplicate in its Failed SOP Sequence. Redirections are not followed: a request that is redirected often ends at
    a login page.

    Args:
        url: base URL of the service, without `/studies`.
    """

    def __init__(self, url: str):
        session = requests.Session()
        session.max_redirects = 0
        session.hooks["response"] += [_strip_parameters, _let_conflicts_pass]
        self._client = DICOMwebClient(url, session, timeout=_TIMEOUT)
        self._client.set_http_retry_params(retry=False)  # the node schedules its own retries

    def __str__(self) -> str:
        return str(self._client.base_url)

    @contextlib.contextmanager
    def connect(self) -> Iterator[Callable[[bytes], None]]:
        """See `Destination`; sends one request per object."""
        yield self._send

    def _send(self, content: bytes) -> None:
        made = pydicom.dcmread(io.BytesIO(content))
        try:
            answer = self._client.store_instances([made])
        except requests.HTTPError as error:
            code = 500 if error.response is None else error.response.status_code
            kind = UnreachableError if code in _UNAVAILABLE else UnconfirmedError if code >= 500 else RejectedError
            raise kind(f"it answers with status {code}") from error
        except requests.TooManyRedirects as error:
            raise UnreachableError("it redirects to another address") from error
        except requests.JSONDecodeError as error:
            raise UnconfirmedError(_UNCONFIRMED) from error
        except requests.exceptions.SSLError as error:
            is_untrusted = "CERTIFICATE_VERIFY_FAILED" in str(error)
            raise UnreachableError(
                "its certificate is not trusted" if is_untrusted else "no TLS connection can be made"
            ) from error
        except requests.RequestException as error:
            raise UnreachableError("it does not answer") from error
        except Exception as error:  # the client raises errors of any type for a body that is not a data set
            raise UnconfirmedError(_UNCONFIRMED) from error
        if failures := answer.get("FailedSOPSequence"):
            reasons = {item.get("FailureReason") for item in failures}
            are_ours = all(item.get("ReferencedSOPInstanceUID") == made.SOPInstanceUID for item in failures)
            if are_ours and reasons <= {_DUPLICATE, _DUPLICATE_IN_AZURE}:
                return
            given = ", ".join(f"0x{reason:04X}" for reason in sorted(reasons - {None}))
            raise RejectedError("it reports that storing failed" + (f" for reason {given}" if given else ""))
        stored = [item.get("ReferencedSOPInstanceUID") for item in answer.get("ReferencedSOPSequence") or ()]
        if made.SOPInstanceUID not in stored:
            raise UnconfirmedError(_UNCONFIRMED)


def _strip_parameters(response: requests.Response, **_: Any) -> None:
    """Removes the parameters of the media type, such as the character set; the client expects none."""
    kind = response.headers.get("Content-Type", "")
    response.headers["Content-Type"] = kind.partition(";")[0].strip().lower()


def _let_conflicts_pass(response: requests.Response, **_: Any) -> None:
    """Turns the status 409 (nothing was stored) of a response with a data set into 202, so that the client reads it."""
    is_data_set = response.content and response.headers["Content-Type"].endswith(("json", "xml"))
    if response.status_code == HTTPStatus.CONFLICT and is_data_set:
        response.status_code = HTTPStatus.ACCEPTED
