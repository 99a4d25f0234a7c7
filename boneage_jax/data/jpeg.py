"""JPEG by libjpeg-turbo, with the warnings about damaged code that OpenCV and Pillow swallow."""

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
"""How the messages of libjpeg and of gdcm's copies of it begin."""
_FEW = 16
"""Bytes between the image and its end that are as likely a camera's padding as damage."""


def decode(data: bytes, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Decodes a JPEG of 8 bits.

    Args:
      data: the bytes of the file.
      name: the file, as errors should name it.

    Returns:
      The brightness `[H, W]`, uint8, and a sentence for a warning of libjpeg that may be harmless.

    Raises:
      BoneAgeError: damaged code, or a kind of JPEG that is not read.
    """
    pixels, warnings = _brightness(data, name)
    if pixels is None:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise BoneAgeError(f"{name} is damaged: its pixels cannot be decoded; replace it with an intact copy.")
    return pixels, warnings


def inspect(code: bytes, name: str) -> tuple[str, ...]:
    """A sentence for what libjpeg reports about the JPEG code inside another file, if that may be harmless.

    Raises:
      BoneAgeError: it reports damage.
    """
    return _brightness(code, name)[1]


@contextlib.contextmanager
def report_damage(name: str) -> Iterator[list[str]]:
    """Refuses what a decoder that is a copy of libjpeg calls damaged on stderr in the block, as `inspect` does.

    Yields:
      A list, to which a sentence is added for what may be harmless.

    Raises:
      BoneAgeError: at the end of the block, if the decoder reports damage.
    """
    sentences: list[str] = []
    with native_messages.collected(_REPORTED) as reasons:
        yield sentences
    sentences += [_judge(reason, name) for reason in reasons]


def _judge(reason: str, name: str) -> str:
    """A sentence about what libjpeg reports if it may be harmless; raises if not."""
    few = _EXTRANEOUS.search(reason)
    if few is None or int(few[1]) > _FEW:
        raise BoneAgeError(f"{name} is damaged: libjpeg reports {reason!r}; replace it with an intact copy.")
    return f"The JPEG may be damaged: libjpeg reports {reason!r}."


def _brightness(data: bytes, name: str) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """As `decode`; None for what simplejpeg does not turn into brightness: four colours, odd samplings."""
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
