"""The helpers for messages of errors."""

from boneage_jax.errors import listed, where


def test_ten_names_are_listed_in_full():
    assert listed(str(i) for i in range(10)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"


def test_more_than_ten_names_end_with_an_ellipsis():
    assert listed([str(i) for i in range(11)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ..."


def test_unexpected_error_is_located_without_its_message():
    try:
        int("Doe^Jane")
    except ValueError as error:
        place = where(error)
    assert place.startswith("ValueError at ")
    assert "test_errors.py:" in place
    assert "Doe" not in place
