"""Makes untrusted text, such as file names and header fields, safe for terminals and tables."""

import unicodedata


def printable(text: str) -> str:
    r"""The text with escapes, such as `\n` and `\x1b`, for characters that move the cursor or cannot be shown.

    Line breaks could fake a line, escape sequences would reach the terminal, marks of the writing direction could
    change the reading order, and undecodable bytes (lone surrogates) cannot be encoded.
    """
    return "".join(
        one if one.isprintable() or unicodedata.category(one) == "Zs" else one.encode("unicode_escape").decode()
        for one in text
    )
