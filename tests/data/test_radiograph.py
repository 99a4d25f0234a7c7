import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from boneage_jax.data.files import File
from boneage_jax.data.header import Header
from boneage_jax.data.radiograph import decode, read, select_images
from boneage_jax.errors import BoneAgeError

GREY = np.random.default_rng(0).integers(0, 256, (40, 30)).astype(np.uint8)


def encode(image, ending=".png", *options):
    return cv2.imencode(ending, image, options)[1].tobytes()


@pytest.mark.parametrize("channels", [3, 4])
def test_colour_and_alpha_are_dropped_without_changing_intensities(channels):
    coloured = np.stack([GREY] * 3 + [np.full_like(GREY, 255)] * (channels - 3), axis=-1)
    np.testing.assert_array_equal(decode(encode(coloured), "a.png"), GREY)


def test_16_bit_pngs_decode_exactly():
    image = GREY.astype(np.uint16) * 257
    decoded = decode(encode(image), "a.png")
    assert decoded.dtype == np.uint16
    np.testing.assert_array_equal(decoded, image)


@pytest.mark.parametrize("ending", [".jpg", ".webp"])
def test_jpeg_and_webp_decode_to_greyscale(ending):
    smooth = cv2.GaussianBlur(GREY, (0, 0), 5)
    decoded = decode(encode(smooth, ending), f"a{ending}")
    assert decoded.shape == smooth.shape
    assert np.abs(decoded.astype(int) - smooth).mean() < 5


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_truncated_image_is_rejected_and_named(ending, share):
    data = encode(GREY, ending)
    with pytest.raises(BoneAgeError, match=f"7{ending}"):
        decode(data[: int(len(data) * share)], f"7{ending}")


def test_a_damaged_png_is_rejected():
    data = bytearray(encode(GREY))
    data[len(data) // 2] ^= 255
    with pytest.raises(BoneAgeError, match="damaged"):
        decode(bytes(data), "7.png")


@pytest.mark.parametrize(("data", "message"), [(b"", "empty"), (b"not an image" * 9, "not a PNG")])
def test_non_image_data_is_rejected(data, message):
    with pytest.raises(BoneAgeError, match=f"7.png.*{message}"):
        decode(data, "7.png")


@pytest.mark.parametrize("side", [9_000, 20_000])
def test_a_decompression_bomb_is_rejected_before_decoding(side, monkeypatch):
    # 20,000 pixels a side also exceeds Pillow's own limit. A forged header suffices: nothing else is read.
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    data += encode(GREY)[33:]
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(BoneAgeError, match="decompression bomb"):
        decode(data, "7.png")


def tiff(image, photometric=1, **options):
    """A TIFF written by Pillow if it gets options, otherwise by hand, to test white-is-zero independently of Pillow."""
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


def test_a_colour_tiff_becomes_greyscale():
    np.testing.assert_array_equal(decode(tiff(np.stack([GREY] * 4, axis=-1), compression="tiff_lzw"), "a.tif"), GREY)


def test_a_multi_page_tiff_is_rejected():
    data = tiff(GREY, save_all=True, append_images=[Image.fromarray(GREY)])
    with pytest.raises(BoneAgeError, match="holds 2 pages; expected one"):
        decode(data, "7.tif")


@pytest.mark.parametrize("image", [GREY > 99, GREY.astype(np.float32), GREY.astype(np.int32)])
def test_a_tiff_with_an_unsupported_pixel_type_is_rejected(image):
    with pytest.raises(BoneAgeError, match=r"7\.tif has pixels of type"):
        decode(tiff(image, compression="raw"), "7.tif")


SMOOTH = cv2.normalize(cv2.GaussianBlur(GREY, (0, 0), 2), np.empty_like(GREY), 0, 255, cv2.NORM_MINMAX)


def pillow(image, kind, **options):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied_with_a_note(kind, orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    data = pillow(SMOOTH, kind, exif=exif, **options)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("L"))
    image, header = read(data)
    assert image.shape == upright.shape
    assert np.abs(image.astype(int) - upright).max() <= 1
    assert (orientation == 1) == (header == Header())
    if orientation != 1:
        assert header.notes == (f"The picture was turned upright as its file says (EXIF orientation {orientation}).",)


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_invalid_exif_orientation_is_ignored(orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    image, header = read(pillow(SMOOTH, "PNG", exif=exif))
    np.testing.assert_array_equal(image, SMOOTH)
    assert header == Header()


@pytest.mark.parametrize("options", [{"kind": "BMP"}, {"kind": "JPEG2000"}, {"kind": "JPEG2000", "no_jp2": True}])
@pytest.mark.parametrize("channels", [1, 3])
def test_bmp_and_jpeg_2000_are_read(options, channels):
    image = SMOOTH if channels == 1 else np.stack([SMOOTH] * 3, axis=-1)
    np.testing.assert_array_equal(decode(pillow(image, **options), "a.bmp"), SMOOTH)


def test_a_bmp_with_a_palette_is_read():
    image = Image.fromarray(SMOOTH).convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE, colors=256)
    file = io.BytesIO()
    image.save(file, "BMP")
    assert np.abs(decode(file.getvalue(), "a.bmp").astype(int) - SMOOTH).max() <= 2


def edited(data, at, form, *values):
    """The bytes with other values at an offset."""
    packed = struct.pack(form, *values)
    return data[:at] + packed + data[at + len(packed) :]


def png_of(image, width, height, **options):
    """A PNG whose header declares another size, with a valid checksum."""
    data = pillow(image, "PNG", **options)
    header = edited(data[12:29], 4, ">II", width, height)
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def jpeg_of(image, width, height, **options):
    data = pillow(image, "JPEG", quality=90, **options)
    return edited(data, max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2")) + 5, ">HH", height, width)


def bmp_of(image, width, height):
    return edited(pillow(image, "BMP"), 18, "<ii", width, height)


def tiff_of(image, width, height):
    data = tiff(image)
    at = 8 + image.nbytes + 2
    return edited(edited(data, at + 8, "<I", width), at + 20, "<I", height)


LARGE = cv2.resize(SMOOTH, (120, 160))


def test_missing_pixels_are_detected_despite_load_truncated_images(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(BoneAgeError, match=r"7\.png (is damaged|is truncated)"):
        decode(bmp_of(LARGE, 120, 320), "7.png")


@pytest.mark.parametrize("make", [png_of, jpeg_of, bmp_of, tiff_of])
@pytest.mark.parametrize("size", [(120, 80), (60, 160), (120, 320), (240, 160)])
def test_a_declared_size_that_contradicts_the_pixels_is_rejected(make, size):
    assert decode(make(LARGE, 120, 160), "a").shape == (160, 120)
    with pytest.raises(BoneAgeError, match=r"7\.png (declares|is damaged|is truncated)"):
        decode(make(LARGE, *size), "7.png")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("interlaced", [False, True])
def test_intact_pngs_decode_in_every_mode_with_and_without_interlacing(mode, interlaced):
    for width, height in ((120, 160), (1, 1), (5, 3), (9, 1)):
        image = Image.fromarray(LARGE[:height, :width])
        image = (
            Image.fromarray(LARGE[:height, :width].astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
        )
        data = interlace(image) if interlaced else None
        if data is None:
            file = io.BytesIO()
            image.save(file, "PNG")
            data = file.getvalue()
        assert decode(data, "a.png").shape == (height, width)


def interlace(image):
    """An interlaced PNG (Adam7, unfiltered) in the image's mode and size, but blank; Pillow cannot write these."""
    file = io.BytesIO()
    image.save(file, "PNG")
    data = file.getvalue()
    bits, colour = data[24], data[25]
    per_pixel = bits * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = b""
    for left, top, right, down in passes:
        shape = (len(range(top, image.height, down)), len(range(left, image.width, right)))
        if shape[1]:
            rows += shape[0] * (b"\0" + bytes(-(-shape[1] * per_pixel // 8)))
    header = data[12:28] + b"\1"
    chunks = [header, *([data[at : at + 772 + 4]] if (at := data.find(b"PLTE")) > 0 else [])]
    if colour == 3:
        length = struct.unpack(">I", data[at - 4 : at])[0]
        chunks[1] = data[at : at + 4 + length]
    chunks += [b"IDAT" + zlib.compress(rows), b"IEND"]
    return data[:8] + b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)


def test_damage_in_the_middle_of_a_jpeg_is_rejected():
    data = bytearray(pillow(LARGE, "JPEG", quality=90))
    scan = data.rfind(b"\xff\xda") + 12
    del data[scan + 300 : scan + 420]
    with pytest.raises(BoneAgeError, match=r"7\.jpg is damaged: libjpeg reports 'Corrupt JPEG data"):
        decode(bytes(data), "7.jpg")


def test_a_few_extra_bytes_before_the_end_of_a_jpeg_are_warned_about():
    data = pillow(LARGE, "JPEG", quality=90)
    image, header = read(data[:-2] + b"\x12" * 14 + data[-2:])
    np.testing.assert_array_equal(image, decode(data, "a.jpg"))
    (warning,) = header.warnings
    assert "The JPEG may be damaged: libjpeg reports 'Corrupt JPEG data: " in warning
    assert "extraneous bytes before marker 0xd9'" in warning
    with pytest.raises(
        BoneAgeError, match=r"libjpeg reports 'Corrupt JPEG data: .* extraneous bytes before marker 0xd9'"
    ):
        decode(data[:-2] + b"\x12" * 64 + data[-2:], "7.jpg")


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 2}])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_intensities_match_opencv(options, channels):
    image = LARGE if channels == 1 else np.stack([LARGE, LARGE[::-1], LARGE[:, ::-1]], axis=-1)
    data = pillow(image, "JPEG", quality=90, **options)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert np.abs(decode(data, "a.jpg").astype(int) - expected).max() <= 1


def test_a_cmyk_jpeg_is_read():
    image = Image.fromarray(LARGE).convert("RGB").convert("CMYK")
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95)
    assert np.abs(decode(file.getvalue(), "a.jpg").astype(int) - LARGE).mean() < 3


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_a_file_with_several_images_is_rejected(kind):
    more = [Image.fromarray(255 - SMOOTH)]
    with pytest.raises(BoneAgeError, match=r"7\.png holds 2 pages; expected one"):
        decode(pillow(SMOOTH, kind, save_all=True, append_images=more), "7.png")


def test_a_tiff_with_more_strips_than_its_height_needs_is_rejected():
    data = tiff(LARGE, compression="tiff_lzw", tiffinfo={278: 20})
    assert decode(data, "a.tif").shape == LARGE.shape
    page = Image.open(io.BytesIO(data))
    at = data.find(struct.pack("<HHII", 257, 3, 1, page.height))
    with pytest.raises(BoneAgeError, match="declares 120 x 80 pixels, but contains a different number"):
        decode(edited(data, at + 8, "<I", 80), "7.tif")


CONTENTS = {
    "a.png": encode(GREY),
    "b.img": encode(GREY, ".jpg"),
    "c": encode(GREY, ".webp"),
    "d.001": pillow(GREY, "BMP"),
    "e.data": pillow(GREY, "JPEG2000"),
    "f.j2c": pillow(GREY, "JPEG2000", no_jp2=True),
    "g.x": encode(GREY, ".tif"),
    "broken.ima": b"",
}


def test_images_are_selected_by_suffix_or_content():
    others = {"notes.txt": b"BM is how this text begins", "labels.csv": b"id,male", "z.img": b"RIFF....AVI "}
    dicom = {"IM0001": bytes(128) + b"DICM" + bytes(9), "DICOMDIR": bytes(128) + b"DICM" + bytes(9)}
    files = [File(name, len(data), 0, data) for name, data in {**CONTENTS, **others, **dicom}.items()]
    images, rest = select_images(files)
    assert [file.name for file in images] == [*CONTENTS, "IM0001"]
    assert [file.name for file in rest] == [*others, "DICOMDIR"]
    for file in images[:-2]:
        assert read(file)[0].shape == GREY.shape
