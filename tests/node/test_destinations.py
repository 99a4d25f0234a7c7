"""C-STORE and STOW-RS: objects arrive, and each kind of failure has its own error."""

import http.server
import io
import json
import socket
import ssl
import threading
import time

import pydicom
import pytest
from pydicom.uid import Comprehensive3DSRStorage, CTImageStorage, SecondaryCaptureImageStorage
from pynetdicom import AE, evt

from boneage_jax.dicom_results import objects
from boneage_jax.node.destinations import Archive, RejectedError, Service, UnconfirmedError, UnreachableError
from tests.dicom_results import programs, radiographs

KINDS = (SecondaryCaptureImageStorage, Comprehensive3DSRStorage)
JSON, XML = "application/dicom+json", "application/dicom+xml"
FAILED = '{"00081198": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": ["1.2.3"]}}]}}'


def uid(content):
    return pydicom.dcmread(io.BytesIO(content)).SOPInstanceUID


def failed(content, reason):
    """The response of a service that has not stored this object."""
    item = {"00081155": {"vr": "UI", "Value": [uid(content)]}, "00081197": {"vr": "US", "Value": [reason]}}
    return json.dumps({"00081198": {"vr": "SQ", "Value": [item]}})


def stored(*contents):
    """The response of a service that has stored these objects."""
    items = [{"00081155": {"vr": "UI", "Value": [uid(content)]}} for content in contents]
    return json.dumps({"00081199": {"vr": "SQ", "Value": items}})


@pytest.fixture(scope="module")
def made():
    return objects.make(radiographs.file("CR"), "hand.dcm", radiographs.result(), radiographs.overlay)


@pytest.fixture
def archive():
    """Starts a storage SCP; returns a destination for it and the list of objects it receives."""
    servers = []

    def start(status=0x0000, kinds=KINDS, title="ARCHIVE", syntaxes=None):
        received = []

        def store(event):
            received.append(event.dataset)
            return status

        entity = AE(ae_title=title)
        entity.require_called_aet = True
        for kind in kinds:
            entity.add_supported_context(kind, syntaxes)
        server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
        assert server is not None
        servers.append(server)
        return Archive("BONEAGE", "ARCHIVE", "127.0.0.1", server.server_address[1]), received

    yield start
    for server in servers:
        server.shutdown()


@pytest.fixture
def service():
    """Starts an HTTP server with one response; returns a destination and the list of requests the server receives."""
    servers = []

    def start(status=200, body="", kind=JSON, location=None, tls=None):
        received = []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                received.append((self.path, self._body()))
                self._answer(status)

            def do_GET(self):
                received.append((self.path, None))
                self._answer(200)

            def _answer(self, status):
                self.send_response(status)
                if location:
                    self.send_header("Location", location)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def _body(self):
                if length := self.headers.get("Content-Length"):
                    return self.rfile.read(int(length))
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever).start()
        servers.append(server)
        return Service(f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}/dicom-web"), received

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_an_archive_receives_both_objects(archive, made):
    destination, received = archive()
    with destination.connect() as send:
        send(made.capture)
        send(made.report)
    sent = [pydicom.dcmread(io.BytesIO(content)) for content in (made.capture, made.report)]
    assert [one.SOPInstanceUID for one in received] == [one.SOPInstanceUID for one in sent]
    assert received[0].PixelData == sent[0].PixelData
    assert received[1].ContentSequence == sent[1].ContentSequence


def test_an_archive_that_accepts_only_implicit_vr_receives_the_report(archive, made):
    destination, received = archive(syntaxes=pydicom.uid.ImplicitVRLittleEndian)
    with destination.connect() as send:
        send(made.report)
    assert received[0].ContentSequence == pydicom.dcmread(io.BytesIO(made.report)).ContentSequence


def test_a_warning_status_of_an_archive_counts_as_success(archive, made):
    destination, received = archive(status=0xB000)
    with destination.connect() as send:
        send(made.report)
    assert len(received) == 1


def test_a_failure_status_of_an_archive_is_a_rejection(archive, made):
    destination, _ = archive(status=0xA700)
    with destination.connect() as send, pytest.raises(RejectedError, match="it answers with status 0xA700"):
        send(made.report)


def test_an_object_that_an_archive_has_already_counts_as_stored(archive, made):
    destination, received = archive(status=0x0111)
    with destination.connect() as send:
        send(made.report)
    assert len(received) == 1


def test_an_archive_without_sr_support_rejects_only_the_report(archive, made):
    destination, received = archive(kinds=[SecondaryCaptureImageStorage])
    with destination.connect() as send:
        send(made.capture)
        with pytest.raises(RejectedError, match="it does not accept objects of this SOP class"):
            send(made.report)
    assert len(received) == 1


# pynetdicom leaves the socket of a refused connection to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_missing_archive_is_unreachable():
    with pytest.raises(UnreachableError, match="it does not answer"), Archive("A", "B", "127.0.0.1", 9).connect():
        pass


def test_an_archive_with_an_invalid_host_name_is_unreachable():
    destination = Archive("A", "B", "pacs..example", 104)
    with pytest.raises(UnreachableError, match="its name cannot be resolved"), destination.connect():
        pass


def test_an_archive_whose_name_cannot_be_resolved_is_unreachable(monkeypatch):
    def resolve(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    destination = Archive("A", "B", "pacs.invalid", 104)
    with pytest.raises(UnreachableError, match="its name cannot be resolved"), destination.connect():
        pass


def test_an_archive_that_accepts_no_class_of_the_results_is_unreachable(archive):
    destination, _ = archive(kinds=[CTImageStorage])
    with pytest.raises(UnreachableError, match="it accepts neither Comprehensive 3D SR nor"), destination.connect():
        pass


def test_an_archive_with_another_ae_title_is_unreachable(archive):
    destination, _ = archive(title="ELSEWHERE")
    with pytest.raises(UnreachableError, match="it rejects the association"), destination.connect():
        pass


def test_a_rejection_that_arrives_at_once_is_recognised(archive, monkeypatch):
    destination, _ = archive(title="ELSEWHERE")
    associate = destination._entity.associate

    def slowly(*arguments, evt_handlers=(), **options):
        """Looks at the connection only when the archive has answered and closed it."""
        pause = (evt.EVT_REQUESTED, lambda event: time.sleep(0.5))
        return associate(*arguments, evt_handlers=[*evt_handlers, pause], **options)

    monkeypatch.setattr(destination._entity, "associate", slowly)
    with pytest.raises(UnreachableError, match="it rejects the association"), destination.connect():
        pass


def test_a_service_receives_the_bytes_of_each_object(service, made):
    destination, received = service(body=stored(made.capture, made.report))
    with destination.connect() as send:
        send(made.capture)
        send(made.report)
    assert [path for path, _ in received] == ["/dicom-web/studies"] * 2
    for (_, body), content in zip(received, (made.capture, made.report), strict=True):
        assert content[132:] in body  # after the preamble


@pytest.mark.parametrize("status", [401, 403, 404, 429, 503])
def test_a_service_with_a_temporary_error_status_is_unreachable(status, service, made):
    destination, _ = service(status)
    with destination.connect() as send, pytest.raises(UnreachableError, match=f"it answers with status {status}"):
        send(made.report)


@pytest.mark.parametrize("status", [400, 409, 415])
def test_a_permanent_error_status_of_a_service_is_a_rejection(status, service, made):
    destination, _ = service(status)
    with destination.connect() as send, pytest.raises(RejectedError, match=f"it answers with status {status}"):
        send(made.report)


def test_a_failure_listed_in_the_response_is_a_rejection(service, made):
    destination, _ = service(202, FAILED)
    with destination.connect() as send, pytest.raises(RejectedError, match="it reports that storing failed"):
        send(made.report)


@pytest.mark.parametrize("status", [200, 202, 409])
@pytest.mark.parametrize("reason", [0x0111, 45070])
def test_an_object_that_a_service_has_already_counts_as_stored(reason, status, service, made):
    destination, received = service(status, failed(made.report, reason))
    with destination.connect() as send:
        send(made.report)
    assert len(received) == 1


def test_a_duplicate_of_another_object_does_not_confirm_this_one(service, made):
    destination, _ = service(409, failed(made.capture, 0x0111))
    with destination.connect() as send, pytest.raises(RejectedError, match="storing failed for reason 0x0111"):
        send(made.report)


@pytest.mark.parametrize("status", [202, 409])
def test_the_reason_of_a_failure_is_reported(status, service, made):
    destination, _ = service(status, failed(made.report, 0xA700))
    with destination.connect() as send, pytest.raises(RejectedError, match="storing failed for reason 0xA700"):
        send(made.report)


def test_a_missing_service_is_unreachable(made):
    with Service("http://127.0.0.1:9/dicom-web").connect() as send, pytest.raises(UnreachableError, match="not answer"):
        send(made.report)


def test_a_service_without_a_trusted_certificate_is_unreachable(service, made, tmp_path):
    programs.need("openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    options = ("-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-keyout", key, "-out", certificate)
    assert programs.run("openssl", "req", *options)[0] == 0
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    destination, received = service(tls=context)
    with destination.connect() as send, pytest.raises(UnreachableError, match="its certificate is not trusted"):
        send(made.report)
    assert received == []


def test_a_service_without_tls_is_unreachable_over_https(service, made):
    destination, _ = service()
    url = str(destination).replace("http:", "https:")
    with Service(url).connect() as send, pytest.raises(UnreachableError, match="no TLS connection can be made"):
        send(made.report)


def test_destinations_are_named_by_their_address():
    assert str(Archive("BONEAGE", "PACS", "10.0.0.5", 104)) == "PACS@10.0.0.5:104"
    assert str(Service("http://127.0.0.1:8042/dicom-web")) == "http://127.0.0.1:8042/dicom-web"


XML_STORED = """<NativeDicomModel>
<DicomAttribute tag="00081199" vr="SQ" keyword="ReferencedSOPSequence"><Item number="1">
<DicomAttribute tag="00081155" vr="UI" keyword="ReferencedSOPInstanceUID"><Value number="1">{}</Value></DicomAttribute>
</Item></DicomAttribute></NativeDicomModel>"""


@pytest.mark.parametrize("kind", [JSON, "application/json", f"{JSON}; charset=utf-8", f"{XML};charset=utf-8"])
def test_a_response_that_lists_the_object_confirms_it(kind, service, made):
    body = XML_STORED.format(uid(made.report)) if kind.startswith(XML) else stored(made.report)
    destination, received = service(body=body, kind=kind)
    with destination.connect() as send:
        send(made.report)
    assert len(received) == 1


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("", JSON),
        ("{}", JSON),
        ("<html>Log in</html>", "text/html"),
        ('{"message": "stored"}', "application/json"),
        ('["stored"]', "application/json"),
        ("stored", JSON),
        ("<stored", XML),
    ],
)
def test_a_success_status_without_the_object_does_not_confirm_it(body, kind, service, made):
    destination, _ = service(body=body, kind=kind)
    with destination.connect() as send, pytest.raises(UnconfirmedError, match="does not list the object as stored"):
        send(made.report)


def test_a_response_that_lists_another_object_does_not_confirm_it(service, made):
    destination, _ = service(body=stored(made.capture))
    with destination.connect() as send, pytest.raises(UnconfirmedError, match="does not list the object as stored"):
        send(made.report)


def test_a_failure_is_found_despite_media_type_parameters(service, made):
    destination, _ = service(body=FAILED, kind=f"{JSON}; charset=utf-8")
    with destination.connect() as send, pytest.raises(RejectedError, match="it reports that storing failed"):
        send(made.report)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirections_are_not_followed(status, service, made):
    destination, received = service(status, stored(made.report), location="/login")
    with destination.connect() as send, pytest.raises(UnreachableError, match="it redirects to another address"):
        send(made.report)
    assert [path for path, _ in received] == ["/dicom-web/studies"]


def test_an_internal_error_of_a_service_leaves_the_object_unconfirmed(service, made):
    destination, _ = service(500)
    with destination.connect() as send, pytest.raises(UnconfirmedError, match="it answers with status 500"):
        send(made.report)
