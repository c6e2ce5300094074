"""Error messages of one line, which list only a few names."""

import unicodedata
from collections.abc import Iterable
from typing import Final

_LONGEST_NAME: Final = 200


def one_line(error: BaseException, longest: int | None = None) -> str:
    """Return an error's text without line breaks, or its type's name if it has no text.

    Args:
        error: the error that was raised.
        longest: characters after which the line is cut; None for no limit.
    """
    return (" ".join(str(error).split()) or type(error).__name__)[:longest]


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its type's name if it has no text.

    For errors of libraries that continue with a long explanation.
    """
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def shown(text: object) -> str:
    """Return a name, or a message with names in it, in a form that is safe to print.

    Control characters, unpaired surrogates and marks that change the direction of writing are
    escaped as Python writes them: a terminal would obey those in a file's name.
    """
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
        else character
        for character in str(text)
    )


def few(names: Iterable[object], most: int = 8, between: str = ", ") -> str:
    """List the first names for a message, and count the others: `a, b and 3 more`.

    Args:
        names: the names; long ones are cut, and unsafe characters escaped, see `shown`.
        most: how many to list.
        between: the text between two names.
    """
    texts = [
        text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}..."
        for text in map(shown, names)
    ]
    more = f" and {len(texts) - most:,} more" if len(texts) > most else ""
    return between.join(texts[:most]) + more
