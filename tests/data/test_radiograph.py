import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from boneage_jax.data import pictures
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


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp", ".tif"])
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
    import zlib

    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    data += encode(GREY)[33:]
    monkeypatch.setattr(pictures.cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(BoneAgeError, match="decompression bomb"):
        decode(data, "7.png")


def tiff(image, photometric=1, **options):
    """A TIFF by hand or, compressed, by Pillow, whose own writing of white-is-zero would not be independent."""
    if options:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "TIFF", **options)
        return file.getvalue()
    height, width = image.shape
    tags = [(256, width), (257, height), (258, 8 * image.itemsize), (259, 1), (262, photometric), (273, 8)]
    tags += [(277, 1), (278, height), (279, image.nbytes)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + b"\0" * 4
    return b"II*\0" + struct.pack("<I", 8 + image.nbytes) + image.tobytes() + directory


@pytest.mark.parametrize("image", [GREY, GREY.astype(np.uint16) * 257], ids=["8 bits", "16 bits"])
def test_a_tiff_is_read_and_inverted_once_if_white_is_zero(image):
    np.testing.assert_array_equal(decode(tiff(image), "a.tif"), image)
    np.testing.assert_array_equal(decode(tiff(image, photometric=0), "a.tif"), np.iinfo(image.dtype).max - image)


@pytest.mark.parametrize("image", [GREY, GREY.astype(np.uint16) * 257], ids=["8 bits", "16 bits"])
@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits"])
def test_a_compressed_tiff_is_read(image, compression):
    np.testing.assert_array_equal(decode(tiff(image, compression=compression), "a.tif"), image)


def test_a_colour_tiff_becomes_grey():
    np.testing.assert_array_equal(decode(tiff(np.stack([GREY] * 4, axis=-1), compression="tiff_lzw"), "a.tif"), GREY)


def test_a_tiff_of_several_pages_is_refused():
    data = tiff(GREY, save_all=True, append_images=[Image.fromarray(GREY)])
    with pytest.raises(BoneAgeError, match="holds 2 pages; expected one"):
        decode(data, "7.tif")


@pytest.mark.parametrize("image", [GREY > 99, GREY.astype(np.float32), GREY.astype(np.int32)])
def test_a_tiff_of_other_pixels_is_refused(image):
    with pytest.raises(BoneAgeError, match=r"7\.tif has pixels of the kind"):
        decode(tiff(image, compression="raw"), "7.tif")
