"""The values that a key may have: a check, and the words for errors and for `docs/config.md`."""

import math
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Allowed:
    """The values that a key may have."""

    words: Callable[[], str]
    """Returns the words after "must be", such as "positive"; a function, as registries grow."""
    holds: Callable[[Any], bool]
    """Returns whether a value is allowed."""
    reason: Callable[[Any], str] = lambda _: ""
    """Returns more words about a value that is not allowed."""

    def complaint(self, value: Any) -> str:
        """Return the end of an error about a value; "" if the value is allowed."""
        if self.holds(value):
            return ""
        return f" must be {self.words()}{self.reason(value)}"


def that(words: str, holds: Callable[[Any], bool]) -> Allowed:
    """Allow the values for which a function is true."""
    return Allowed(lambda: words, holds)


def at_least(least: int, why: str = "") -> Allowed:
    """Allow the finite numbers from `least` on; `why` is the reason, for the error."""
    return that(
        f"at least {least}{': ' if why else ''}{why}", lambda value: least <= value < math.inf
    )


def one_of(names: Collection[str] | Callable[[], Collection[str]], *more: str) -> Allowed:
    """Allow the names in a list or registry, as it is when a value is checked, and `more`.

    A function that returns the names delays the imports that it needs.
    """

    def now() -> list[str]:
        return [*(names() if callable(names) else names), *more]

    return Allowed(lambda: f"one of {', '.join(now())}", lambda value: value in now())


def any_of(names: Collection[str]) -> Allowed:
    """Allow a tuple of these names."""
    return Allowed(
        lambda: f"any of {', '.join(names)}", lambda value: all(name in names for name in value)
    )


def _no_expression(text: str) -> str:
    """Return why a text is no regular expression; "" if it is one."""
    try:
        re.compile(text)
    except re.error as error:
        return f"{text!r} is not a regular expression: {error}"
    return ""


EXPRESSION = Allowed(
    lambda: "a regular expression",
    lambda value: not _no_expression(value),
    lambda value: f"; {_no_expression(value)}",
)


def pairs(example: tuple[str, Any], second: Callable[[Any], bool]) -> Allowed:
    """Allow a tuple of pairs: a regular expression, and a value for which `second` is true."""

    def is_pair(pair: Any) -> bool:
        good = isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[0], str)
        return good and second(pair[1])

    def fault(pair: Any) -> str:
        return _no_expression(pair[0]) if is_pair(pair) else f"{pair!r} is not one"

    return Allowed(
        lambda: f"pairs like {example}",
        lambda value: not any(map(fault, value)),
        lambda value: f"; {next(filter(None, map(fault, value)))}",
    )


def numbers(count: int, holds: Callable[[float], bool], words: str) -> Allowed:
    """Allow a tuple of `count` finite numbers for which `holds` is true."""

    def each(value: Any) -> bool:
        return len(value) == count and all(
            type(item) in (int, float) and math.isfinite(item) and holds(item) for item in value
        )

    return that(words, each)


ANY = that("", lambda _: True)
POSITIVE = that("positive", lambda value: 0 < value < math.inf)
WEIGHT = that(
    "a positive number", lambda value: type(value) in (int, float) and 0 < value < math.inf
)
PART = that(
    "full, frozen, head, last:N or lora:R",
    lambda value: bool(re.fullmatch("full|frozen|head|(last|lora):[1-9][0-9]{0,3}", value)),
)
SHARE = that("in [0, 1]", lambda value: 0 <= value <= 1)
BELOW_ONE = that("in [0, 1)", lambda value: 0 <= value < 1)
