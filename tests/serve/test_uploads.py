"""Parsing forms: their character set, their size, and the version of Starlette that keeps files in memory."""

import asyncio
import tomllib
from pathlib import Path

import pytest
from starlette.formparsers import MultiPartParser
from starlette.requests import Request

from boneage_jax.serve import uploads
from boneage_jax.serve.reading import FailedUploadError, Upload


def read(charset="", sex=b"F"):
    """Parses a form with an image and a sex."""
    body = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\npixels\r\n'
    body += b'--x\r\nContent-Disposition: form-data; name="sex"\r\n\r\n' + sex + b"\r\n--x--\r\n"

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    kind = f"multipart/form-data; boundary=x{charset}".encode()
    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", kind)]}
    return asyncio.run(uploads.read(Request(scope, receive), heatmap=False))


@pytest.mark.parametrize("charset", ["", "; charset=utf-8", "; charset=UTF8", '; charset="utf-8"'])
def test_a_form_in_utf_8_is_read(charset):
    assert read(charset) == Upload(b"pixels", "F")


@pytest.mark.parametrize("charset", ["punycode", "latin-1", "idna"])
def test_a_form_in_another_character_set_is_refused_before_it_is_decoded(charset):
    with pytest.raises(FailedUploadError) as error:
        read(f"; charset={charset}", sex=b"\xfc" * 2**20)
    assert (error.value.status, error.value.body) == (400, {"error": "Expected a form in UTF-8."})


def test_a_long_field_is_refused():
    assert read(sex=b"").sex is None
    with pytest.raises(FailedUploadError) as error:
        read(sex=b"F" * 2000)
    assert error.value.status == 400
    assert "The form cannot be read" in error.value.body["error"]


def test_starlette_has_the_attribute_that_keeps_files_in_memory():
    assert hasattr(MultiPartParser, "spool_max_size")
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    # Starlette 0.45 calls it max_file_size; fastapi 0.115.9 requires starlette<0.46.
    assert {"starlette>=0.46", "fastapi>=0.115.10"} <= set(project["optional-dependencies"]["serve"])
