"""A tuple of numbers and texts out of a pickle, without running the pickle.

A pickle is a program: `pickle.loads` calls what the program names. Here the program is only read,
and each instruction other than those for whole numbers, texts and one tuple is refused.
"""

import pickletools
from typing import Any, Final

MOST: Final = 2 << 20
"""Bytes of a pickle."""
_LARGEST: Final = 1 << 63
_NUMBERS: Final = frozenset(("BININT", "BININT1", "BININT2", "LONG1"))
_TEXTS: Final = frozenset(("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"))
_PUTS: Final = frozenset(("BINPUT", "LONG_BINPUT"))
_GETS: Final = frozenset(("BINGET", "LONG_BINGET"))
_NOTHING: Final = frozenset(("PROTO", "FRAME"))


def read(data: bytes) -> tuple[int | str, ...]:
    """Return a tuple of three values, each a whole number or a text.

    Args:
        data: a pickle of protocol 2 or later, as `pickle.dumps` writes it.

    Raises:
        ValueError: one line: the pickle holds something else, is damaged or is too large.
    """
    if len(data) > MOST:
        raise ValueError(f"the pickle has more than {MOST:,} bytes")
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    last = 0
    argument: Any
    for code, argument, place in pickletools.genops(data):
        last = place or 0
        if code.name in _TEXTS or (code.name in _NUMBERS and -_LARGEST <= argument < _LARGEST):
            stack.append(argument)
        elif code.name == "TUPLE3" and len(stack) == 3 and _are_plain(stack):
            stack = [tuple(stack)]
        elif (code.name == "MEMOIZE" or code.name in _PUTS) and stack:
            memo[len(memo) if code.name == "MEMOIZE" else argument] = stack[-1]
        elif code.name in _GETS and argument in memo:
            stack.append(memo[argument])
        elif code.name not in _NOTHING and code.name != "STOP":
            raise ValueError(
                f"the pickle has the instruction {code.name}, which three numbers or texts do not "
                "need: it was not run"
            )
    if last + 1 != len(data) or len(stack) != 1 or not isinstance(stack[0], tuple):
        raise ValueError("the pickle is no tuple of three numbers or texts")
    return stack[0]


def _are_plain(values: list[Any]) -> bool:
    return all(isinstance(value, int | str) for value in values)
