"""The sex of a child, and its names in tables, headers, networks and reports."""

import enum


class Sex(enum.IntEnum):
    """Female or male; the number is the input of the networks."""

    FEMALE = 0
    MALE = 1

    @property
    def letter(self) -> str:
        """F or M, as in tables and in DICOM's Patient's Sex."""
        return self.name[0]

    @property
    def word(self) -> str:
        """Female or male, in lower case."""
        return self.name.lower()

    @property
    def children(self) -> str:
        """The plural for figures and tables: girls or boys."""
        return "boys" if self is Sex.MALE else "girls"

    @classmethod
    def parse(cls, text: str) -> "Sex":
        """The sex that a letter or a word stands for, in upper or lower case.

            Sex.parse("F") is Sex.parse("female") is Sex.FEMALE

        Raises:
            ValueError: the text is none of these.
        """
        for sex in cls:
            if text.strip().lower() in (sex.letter.lower(), sex.word):
                return sex
        raise ValueError(f"{text!r} is not F, M, female or male")
