"""Errors as people read them: one line."""


def one_line(error: BaseException, longest: int | None = None) -> str:
    """Give an error's text without line breaks, or its type's name if it has no text.

    Args:
        error: what was raised.
        longest: characters after which the line is cut.
    """
    return (" ".join(str(error).split()) or type(error).__name__)[:longest]


def first_line(error: BaseException) -> str:
    """Give the first line of an error's text, or its type's name if it has no text.

    For errors of libraries that explain themselves at length below.
    """
    return (str(error).strip() or type(error).__name__).splitlines()[0]
