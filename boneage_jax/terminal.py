"""Text for terminals and tables: names of files and words of headers hold whatever somebody put there."""

import unicodedata


def printable(text: str) -> str:
    r"""The text with escapes, such as `\n` and `\x1b`, for characters that move the cursor or cannot be shown.

    Line ends would forge a line, escape sequences would reach the terminal, marks of the writing direction would change
    what is read, and bytes that are no text (lone surrogates) cannot be encoded.
    """
    return "".join(
        one if one.isprintable() or unicodedata.category(one) == "Zs" else one.encode("unicode_escape").decode()
        for one in text
    )
