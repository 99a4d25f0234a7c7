"""Parses the form of a request into an `Upload`; the file stays in memory, and errors never repeat sent values."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from boneage_jax.data.child import parse_age, parse_sex
from boneage_jax.data.columns import OLDEST_YEARS
from boneage_jax.serve.reading import FailedUploadError, Upload

LIMIT = 64 * 2**20  # most bytes of a request's body
_SECONDS = 60.0  # most seconds to send it
_Value = TypeVar("_Value")
_FIELDS = ("image", "sex", "age")
_FIELD_BYTES = 1024  # most bytes of a field that is not a file
_CHARSETS = (b"utf-8", b"utf8")  # others are refused: decoding some of them takes minutes

SCHEMA = {
    "type": "object",
    "required": ["image"],
    "properties": {
        "image": {
            "type": "string",
            "format": "binary",
            "description": "a radiograph: PNG, JPEG, WebP, TIFF, BMP, JPEG 2000 or DICOM",
        },
        "sex": {
            "type": "string",
            "enum": ["F", "M", "unknown"],
            "description": "may be left out for a DICOM file that names it; unknown gives a reading of each",
        },
        "age": {
            "type": "number",
            "minimum": 0,
            "maximum": OLDEST_YEARS,
            "description": "chronological age in years, to compare with; default: that of the DICOM header",
        },
    },
}
"""Schema of the form, for OpenAPI."""


class _InMemory(MultiPartParser):
    spool_max_size = LIMIT + 1  # Starlette writes larger files to the disk.


async def read(request: Request, *, heatmap: bool) -> Upload:
    """Reads and checks the form.

    Args:
        request: the request; its body must not have been read.
        heatmap: copied into the upload.

    Raises:
        FailedUploadError: not a multipart form (415), an invalid form, sex or age, or a form not in UTF-8 (400), or a
            slow client (408).
    """
    kind, parameters = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data":
        raise FailedUploadError(415, {"error": "Expected a form of the type multipart/form-data."})
    if parameters.get(b"charset", b"utf-8").lower() not in _CHARSETS:
        raise FailedUploadError(400, {"error": "Expected a form in UTF-8."})
    parser = _InMemory(
        request.headers, request.stream(), max_files=1, max_fields=len(_FIELDS), max_part_size=_FIELD_BYTES
    )
    try:
        async with asyncio.timeout(_SECONDS):
            form = await parser.parse()
    except TimeoutError:
        raise FailedUploadError(408, {"error": f"The upload took more than {_SECONDS:g} seconds."}) from None
    except (MultiPartException, ValueError):
        sentence = "The form cannot be read: expected one file, image, and the fields sex and age."
        raise FailedUploadError(400, {"error": sentence}) from None
    try:
        return await _upload(form, heatmap=heatmap)
    finally:
        await form.close()


async def _upload(form: FormData, *, heatmap: bool) -> Upload:
    fields = {name: form.getlist(name) for name in form}
    if fields.keys() - set(_FIELDS) or any(len(values) > 1 for values in fields.values()):
        raise FailedUploadError(400, {"error": "Expected the fields image, sex and age, each at most once."})
    image = form.get("image")
    if not isinstance(image, UploadFile):
        raise FailedUploadError(400, {"error": "The file image is missing."})
    sex = _field(form.get("sex"), parse_sex, "The sex is not valid; expected F, M or unknown.")
    age = _field(
        form.get("age"), parse_age, f"The age is not valid; expected years from 0 to {OLDEST_YEARS:.0f}, such as 9.5."
    )
    return Upload(await image.read(), sex, age, heatmap)


def _field(value: UploadFile | str | None, parse: Callable[[str], _Value], sentence: str) -> _Value | None:
    """The value of a field; None if it is missing or empty."""
    if value is None or value == "":
        return None
    try:
        return parse(value if isinstance(value, str) else "a file")
    except ValueError:  # its message quotes the value, which the response must not do
        raise FailedUploadError(400, {"error": sentence}) from None
