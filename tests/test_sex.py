import pytest

from boneage_jax.sex import Sex


@pytest.mark.parametrize("sex", Sex)
def test_every_spelling_is_read(sex):
    for text in (sex.letter, sex.word, sex.letter.lower(), sex.word.upper(), f" {sex.word} "):
        assert Sex.parse(text) is sex


def test_names_and_numbers_are_those_of_the_tables():
    assert [(int(sex), sex.letter, sex.word, sex.children) for sex in Sex] == [
        (0, "F", "female", "girls"),
        (1, "M", "male", "boys"),
    ]


@pytest.mark.parametrize("text", ["", "O", "unknown", "fem", "0"])
def test_what_is_no_sex_is_refused(text):
    with pytest.raises(ValueError, match="is not F, M, female or male"):
        Sex.parse(text)
