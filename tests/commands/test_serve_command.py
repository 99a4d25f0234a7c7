"""`boneage serve`: errors before it loads weights, and how it shuts down."""

import importlib.util
import signal
import socket

import pytest
import uvicorn

import boneage_jax
from boneage_jax import program
from boneage_jax.commands.main import main
from boneage_jax.serve import reading
from tests.serve.services import TOKEN


@pytest.fixture
def error(monkeypatch, capsys):
    """Runs the command, which must fail without loading weights, and returns its only line on stderr."""

    def load(_):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(boneage_jax, "load", load)

    def run(*arguments):
        assert main(["serve", *map(str, arguments)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return run


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_non_loopback_addresses_require_a_token(host, error):
    assert f"--host {host} can be reached by other machines" in error("--host", host)
    assert "--token-file" in error("--host", host)


@pytest.mark.parametrize("text", ["", "short", f"{TOKEN} {TOKEN}", f"{TOKEN}\n{TOKEN}", f"{TOKEN}é"])
def test_an_invalid_token_file_is_rejected(text, error, tmp_path):
    (tmp_path / "token").write_text(text)
    line = error("--host=0.0.0.0", "--token-file", tmp_path / "token")
    assert "contains no token" in line
    assert TOKEN not in line


def test_a_missing_token_file_is_named(error, tmp_path):
    assert f"{tmp_path / 'none'} cannot be read" in error("--token-file", tmp_path / "none")


def test_a_port_in_use_is_reported_before_loading(error):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"cannot listen on 127.0.0.1, port {port}" in error("--port", port)


@pytest.mark.parametrize("host", ["hôpital..example", "pacs..example", "h" * 64 + ".example"])
def test_a_host_that_cannot_be_a_name_is_reported_before_loading(host, error, tmp_path):
    (tmp_path / "token").write_text(TOKEN)
    line = error("--host", host, "--token-file", tmp_path / "token")
    assert line.startswith(f"error: cannot listen on {host}, port 8080: ")


def test_an_out_of_range_port_or_number_of_uploads_is_an_error(error):
    assert "--port is 70000" in error("--port=70000")
    assert "--max-uploads is 0" in error("--max-uploads=0")


def test_a_missing_extra_is_named_in_one_line(error, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "uvicorn" else find(name, *rest)
    )
    line = error()
    assert line.startswith("error: boneage serve needs uvicorn")
    assert "[serve]" in line


@pytest.mark.parametrize(("signalled", "status"), [(None, 0), (signal.SIGINT, 130)])
def test_the_inference_thread_is_closed_however_the_server_ends(signalled, status, monkeypatch):
    """After a second Ctrl-C, uvicorn skips the application's shutdown; a thread left in JAX would abort the process."""
    done = []

    class Recorded(reading.Reading):
        has_heatmaps = False

        def __init__(self, predictor, max_uploads):
            done.append("made")

        def warm_up(self):
            done.append("warm")

        def close(self):
            done.append("closed")

    def serve(self, sockets):
        done.append("served")
        if signalled:
            raise program.Signalled(signalled)

    monkeypatch.setattr(boneage_jax, "load", lambda _: None)
    monkeypatch.setattr(reading, "Reading", Recorded)
    monkeypatch.setattr(uvicorn.Server, "run", serve)
    assert main(["serve", "--port=0", "--weights=any"]) == status
    assert done == ["made", "warm", "served", "closed"]
