"""DICOM files whose header contradicts the pixel data are rejected or corrected, never misread."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from boneage_jax.data.radiograph import decode, read
from boneage_jax.errors import BoneAgeError
from tests.data import dicom_files as files

NOISE = np.random.default_rng(0).integers(0, 256, (60, 40)).astype(np.uint8)
SMOOTH = cv2.GaussianBlur(NOISE, (0, 0), 2)
TWELVE = NOISE.astype(np.uint16) * 16


def jpeg2000(image, **options):
    code = io.BytesIO()
    Image.fromarray(image).save(code, "JPEG2000", irreversible=False, **options)
    return code.getvalue()


def stored(kind, image, **options):
    """The image uncompressed, deflated, RLE-encoded, or as a JPEG 2000 codestream."""
    if kind == "jpeg_2000":
        return files.make_with_code(jpeg2000(image, no_jp2=True), JPEG2000Lossless, image, **options)
    if kind == "rle":
        made = files.dataset(image)
        made.file_meta = FileMetaDataset()
        made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        made.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
        changed = files.dataset(image, **options)
        changed.PixelData = made.PixelData
        changed["PixelData"].VR, changed["PixelData"].is_undefined_length = "OB", True
        return files.write(changed, RLELossless)
    return files.make(
        image, DeflatedExplicitVRLittleEndian if kind == "deflated" else ExplicitVRLittleEndian, **options
    )


KINDS = ["plain", "deflated", "rle", "jpeg_2000"]


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_beyond_the_stored_bits_are_rejected_in_every_encoding(kind):
    sixteen = NOISE.astype(np.uint16) * 257
    np.testing.assert_array_equal(decode(stored(kind, sixteen), "a.dcm"), sixteen)
    with pytest.raises(BoneAgeError, match=r"7\.dcm holds pixels beyond its 12 bits; export it again"):
        decode(stored(kind, sixteen, bits=12), "7.dcm")


@pytest.mark.parametrize("kind", ["plain", "deflated", "rle"])
def test_signed_pixels_decode_with_or_without_sign_extension(kind):
    signed = TWELVE.astype(np.int16) - 2048
    for image in (signed, signed & 0x0FFF):
        np.testing.assert_array_equal(decode(stored(kind, image, bits=12), "a.dcm"), TWELVE)
    with pytest.raises(BoneAgeError, match="pixels beyond its 12 bits"):
        decode(stored(kind, signed * 2, bits=12), "a.dcm")


def overlay(made, allocated=16, bit=12, group=0x6000):
    made.add_new((group, 0x0100), "US", allocated)
    made.add_new((group, 0x0102), "US", bit)
    return made


@pytest.mark.parametrize("group", [0x6000, 0x601E])
def test_the_overlay_bit_is_masked_in_native_and_encapsulated_pixels(group):
    drawn = TWELVE.copy()
    drawn[10:20, 10:20] |= 0x1000
    plain = overlay(files.dataset(drawn, bits=12), group=group)
    np.testing.assert_array_equal(decode(files.write(plain), "a.dcm"), TWELVE)
    packed = overlay(files.dataset(drawn, bits=12), group=group)
    packed.PixelData = encapsulate([jpeg2000(drawn, no_jp2=True)])
    packed["PixelData"].VR, packed["PixelData"].is_undefined_length = "OB", True
    np.testing.assert_array_equal(decode(files.write(packed, JPEG2000Lossless), "a.dcm"), TWELVE)


@pytest.mark.parametrize("wrong", [{"bit": 13}, {"allocated": 1}])
def test_an_overlay_masks_only_its_own_bit(wrong):
    drawn = TWELVE.copy()
    drawn[10:20, 10:20] |= 0x1000
    with pytest.raises(BoneAgeError, match="pixels beyond its 12 bits"):
        decode(files.write(overlay(files.dataset(drawn, bits=12), **wrong)), "a.dcm")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [{"Rows": 45}, {"Columns": 30}, {"Rows": 30}, {"Rows": 59}, {"Columns": 39}])
def test_more_pixels_than_the_header_declares_are_rejected(kind, size):
    with pytest.raises(BoneAgeError, match=r"7\.dcm (has|declares).* pixels"):
        decode(stored(kind, NOISE, **size), "7.dcm")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("plain", "has 2,400 bytes of pixels, but {declared} pixels need 2,4[46]0: the file is cut short"),
        ("deflated", "has 2,400 bytes of pixels, but {declared} pixels need 2,4[46]0: the file is cut short"),
        ("rle", r"cannot be read: .*RLE .*2400 vs\. 24[46]0 bytes"),
        ("jpeg_2000", "declares {declared} pixels, but its compressed image has 40 x 60"),
    ],
)
@pytest.mark.parametrize(("size", "declared"), [({"Rows": 61}, "40 x 61"), ({"Columns": 41}, "41 x 60")])
def test_fewer_pixels_than_the_header_declares_are_rejected(kind, reason, size, declared):
    with pytest.raises(BoneAgeError, match=rf"^7\.dcm .*{reason.format(declared=declared)}"):
        decode(stored(kind, NOISE, **size), "7.dcm")


def test_trailing_bytes_after_the_pixels_are_accepted_only_if_zero():
    made = files.dataset(NOISE)
    made.PixelData = NOISE.tobytes() + bytes(64)
    np.testing.assert_array_equal(decode(files.write(made), "a.dcm"), NOISE)
    made.PixelData = NOISE.tobytes() + bytes(63) + b"\1"
    with pytest.raises(BoneAgeError, match="has 2,464 bytes of pixels, but 40 x 60 pixels need 2,400"):
        decode(files.write(made), "a.dcm")


def test_two_compressed_images_are_rejected_if_the_header_declares_one():
    for kind, syntax in ((".jpg", JPEGBaseline8Bit), (".jp2", JPEG2000Lossless)):
        code = jpeg2000(SMOOTH, no_jp2=True) if kind == ".jp2" else cv2.imencode(kind, SMOOTH)[1].tobytes()
        made = files.dataset(SMOOTH)
        made.PixelData = encapsulate([code, code])
        made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB", True
        with pytest.raises(BoneAgeError, match="contains 2 compressed images, but its header declares one"):
            decode(files.write(made, syntax), "a.dcm")


def test_an_image_in_several_fragments_is_read():
    code = jpeg2000(NOISE, no_jp2=True)
    made = files.dataset(NOISE)
    made.PixelData = encapsulate([code], fragments_per_frame=3)
    made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB", True
    np.testing.assert_array_equal(decode(files.write(made, JPEG2000Lossless), "a.dcm"), NOISE)


@pytest.mark.parametrize("image", [NOISE, TWELVE, TWELVE * 16], ids=["8 bits", "12 bits", "16 bits"])
def test_a_jp2_file_in_place_of_a_codestream_is_read(image):
    bits = 8 if image.dtype == np.uint8 else 12 if image.max() < 4096 else 16
    data = files.make_with_code(jpeg2000(image), JPEG2000Lossless, image, bits=bits)
    np.testing.assert_array_equal(decode(data, "a.dcm"), image)


def test_a_jp2_file_without_an_image_is_rejected():
    code = jpeg2000(NOISE).replace(b"jp2c", b"free")
    with pytest.raises(BoneAgeError, match="the JP2 file in it has no image"):
        decode(files.make_with_code(code, JPEG2000Lossless, NOISE), "a.dcm")


def test_damage_reported_by_libjpeg_is_rejected_or_warned_about():
    code = cv2.imencode(".jpg", SMOOTH)[1].tobytes()
    scan = code.rfind(b"\xff\xda") + 10
    damaged = code[: (scan + len(code)) // 2] + b"\xff\xd9"
    with pytest.raises(BoneAgeError, match="libjpeg reports 'Corrupt JPEG data: premature end of data segment'"):
        decode(files.make_with_code(damaged, JPEGBaseline8Bit, SMOOTH), "a.dcm")
    extended = code[:-2] + b"\x12" * 14 + b"\xff\xd9"
    image, header = read(files.make_with_code(extended, JPEGBaseline8Bit, SMOOTH))
    np.testing.assert_array_equal(image, decode(files.make_with_code(code, JPEGBaseline8Bit, SMOOTH), "a.dcm"))
    assert "extraneous bytes before marker 0xd9" in header.warnings[0]


@pytest.mark.parametrize(
    "word",
    [
        *("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "PixelRepresentation"),
        "PhotometricInterpretation",
    ],
)
def test_a_missing_required_element_is_named(word):
    with pytest.raises(BoneAgeError) as caught:
        decode(files.make(NOISE, **{word: None}), "7.dcm")
    assert str(caught.value) == (
        f"7.dcm is a DICOM file without the element {word}, which says how its pixels are stored; export it again"
    )


def test_a_multi_valued_element_is_named():
    with pytest.raises(BoneAgeError, match=r"7\.dcm has \[60, 60\] in the element Rows; expected one value"):
        decode(files.make(NOISE, Rows=[60, 60]), "7.dcm")


def test_valid_files_have_no_warnings():
    for kind in KINDS:
        assert read(stored(kind, TWELVE, bits=12))[1].warnings == ()
