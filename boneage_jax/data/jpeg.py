"""Decodes JPEG with libjpeg-turbo, and reports the warnings about damage that OpenCV and Pillow suppress."""

import contextlib
import re
from collections.abc import Iterator

import cv2
import numpy as np
import simplejpeg

from boneage_jax.data import native_messages
from boneage_jax.errors import BoneAgeError

_FOUR_COLOURS = ("CMYK", "YCCK")
_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
_REPORTED = re.compile("^(Corrupt JPEG data|Premature end of JPEG|Unsupported marker type|Warning: )")
"""The beginnings of messages from libjpeg and from gdcm's copies of it."""
_FEW = 16
"""Up to this many bytes before the end marker may be a camera's padding rather than damage."""


def decode(data: bytes, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Decodes an 8-bit JPEG.

    Args:
      data: the bytes of the file.
      name: the name of the file in error messages.

    Returns:
      The luminance `[H, W]`, uint8, and a sentence for a libjpeg warning that may be harmless.

    Raises:
      BoneAgeError: damaged code, or an unsupported kind of JPEG.
    """
    pixels, warnings = _brightness(data, name)
    if pixels is None:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise BoneAgeError(f"{name} is damaged: its pixels cannot be decoded; replace it with an intact copy")
    return pixels, warnings


def inspect(code: bytes, name: str) -> tuple[str, ...]:
    """Checks JPEG code inside another file; returns a sentence for a libjpeg warning that may be harmless.

    Raises:
      BoneAgeError: libjpeg reports damage.
    """
    return _brightness(code, name)[1]


@contextlib.contextmanager
def report_damage(name: str) -> Iterator[list[str]]:
    """Like `inspect`, for a decoder derived from libjpeg that reports damage on stderr within the block.

    Yields:
      A list that receives a sentence for each message that may be harmless, after the block.

    Raises:
      BoneAgeError: at the end of the block, if the decoder reports damage.
    """
    sentences: list[str] = []
    with native_messages.collected(_REPORTED) as reasons:
        yield sentences
    sentences += [_judge(reason, name) for reason in reasons]


def _judge(reason: str, name: str) -> str:
    """A sentence about a libjpeg message that may be harmless; raises BoneAgeError for any other."""
    few = _EXTRANEOUS.search(reason)
    if few is None or int(few[1]) > _FEW:
        raise BoneAgeError(f"{name} is damaged: libjpeg reports {reason!r}; replace it with an intact copy")
    return f"The JPEG may be damaged: libjpeg reports {reason!r}."


def _brightness(data: bytes, name: str) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """As `decode`; None if simplejpeg cannot decode to luminance: CMYK, YCCK, or unusual chroma subsampling."""
    try:
        colours = simplejpeg.decode_jpeg_header(data, strict=False)[2]
    except (ValueError, KeyError):
        return None, ()
    if colours in _FOUR_COLOURS:
        return None, ()
    try:
        return simplejpeg.decode_jpeg(data, "GRAY", fastdct=False, fastupsample=False)[..., 0], ()
    except ValueError as error:
        sentence = _judge(str(error), name)
    pixels = simplejpeg.decode_jpeg(data, "GRAY", fastdct=False, fastupsample=False, strict=False)[..., 0]
    return pixels, (sentence,)
