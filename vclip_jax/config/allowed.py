"""The values that a key may have, as a check and as the words that an error and a page show."""

import math
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Allowed:
    """The values that a key may have."""

    words: Callable[[], str]
    """What a value must be, as in "must be positive"; asked anew, because registries grow."""
    holds: Callable[[Any], bool]
    """Whether a value is allowed."""
    reason: Callable[[Any], str] = lambda _: ""
    """What more there is to say of a value that is not allowed."""

    def complaint(self, value: Any) -> str:
        """What follows a value that is not allowed in an error; "" for one that is."""
        if self.holds(value):
            return ""
        return f" must be {self.words()}{self.reason(value)}"


def that(words: str, holds: Callable[[Any], bool]) -> Allowed:
    """The values for which a function is true."""
    return Allowed(lambda: words, holds)


def at_least(least: int, why: str = "") -> Allowed:
    """The finite numbers from `least` on; `why` says what a smaller one would spoil."""
    return that(
        f"at least {least}{': ' if why else ''}{why}", lambda value: least <= value < math.inf
    )


def one_of(names: Collection[str] | Callable[[], Collection[str]], *more: str) -> Allowed:
    """The names in a list or a registry, as it is when the value is checked, and some `more`.

    A function is asked for the names: what it imports is not imported before.
    """

    def now() -> list[str]:
        return [*(names() if callable(names) else names), *more]

    return Allowed(lambda: f"one of {', '.join(now())}", lambda value: value in now())


def any_of(names: Collection[str]) -> Allowed:
    """A tuple of such names."""
    return Allowed(
        lambda: f"any of {', '.join(names)}", lambda value: all(name in names for name in value)
    )


def pairs(example: tuple[str, Any], second: Callable[[Any], bool]) -> Allowed:
    """A tuple of pairs of a regular expression and a value that holds where it is found."""

    def is_pair(pair: Any) -> bool:
        good = isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[0], str)
        return good and second(pair[1])

    def fault(pair: Any) -> str:
        if not is_pair(pair):
            return f"{pair!r} is none"
        try:
            re.compile(pair[0])
        except re.error as error:
            return f"{pair[0]!r} is no regular expression: {error}"
        return ""

    return Allowed(
        lambda: f"pairs like {example}",
        lambda value: not any(map(fault, value)),
        lambda value: f"; {next(filter(None, map(fault, value)))}",
    )


def numbers(count: int, holds: Callable[[float], bool], words: str) -> Allowed:
    """A tuple of so many finite numbers, of which each holds."""

    def each(value: Any) -> bool:
        return len(value) == count and all(
            type(item) in (int, float) and math.isfinite(item) and holds(item) for item in value
        )

    return that(words, each)


ANY = that("", lambda _: True)
POSITIVE = that("positive", lambda value: 0 < value < math.inf)
SHARE = that("in [0, 1]", lambda value: 0 <= value <= 1)
BELOW_ONE = that("in [0, 1)", lambda value: 0 <= value < 1)
