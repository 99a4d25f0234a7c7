import io
import itertools
import re

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
)

from boneage_jax.data import dicom_pixels
from boneage_jax.data import files as limits
from boneage_jax.data.header import Header
from boneage_jax.data.radiograph import decode, read
from boneage_jax.errors import BoneAgeError
from tests.data import dicom_files as files

BLURRED = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (41, 30)).astype(np.uint8), (0, 0), 4)
SMOOTH = cv2.normalize(BLURRED, np.empty_like(BLURRED), 0, 255, cv2.NORM_MINMAX)
TWELVE = SMOOTH.astype(np.uint16) * 16
SIXTEEN = SMOOTH.astype(np.uint16) * 257


def of_pydicom(name: str) -> str:
    """The path of a test file that ships with pydicom."""
    path = get_testdata_file(name)
    assert isinstance(path, str)
    return path


def table(values, bits, first=0):
    item = Dataset()
    item.LUTDescriptor = [len(values), first, bits]
    item["LUTDescriptor"].VR = "SS" if first < 0 else "US"
    item.LUTData = list(values)
    item["LUTData"].VR = "US"
    return [item]


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
@pytest.mark.parametrize(("image", "bits"), [(SMOOTH, 8), (TWELVE, 12), (SIXTEEN, 16)])
def test_uncompressed_pixels_decode_exactly(syntax, image, bits):
    decoded = decode(files.make(image, syntax, bits=bits), "a.dcm")
    assert decoded.dtype == image.dtype
    np.testing.assert_array_equal(decoded, image)


def test_big_endian_pixels_decode_exactly():
    made = files.dataset(TWELVE, bits=12)
    made.PixelData = TWELVE.astype(">u2").tobytes()
    np.testing.assert_array_equal(decode(files.write(made, ExplicitVRBigEndian), "a.dcm"), TWELVE)


@pytest.mark.parametrize(("image", "bits"), [(SMOOTH, 8), (TWELVE, 12), (SIXTEEN, 16)])
def test_rle_decodes_exactly(image, bits):
    np.testing.assert_array_equal(decode(files.make_rle(image, bits=bits), "a.dcm"), image)


@pytest.mark.parametrize("kind", [k for k in files.GDCM_SYNTAXES if k not in ("jpeg_baseline", "jpeg_extended_12_bit")])
@pytest.mark.parametrize(("image", "bits"), [(SMOOTH, 8), (TWELVE, 12), (SIXTEEN, 16), (TWELVE.astype(np.int16), 16)])
def test_every_lossless_jpeg_syntax_decodes_exactly(kind, image, bits, tmp_path):
    data = files.make_by_gdcm(image, kind, tmp_path, bits=bits)
    plain = decode(files.make(image, bits=bits), "plain.dcm")
    np.testing.assert_array_equal(decode(data, "a.dcm"), plain)


def test_lossy_jpeg_decodes_approximately():
    code = cv2.imencode(".jpg", SMOOTH, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    decoded = decode(files.make_with_code(code, JPEGBaseline8Bit, SMOOTH), "a.dcm")
    assert np.abs(decoded.astype(int) - SMOOTH).mean() < 2


@pytest.mark.parametrize(
    ("compressed", "plain"),
    [
        ("MR_small_RLE.dcm", "MR_small.dcm"),
        ("MR_small_jp2klossless.dcm", "MR_small.dcm"),
        ("MR_small_jpeg_ls_lossless.dcm", "MR_small.dcm"),
        ("MR_small_implicit.dcm", "MR_small.dcm"),
        ("MR_small_bigendian.dcm", "MR_small.dcm"),
    ],
)
def test_pydicom_files_decode_alike_in_every_transfer_syntax(compressed, plain):
    found, expected = (read(of_pydicom(name))[0] for name in (compressed, plain))
    assert found.std() > 0
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["JPGExtended.dcm", "JPEG-lossy.dcm"])
def test_12_bit_lossy_jpeg_is_rejected_with_advice(name):
    with pytest.raises(BoneAgeError, match="lossy JPEG of 12 bits, which is not supported; export it without"):
        read(of_pydicom(name))


def expected(stored, *, slope, intercept, modality, voi, window, inverted, bits):
    """Reference implementation of the standard's display pipeline, for unsigned and signed values."""
    low, high = 0, 2**bits - 1
    values = stored.astype(float)
    if np.issubdtype(stored.dtype, np.signedinteger):
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    ends = np.array([low, high], float)
    if modality is not None:
        values, ends, bits = modality[np.clip(stored, 0, len(modality) - 1)].astype(float), np.array([0.0, 1023.0]), 10
    else:
        values, ends = values * slope + intercept, ends * slope + intercept
    if voi is not None:
        shown, bits = voi[np.clip(values, 0, len(voi) - 1).astype(int)] / 255, 8
    elif window is not None:
        centre, width = window
        shown = np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)
    else:
        shown = (values - ends.min()) / (ends.max() - ends.min())
    return (1 - shown if inverted else shown) * (2**bits - 1)


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted"),
    [
        ("MONOCHROME2", None, False),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME1", None, True),
        ("MONOCHROME1", "IDENTITY", True),
        ("MONOCHROME1", "INVERSE", True),
    ],
)
@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (2.5, -1000), (-1, 4095)])
@pytest.mark.parametrize("lut", ["none", "window", "two windows", "voi", "modality", "modality+window"])
def test_display_pipeline_follows_the_standard_and_inverts_once(photometric, shape, inverted, slope, intercept, lut):
    modality = np.minimum(np.arange(3000) // 3, 1023) if "modality" in lut else None
    voi = (np.sqrt(np.arange(2000) / 1999) * 255).astype(int) if lut == "voi" else None
    window = {"window": (1500, 1600), "two windows": (1500, 1600), "modality+window": (400, 300)}.get(lut)
    elements = {"RescaleSlope": slope, "PhotometricInterpretation": photometric}
    if shape:
        elements["PresentationLUTShape"] = shape
    if window:
        centre, width = window
        two = lut == "two windows"
        elements |= {"WindowCenter": [centre, 10] if two else centre, "WindowWidth": [width, 20] if two else width}
    if modality is not None:
        elements["ModalityLUTSequence"] = table(modality, 10)
    if voi is not None:
        elements |= {"VOILUTSequence": table(voi, 8), "WindowCenter": 40, "WindowWidth": 80}
    options = {"slope": slope, "modality": modality, "voi": voi, "window": window, "inverted": inverted, "bits": 12}
    signed = TWELVE.astype(np.int16) - 2048
    for stored, offset in ((TWELVE, intercept), (signed, intercept + 2048 * slope))[: 1 if modality is not None else 2]:
        decoded = decode(files.make(stored, bits=12, RescaleIntercept=offset, **elements), "a.dcm")
        wanted = expected(stored, **options, intercept=offset)
        assert np.abs(decoded - wanted).max() <= 0.501
        assert decoded.std() > 1


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "slope of 0 and an intercept of 0, which leave no image"),
        ({"RescaleIntercept": "1e999"}, "intercept of inf, which leave no image"),
        ({"NumberOfFrames": 3}, "holds 3 frames; expected one"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "photometric interpretation PALETTE COLOR"),
        ({"PixelData": None}, "without an image: it has no pixel data"),
        ({"PixelData": b""}, "without an image: it has no pixel data"),
        ({"PixelData": None, "FloatPixelData": b"\0" * 4920}, "has floating-point pixels"),
        ({"HighBit": 15}, "stores 12 of 16 bits per pixel, up to bit 15"),
        ({"BitsStored": 4, "HighBit": 3}, "stores 4 of 16 bits"),
        ({"Rows": 0}, "30 x 0 pixels"),
        (
            {"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3, "PixelRepresentation": 1},
            "representation 1, which",
        ),
        ({"Rows": 9000, "Columns": 9000}, "decompression bomb"),
        ({"ModalityLUTSequence": table([1, 2], 24)}, "modality table that cannot be used: it has 2 entries of 24 bits"),
        ({"ModalityLUTSequence": [Dataset()]}, "modality table that cannot be used: its descriptor or its data"),
        ({"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 4095}, "contains only padding"),
    ],
)
def test_files_that_cannot_be_displayed_are_rejected_with_the_reason(elements, message):
    with pytest.raises(BoneAgeError, match=rf"^7\.dcm .*{message}"):
        decode(files.make(TWELVE, bits=12, **elements), "7.dcm")


def test_pixel_padding_becomes_the_darkest_level_even_in_monochrome1():
    padded = TWELVE // 2 + 1000
    padded[:5] = 77
    inverse = {"PhotometricInterpretation": "MONOCHROME1", "PixelPaddingValue": 77}
    shown = decode(files.make(padded, bits=12, **inverse), "a.dcm")
    np.testing.assert_array_equal(shown[5:], 4095 - padded[5:])
    assert (shown[:5] == shown[5:].min()).all()


def test_an_empty_range_limit_leaves_a_single_padding_value():
    image = np.array([[0, 300], [500, 1000]], np.uint16)
    options = {"bits": 12, "PixelPaddingValue": 0, "PixelPaddingRangeLimit": ""}
    np.testing.assert_array_equal(
        read(files.make(image, **options))[0], read(files.make(image, **{**options, "PixelPaddingRangeLimit": 0}))[0]
    )


def test_constant_bits_above_the_stored_bits_are_ignored():
    np.testing.assert_array_equal(decode(files.make(TWELVE | 0xA000, bits=12), "a.dcm"), TWELVE)


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_colour_images_become_greyscale(photometric):
    colour = np.stack([SMOOTH] * 3, axis=-1)
    if photometric == "YBR_FULL":
        colour[..., 1:] = 128
    decoded = decode(files.make(colour, PhotometricInterpretation=photometric), "a.dcm")
    assert np.abs(decoded.astype(int) - SMOOTH).max() <= 1


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("kind", ["plain", "deflated", "rle", "jpeg_lossless", "jpeg_ls", "jpeg_2000"])
def test_a_truncated_file_is_rejected(kind, share, tmp_path):
    noise = np.random.default_rng(1).integers(0, 4096, (41, 30)).astype(np.uint16)
    make = {
        "plain": lambda: files.make(noise, bits=12),
        "deflated": lambda: files.make(noise, DeflatedExplicitVRLittleEndian, bits=12),
        "rle": lambda: files.make_rle(noise, bits=12),
    }.get(kind, lambda: files.make_by_gdcm(noise, kind, tmp_path, bits=12))
    data = make()
    with pytest.raises(BoneAgeError, match=r"7\.dcm"):
        decode(data[: int(len(data) * share)], "7.dcm")


def test_compressed_size_above_the_header_is_rejected_before_decoding(monkeypatch):
    monkeypatch.setattr(dicom_pixels, "pixel_array", lambda *_, **__: pytest.fail("it was decoded"))
    for ending, syntax in ((".jpg", JPEGBaseline8Bit), (".jp2", JPEG2000Lossless)):
        code = cv2.imencode(ending, np.zeros((900, 800), np.uint8))[1].tobytes()
        code = code[code.find(b"\xff\x4f\xff\x51") :] if ending == ".jp2" else code
        with pytest.raises(BoneAgeError, match="30 x 41 pixels, but its compressed image has 800 x 900"):
            decode(files.make_with_code(code, syntax, SMOOTH), "a.dcm")


def test_damaged_lossless_jpeg_is_rejected_before_the_decoder_can_crash(monkeypatch, tmp_path):
    data = bytearray(files.make_by_gdcm(TWELVE, "jpeg_lossless", tmp_path, bits=12))
    data[data.find(b"\xff\xc4")] = 0x6E
    monkeypatch.setattr(dicom_pixels, "pixel_array", lambda *_, **__: pytest.fail("it was decoded"))
    with pytest.raises(BoneAgeError, match="not intact JPEG data"):
        decode(bytes(data), "a.dcm")


def test_lossless_jpeg_with_missing_or_many_extra_bytes_is_rejected(tmp_path):
    intact = files.make_by_gdcm(TWELVE, "jpeg_lossless", tmp_path, bits=12)
    code = next(generate_frames(pydicom.dcmread(io.BytesIO(intact)).PixelData, number_of_frames=1)).rstrip(b"\0")
    middle = len(code) // 2
    for scan, reason in (
        (code[:middle] + code[middle + 60 :], "premature end of data segment"),
        (code[:-2] + bytes(60) + code[-2:], r"5\d extraneous bytes"),
    ):
        with pytest.raises(BoneAgeError, match=f"a.dcm is damaged: libjpeg reports 'Corrupt JPEG data: {reason}"):
            decode(files.make_with_code(scan, JPEGLossless, TWELVE, bits=12), "a.dcm")
    few = files.make_with_code(code[:-2] + bytes(9) + code[-2:], JPEGLossless, TWELVE, bits=12)
    image, header = read(few, "a.dcm")
    np.testing.assert_array_equal(image, decode(intact, "a.dcm"))
    assert re.search("may be damaged: libjpeg reports .* [5-9] extraneous bytes", header.warnings[0])


def test_lossy_jpeg_in_a_lossless_syntax_is_rejected():
    code = cv2.imencode(".jpg", SMOOTH)[1].tobytes()
    with pytest.raises(BoneAgeError, match="not compressed as its header states"):
        decode(files.make_with_code(code, JPEGLossless, SMOOTH), "a.dcm")


def test_video_is_rejected_with_the_name_of_its_transfer_syntax():
    with pytest.raises(BoneAgeError, match="compressed as 'MPEG2 Main Profile"):
        decode(files.make_with_code(b"\0" * 20, MPEG2MPML, SMOOTH), "a.dcm")


@pytest.mark.parametrize("start", ["whole", "no (0002,0000)", "no preamble", "command set"])
def test_a_deflated_bomb_is_rejected(start, monkeypatch):
    from boneage_jax.data import dicom

    data = files.make(SMOOTH, DeflatedExplicitVRLittleEndian)
    meta_end = 144 + int.from_bytes(data[140:144], "little")
    data = {
        "whole": data,
        "no (0002,0000)": data[:132] + data[144:],
        "no preamble": data[132:],
        "command set": data[:meta_end] + bytes([0, 0, 0, 8, 2, 0, 0, 0, 1, 1]) + data[meta_end:],
    }[start]
    np.testing.assert_array_equal(decode(data, "a.dcm"), SMOOTH)
    monkeypatch.setattr(dicom, "MAX_FILE_BYTES", 1000)
    with pytest.raises(BoneAgeError, match="decompression bomb: more than 1,000 bytes"):
        decode(data, "a.dcm")


def test_a_file_without_preamble_or_meta_information_is_read():
    for syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian):
        data = files.make(SMOOTH, syntax)
        np.testing.assert_array_equal(decode(data[132:], "a.dcm"), SMOOTH)
        np.testing.assert_array_equal(decode(data[144 + int.from_bytes(data[140:144], "little") :], "a.dcm"), SMOOTH)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("rtplan.dcm", "is a DICOM file without an image: it has no pixel data"),
        ("test-SR.dcm", "is a DICOM file without an image: it has no pixel data"),
        ("waveform_ecg.dcm", "is a DICOM file without an image: it has no pixel data"),
        ("examples_ybr_color.dcm", "holds 30 frames; expected one radiograph"),
        ("badVR.dcm", "is a DICOM file that cannot be read: .*'1A'"),
    ],
)
def test_unsupported_dicom_files_are_rejected(name, reason):
    with pytest.raises(BoneAgeError, match=f"{re.escape(name)} {reason}"):
        read(of_pydicom(name))


def test_non_dicom_images_have_an_empty_header(tmp_path):
    path = tmp_path / "a.dcm"  # The format is detected from the bytes, not from the name.
    path.write_bytes(cv2.imencode(".png", SMOOTH)[1].tobytes())
    image, header = read(path)
    assert header == Header()
    np.testing.assert_array_equal(image, SMOOTH)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BoneAgeError, match=r"nowhere\.dcm cannot be read: No such file"):
        read(tmp_path / "nowhere.dcm")


def test_random_damage_gives_an_image_or_a_clear_error():
    data = files.make(TWELVE, bits=12, WindowCenter=2000, WindowWidth=900)
    for seed, start in itertools.product(range(30), (0, 132)):
        rng = np.random.default_rng(seed)
        damaged = bytearray(data)
        for place in rng.integers(start, len(data), 5):
            damaged[place] = rng.integers(256)
        try:
            image = decode(bytes(damaged), "7.dcm")
        except BoneAgeError as error:
            assert "7.dcm" in str(error)  # noqa: PT017 (either outcome is right)
        else:
            assert image.ndim == 2


def test_the_size_is_checked_before_decoding(monkeypatch):
    monkeypatch.setattr(limits, "MAX_PIXELS", 1000)
    monkeypatch.setattr(dicom_pixels, "pixel_array", lambda *_, **__: pytest.fail("it was decoded"))
    with pytest.raises(BoneAgeError, match="decompression bomb"):
        decode(files.make(SMOOTH), "a.dcm")
