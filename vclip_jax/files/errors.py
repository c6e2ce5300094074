"""Error messages of one line."""


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
