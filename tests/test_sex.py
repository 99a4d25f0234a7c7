import pytest

from boneage_jax.sex import Sex


@pytest.mark.parametrize("sex", Sex)
def test_every_spelling_is_read(sex):
    for text in (sex.letter, sex.word, sex.letter.lower(), sex.word.upper(), f" {sex.word} "):
        assert Sex.parse(text) is sex


def test_codes_and_words_of_each_sex():
    assert [(int(sex), sex.letter, sex.word, sex.children) for sex in Sex] == [
        (0, "F", "female", "girls"),
        (1, "M", "male", "boys"),
    ]


@pytest.mark.parametrize("text", ["", "O", "unknown", "fem", "0"])
def test_an_invalid_sex_is_refused(text):
    with pytest.raises(ValueError, match="is not F, M, female or male"):
        Sex.parse(text)
