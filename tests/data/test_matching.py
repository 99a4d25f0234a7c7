import pytest

from boneage_jax.data.matching import match


@pytest.mark.parametrize(
    "name", ["1390.png", "images/1390.png", "./a/1390.dcm", "two.zip/part/1390.IMA", "C:\\data\\1390.png"]
)
def test_an_id_matches_a_file_name_without_its_suffix(name):
    assert match(["1390", "139"], [name]) == {"1390": [0]}


@pytest.mark.parametrize(
    "identifier", ["1390.png", "images/1390", "images/1390.png", "./images/1390.png", "images\\1390.png"]
)
def test_an_id_may_include_suffix_and_folder(identifier):
    assert match([identifier], ["all/images/1390.png"]) == {identifier: [0]}
    assert match([identifier], ["all/other/1391.png"]) == {}


def test_files_with_the_same_stem_share_an_id():
    assert match(["hand"], ["A/hand.png", "B/hand.png", "hand.dcm", "hands.png"]) == {"hand": [0, 1, 2]}


def test_accented_letters_match_in_composed_and_decomposed_form():
    composed, decomposed = "M\u00fcller/Andr\u00e9", "Mu\u0308ller/Andre\u0301"
    for identifier, name in ((composed, decomposed), (decomposed, composed)):
        assert match([identifier], [f"{name}.png"]) == {identifier: [0]}


def test_the_most_specific_id_wins():
    names = ["A/hand.png", "B/hand.png", "B/hand.dcm"]
    assert match(["hand", "hand.png", "A/hand.png"], names) == {"A/hand.png": [0], "hand.png": [1], "hand": [2]}
    assert match(["A/hand", "B/hand.png", "B/hand.dcm"], names) == {"A/hand": [0], "B/hand.png": [1], "B/hand.dcm": [2]}


def test_the_last_number_of_a_uid_is_no_suffix():
    assert match(["CR.1.2"], ["CR.1.2.3"]) == {}
    assert match(["CR.1.2.3", "CR.1.2"], ["CR.1.2.3", "A/CR.1.2.dcm"]) == {"CR.1.2.3": [0], "CR.1.2": [1]}
