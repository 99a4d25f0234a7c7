"""Which VOI table or window a DICOM image is displayed with."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from boneage_jax.data import dicom_shown
from boneage_jax.data.radiograph import read
from tests.data import dicom_files as files

FUNCTIONS = st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"])


@given(st.floats(-5000, 5000), st.floats(1, 5000), FUNCTIONS, st.lists(st.integers(-40000, 40000), min_size=2))
def test_window_is_monotonic_bounded_and_half_at_its_centre(centre, width, function, values):
    shown = dicom_shown.window(np.sort(np.array(values, float)), centre, width, function)
    assert (np.diff(shown) >= 0).all()
    assert ((shown >= 0) & (shown <= 1)).all()
    middle = centre - 0.5 if function == "LINEAR" else centre
    if width >= 2:
        np.testing.assert_allclose(dicom_shown.window(np.array([middle]), centre, width, function), 0.5)


@pytest.mark.parametrize(
    ("function", "at", "shown"),
    [
        ("LINEAR", [1023.5, 2048 - 0.5, 3071.5], [0, 0.5, 1]),  # PS3.3 C.11.2.1.2.1: from c - 0.5 - (w - 1) / 2.
        ("LINEAR_EXACT", [1024, 2048, 3072], [0, 0.5, 1]),
        ("SIGMOID", [2048 - 512, 2048, 2048 + 512], [1 / (1 + np.e), 0.5, 1 / (1 + 1 / np.e)]),
    ],
)
def test_window_functions_match_the_standard(function, at, shown):
    width = 2049 if function == "LINEAR" else 2048
    np.testing.assert_allclose(
        dicom_shown.window(np.array(at, float), 2048.0, float(width), function), shown, atol=1e-12
    )


RAMP = np.random.default_rng(0).integers(0, 4096, (41, 30)).astype(np.uint16)
WHOLE = {"WindowCenter": 2048, "WindowWidth": 4096}


def shown(**elements):
    return read(files.make(RAMP, bits=12, **elements))


def table(values, bits, first=0):
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [len(values), first, bits], list(values)
    item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
    return [item]


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"WindowCenter": 0, "WindowWidth": 0}, "window .* its width is 0, which LINEAR does not allow"),
        ({"WindowCenter": 2048, "WindowWidth": -4096}, "window .* its width is -4096, which LINEAR does not allow"),
        ({"WindowCenter": 2048, "WindowWidth": 0, "VOILUTFunction": "SIGMOID"}, "its width is 0, which SIGMOID does"),
        ({"WindowCenter": "1e999", "WindowWidth": 100}, "its width is 100, which LINEAR"),
        ({**WHOLE, "VOILUTFunction": "CUBIC"}, "its function is none of LINEAR,"),
        ({"WindowWidth": 100}, "it has no centre"),
        ({"VOILUTSequence": [Dataset()]}, "VOI table .* its descriptor or its data are missing"),
        ({"VOILUTSequence": table([1, 2], 24)}, "VOI table .* it has 2 entries of 24 bits, expected 2 of 8 to 16 bits"),
        ({"VOILUTSequence": table([77] * 4096, 8)}, "VOI table .* it shows next to nothing of the pixels"),
        ({"WindowCenter": 128, "WindowWidth": 256}, "window .* it shows next to nothing of the pixels"),
        ({"WindowCenter": 20000, "WindowWidth": 4096}, "window .* it shows next to nothing of the pixels"),
        ({"WindowCenter": 0, "WindowWidth": 500000}, "window .* it shows next to nothing of the pixels"),
    ],
)
def test_an_unusable_window_or_voi_table_is_ignored_with_a_warning(elements, reason):
    image, header = shown(**elements)
    np.testing.assert_array_equal(image, RAMP)
    (warning,) = header.warnings
    assert re.fullmatch(rf"The .*{reason}.*\.", warning)


def test_the_window_is_used_if_the_voi_table_has_no_data():
    image, header = shown(VOILUTSequence=[Dataset()], WindowCenter=1000, WindowWidth=2000)
    np.testing.assert_array_equal(image, shown(WindowCenter=1000, WindowWidth=2000)[0])
    assert len(header.warnings) == 1


def test_voi_function_names_are_case_insensitive():
    for written, function in (("linear", "LINEAR"), ("sigmoid", "SIGMOID"), ("Linear_Exact", "LINEAR_EXACT")):
        image, header = shown(WindowCenter=1000, WindowWidth=2000, VOILUTFunction=written)
        np.testing.assert_array_equal(image, shown(WindowCenter=1000, WindowWidth=2000, VOILUTFunction=function)[0])
        assert header.warnings == ()


def test_a_constant_image_keeps_its_window():
    image, header = read(files.make(np.full((41, 30), 700, np.uint16), bits=12, WindowCenter=1000, WindowWidth=2000))
    assert header.warnings == ()
    assert (image == round((700 - 999.5) / 1999 * 4095 + 4095 / 2)).all()


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (2.5, -1000), (-1, 4095)])
def test_windows_agree_with_pydicom(function, slope, intercept):
    elements = {"WindowCenter": 2600, "WindowWidth": 3000, "VOILUTFunction": function}
    image, _ = shown(**elements, RescaleSlope=slope, RescaleIntercept=intercept)
    made = files.dataset(RAMP, bits=12, **elements, RescaleSlope=slope, RescaleIntercept=intercept)
    levels = apply_voi_lut(apply_modality_lut(RAMP, made), made)
    # pydicom's output range is that of the rescaled stored values; ours is that of the bit depth.
    ends = np.array([0, 4095]) * slope + intercept
    expected = (levels - ends[0]) / (ends[1] - ends[0]) * 4095
    assert np.abs(image - expected).max() <= 0.51


def test_voi_tables_agree_with_pydicom():
    entries = np.rint(np.sqrt(np.arange(4096) / 4095) * 1023).astype(int)
    made = files.dataset(RAMP, bits=12, VOILUTSequence=table(entries, 10))
    image, _ = shown(VOILUTSequence=table(entries, 10))
    np.testing.assert_array_equal(image, apply_voi_lut(RAMP, made))


@pytest.mark.parametrize("word", ["WindowCenter", "WindowWidth", "VOILUTFunction"])
def test_warnings_do_not_quote_the_header(word):
    made = files.make(RAMP, bits=12, **{**WHOLE, word: "1234567890"})
    assert made.count(b"1234567890") == 1
    image, header = read(made.replace(b"1234567890", b"DOE JANE  "))
    np.testing.assert_array_equal(image, RAMP)
    (warning,) = header.warnings
    assert re.match(r"The window in the file's header was not used: its .*\.", warning)
    assert "DOE" not in warning
