import pytest

from boneage_jax.data import inputs
from boneage_jax.errors import BoneAgeError

WARDS = ("Day clinic", "ward", "unknown")


def test_input_order_does_not_matter_and_categories_become_tuples():
    kinds = inputs.checked({"ward": ["a", "b"], "hand": "keypoints", "age_at_visit": "number"})
    assert list(kinds.items()) == [("age_at_visit", "number"), ("hand", "keypoints"), ("ward", ("a", "b"))]
    assert inputs.columns(kinds) == {"age_at_visit": "number", "ward": ("a", "b")}
    assert (inputs.heatmap(kinds), inputs.heatmap({})) == ("hand", None)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"weight": "numbers"}, "weight is 'numbers'; expected 'number', 'keypoints' or the names"),
        ({"ward": ()}, "two or more categories"),
        ({"ward": ("a",)}, "two or more categories"),
        ({"ward": ("a", "")}, "two or more categories"),
        ({"ward": ("a", " b")}, "two or more categories"),
        ({"ward": ("a", "b", "A")}, "ward names a category twice"),
        ({"sex": "number"}, r"data\.inputs\.sex is not a valid name"),
        ({"Age": "number"}, r"data\.inputs\.Age is not a valid name"),
        ({"age at visit": "number"}, "letters, digits and underscores"),
        ({"a": "keypoints", "b": "keypoints"}, r"several heat maps \(a, b\)"),
    ],
)
def test_invalid_input_specifications_are_rejected(wrong, message):
    with pytest.raises(BoneAgeError, match=message):
        inputs.checked(wrong)


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("number", "12.5", 12.5),
        ("number", "-3e2", -300.0),
        (WARDS, "WARD", "ward"),
        (WARDS, "day Clinic", "Day clinic"),
        (WARDS, "Unknown", "unknown"),
        (WARDS, "", "unknown"),
    ],
)
def test_valid_cells_are_parsed(kind, text, expected):
    assert inputs.read_cell("weight", kind, text, "a.csv, row 2") == expected


@pytest.mark.parametrize(
    ("name", "kind", "text", "message"),
    [
        ("weight", "number", "", "weight is empty"),
        ("weight", "number", "12,5", "weight is '12,5', which is not a number"),
        ("weight", "number", "nan", "weight is 'nan', which is not a number"),
        ("weight", "number", "inf", "weight is 'inf', which is not a number"),
        ("chronological_age", "number", "-1", "chronological_age -1 lies outside 0 to 300 months"),
        ("chronological_age", "number", "301", "chronological_age 301 lies outside 0 to 300 months"),
        ("ward", WARDS, "corridor", "ward 'corridor' is not known; expected Day clinic, ward, unknown"),
        ("ward", ("a", "b"), "", r"ward is empty; expected a, b \(list 'unknown'"),
        ("ward", ("a", "b"), "unknown", "ward 'unknown' is not known"),
    ],
)
def test_an_invalid_cell_is_reported_with_file_and_row(name, kind, text, message):
    with pytest.raises(BoneAgeError, match=rf"a\.csv, row 2: {message}"):
        inputs.read_cell(name, kind, text, "a.csv, row 2")
