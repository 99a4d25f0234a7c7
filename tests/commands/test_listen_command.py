"""`boneage listen`: its flags, and the errors before it starts."""

import importlib.util
import logging
import sys

import pytest

from boneage_jax.commands import listen, listening
from boneage_jax.commands.main import main

PACS = "--send-to=PACS@127.0.0.1:104"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "one of the arguments --send-to --dicomweb is required"),
        ([PACS, "--dicomweb=http://localhost/"], "not allowed with argument"),
        (["--send-to=127.0.0.1:104"], "'127.0.0.1:104' is not of the form AET@HOST:PORT, such as PACS@10.0.0.5:104"),
        (["--send-to=PACS@host:99999"], "is not of the form AET@HOST:PORT"),
        (["--send-to=THIS_TITLE_IS_TOO_LONG@host:104"], "is not an AE title of 1 to 16 ASCII characters"),
        (["--dicomweb=localhost:8042"], "'localhost:8042' is not the URL of a service"),
        (["--dicomweb=http://localhost:99999/dicom-web"], "'http://localhost:99999/dicom-web' is not the URL of a ser"),
        (["--dicomweb=http://localhost:0/"], "'http://localhost:0/' is not the URL of a service"),
        (["--dicomweb=http://[localhost/"], "'http://[localhost/' is not the URL of a service"),
        (["--dicomweb=http://user:secret@localhost/"], "put it into ~/.netrc"),
        (["--dicomweb=ftp://user:secret@localhost:99999/"], "put it into ~/.netrc"),
        ([PACS, "--aet="], "'' is not an AE title"),
        ([PACS, "--allow=a\\b"], "is not an AE title"),
    ],
)
def test_invalid_flags_are_errors(flags, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["listen", *flags])
    err = capsys.readouterr().err
    assert ended.value.code == 1
    assert message in err
    assert "secret" not in err


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "archive.example"])
def test_a_non_loopback_address_requires_a_list_of_callers(host, capsys):
    assert main(["listen", PACS, f"--host={host}"]) == 1
    assert f"--host {host} can be reached by other machines; list those that may connect" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_loopback_addresses_are_recognised(host):
    assert listening.is_loopback(host)


def test_a_missing_extra_is_named_in_one_line(monkeypatch, capsys):
    original = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "pynetdicom" else original(name, *rest)
    )
    assert main(["listen", PACS]) == 1
    assert capsys.readouterr().err == (
        'error: boneage listen needs pynetdicom, which the extra "dicom" installs: pip install -e ".[dicom]"\n'
    )


def test_the_default_queue_folder_follows_xdg_state_home(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert listen._state_folder() == tmp_path / "boneage_jax"


@pytest.mark.parametrize("url", ["http://localhost/", "https://archive.example/dicom-web", "http://[::1]:8042/dicom"])
def test_urls_of_services_are_accepted(url):
    assert listen._url(url) == url


def test_archive_addresses_are_parsed():
    assert listen._address("PACS@10.0.0.5:104") == ("PACS", "10.0.0.5", 104)
    assert listen._address("MY PACS@[::1]:11112") == ("MY PACS", "::1", 11112)


@pytest.mark.parametrize("port", [70000, -1])
def test_an_out_of_range_port_is_an_error_before_the_weights_are_loaded(port, capsys):
    assert main(["listen", PACS, f"--port={port}", "--weights=missing"]) == 1
    assert capsys.readouterr().err == f"error: --port is {port}, expected 0 to 65535\n"


def test_a_line_of_the_log_is_printed_once_even_after_a_warning_of_absl(capsys):
    log, root = logging.getLogger("tests.listening"), logging.getLogger()
    handler = logging.StreamHandler(sys.stderr)
    listening.log_to_stderr(log.name)
    root.addHandler(handler)  # as absl does with its first warning
    try:
        log.info("image 1 accepted")
    finally:
        root.removeHandler(handler)
    assert capsys.readouterr().err.count("image 1 accepted") == 1
