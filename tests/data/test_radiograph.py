import cv2
import numpy as np
import pytest

from boneage_jax.data import radiograph
from boneage_jax.data.radiograph import decode
from boneage_jax.errors import BoneAgeError

GREY = np.random.default_rng(0).integers(0, 256, (40, 30)).astype(np.uint8)


def encode(image, ending=".png", *options):
    return cv2.imencode(ending, image, options)[1].tobytes()


@pytest.mark.parametrize("channels", [3, 4])
def test_colour_and_alpha_are_dropped_without_changing_grey_values(channels):
    coloured = np.stack([GREY] * 3 + [np.full_like(GREY, 255)] * (channels - 3), axis=-1)
    np.testing.assert_array_equal(decode(encode(coloured), "a.png"), GREY)


def test_sixteen_bits_survive():
    image = GREY.astype(np.uint16) * 257
    decoded = decode(encode(image), "a.png")
    assert decoded.dtype == np.uint16
    np.testing.assert_array_equal(decoded, image)


@pytest.mark.parametrize("ending", [".jpg", ".webp"])
def test_jpeg_and_webp_decode_to_grey(ending):
    smooth = cv2.GaussianBlur(GREY, (0, 0), 5)
    decoded = decode(encode(smooth, ending), f"a{ending}")
    assert decoded.shape == smooth.shape
    assert np.abs(decoded.astype(int) - smooth).mean() < 5


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_truncated_image_is_refused_by_name(ending, share):
    data = encode(GREY, ending)
    with pytest.raises(BoneAgeError, match=f"7{ending}"):
        decode(data[: int(len(data) * share)], f"7{ending}")


def test_a_damaged_png_is_refused():
    data = bytearray(encode(GREY))
    data[len(data) // 2] ^= 255
    with pytest.raises(BoneAgeError, match="damaged"):
        decode(bytes(data), "7.png")


@pytest.mark.parametrize(("data", "message"), [(b"", "empty"), (b"not an image" * 9, "not a PNG")])
def test_what_is_no_image_is_refused(data, message):
    with pytest.raises(BoneAgeError, match=f"7.png.*{message}"):
        decode(data, "7.png")


@pytest.mark.parametrize("side", [9_000, 20_000])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(side, monkeypatch):
    # 20,000 pixels a side is beyond Pillow's own limit too. A forged header suffices: nothing else is read.
    import struct
    import zlib

    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    data += encode(GREY)[33:]
    monkeypatch.setattr(radiograph.cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(BoneAgeError, match="decompression bomb"):
        decode(data, "7.png")
