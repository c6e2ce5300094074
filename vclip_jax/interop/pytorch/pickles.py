"""Pickles of plain data, read and written without running any function that they name.

Python's own unpickler imports and calls the functions that a pickle names. This reader is a small
interpreter of the opcodes: it builds numbers, strings, lists, tuples, dictionaries and sets
itself, and replaces functions that a pickle names by those in the caller's table. It refuses names
that are not in the table, and opcodes that make objects in other ways.
"""

import pickle
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vclip_jax.files.errors import one_line

_ARGUMENT = (
    "INT",
    "BININT",
    "BININT1",
    "BININT2",
    "LONG",
    "LONG1",
    "LONG4",
    "FLOAT",
    "BINFLOAT",
    "STRING",
    "BINSTRING",
    "SHORT_BINSTRING",
    "BINBYTES",
    "SHORT_BINBYTES",
    "BINBYTES8",
    "UNICODE",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE8",
)
"""Opcodes that push an argument, which `pickletools` has already decoded."""
_CONSTANT = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}


_LEAST_COPIED = 2**20
"""The number of items and bytes that calls may copy, however short the pickle is."""


class RefusedPickleError(ValueError):
    """A pickle needs more than plain data; the message is one line, without the file's name."""


@dataclass(frozen=True)
class Global:
    """A name in a pickle, such as `torch.FloatStorage`, and the function to call, or None."""

    name: str
    call: Callable[..., Any] | None


def loads(
    data: bytes,
    known: Mapping[str, Callable[..., Any] | None],
    persistent: Callable[[Any], Any],
    most: int,
) -> Any:
    """Build the object that a pickle describes.

    Args:
        data: a pickle of any protocol.
        known: full name -> the function to call in its place, or None for a name that a pickle may
            mention but not call.
        persistent: a function that makes an object from its persistent id.
        most: the largest accepted number of opcodes.

    Raises:
        RefusedPickleError: the pickle names something unknown, has more opcodes, or is damaged. No
            code of it was run.
    """
    try:
        return _run(data, known, persistent, most)
    except RefusedPickleError:
        raise
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
        raise RefusedPickleError(f"its pickle is damaged ({one_line(error, 200)})") from error


def _run(data: bytes, known: Mapping[str, Any], persistent: Callable[[Any], Any], most: int) -> Any:
    stack: list[Any] = []
    outer: list[list[Any]] = []  # the stacks below the marks
    memo: dict[Any, Any] = {}
    copied = 0
    for number, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if number >= most:
            raise RefusedPickleError(f"its pickle has more than {most:,} opcodes, as no weights do")
        name = opcode.name
        if name in _ARGUMENT:
            stack.append(argument)
            continue
        if name in _CONSTANT:
            stack.append(_CONSTANT[name])
            continue
        if name in _EMPTY:
            stack.append(_EMPTY[name]())
            continue
        items: list[Any] = []
        if name in ("TUPLE", "LIST", "DICT", "FROZENSET", "APPENDS", "SETITEMS", "ADDITEMS"):
            items, stack = stack, outer.pop()
        match name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack[-1]
            case "MARK":
                outer.append(stack)
                stack = []
            case "POP":
                stack.pop()
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(name[-1])
                stack.append(tuple([stack.pop() for _ in range(count)][::-1]))
            case "TUPLE":
                stack.append(tuple(items))
            case "LIST":
                stack.append(items)
            case "DICT":
                stack.append(dict(_pairs(items)))
            case "FROZENSET":
                stack.append(frozenset(map(_key, items)))
            case "APPEND":
                items = [stack.pop()]
                _of(list, stack[-1]).extend(items)
            case "APPENDS":
                _of(list, stack[-1]).extend(items)
            case "ADDITEMS":
                _of(set, stack[-1]).update(map(_key, items))
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _of(dict, stack[-1])[_key(key)] = value
            case "SETITEMS":
                _of(dict, stack[-1]).update(_pairs(items))
            case "GLOBAL":
                stack.append(_global(str(argument).replace(" ", ".", 1), known))
            case "STACK_GLOBAL":
                last, module = stack.pop(), stack.pop()
                stack.append(_global(f"{module}.{last}", known))
            case "BINPERSID":
                stack.append(persistent(stack.pop()))
            case "REDUCE":
                arguments, function = _of(tuple, stack.pop()), _of(Global, stack.pop())
                if function.call is None:
                    raise RefusedPickleError(
                        f"its pickle calls {function.name}, which must not be called"
                    )
                result = function.call(*arguments)
                # A call copies its arguments, which a few bytes of a pickle can pass many times.
                copied += len(result) if isinstance(result, dict | tuple | bytes) else 0
                if copied > max(_LEAST_COPIED, 2 * len(data)):
                    raise RefusedPickleError("its pickle copies more data than any weights do")
                stack.append(result)
            case "BUILD":
                _build(stack.pop(), stack[-1])
            case _:
                raise RefusedPickleError(
                    f"its pickle has the opcode {name}, which plain data does not need"
                )
    raise RefusedPickleError("its pickle has no end")


def _of(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise RefusedPickleError(f"its pickle uses a {type(value).__name__} as a {kind.__name__}")
    return value


def _pairs(items: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip(map(_key, items[::2]), items[1::2], strict=True))


def _key(value: Any) -> Any:
    """Check a value that is to be hashed.

    Hashing tuples nested in tuples, each of them twice, takes twice the time with every level.
    """
    plain = (type(None), bool, int, float, str, bytes)
    parts = value if type(value) is tuple else (value,)
    if not all(isinstance(part, plain) for part in parts):
        raise RefusedPickleError(
            "its pickle has a key that is neither a number, a text nor a tuple of them"
        )
    return value


def _global(name: str, known: Mapping[str, Any]) -> Global:
    if name not in known:
        raise RefusedPickleError(
            f"its pickle names {name!r}, which weights do not need: nothing was run; if you trust "
            "the file, save only its tensors with PyTorch (a dictionary of tensors)"
        )
    return Global(name, known[name])


def _build(state: Any, target: Any) -> None:
    """Ignore attributes that the data does not need, and refuse all others.

    PyTorch's ordered dictionaries have `_metadata`, and NumPy's types have their byte order.
    """
    if isinstance(target, dict):
        return
    if isinstance(target, np.dtype) and isinstance(state, tuple) and state[1] in ("<", "|"):
        return
    raise RefusedPickleError(f"its pickle sets attributes of a {type(target).__name__}")


# --- NumPy's scalars. Chinese-CLIP's schedule puts one, `lr`, into the optimiser's state.


def _numpy_type(code: str, *_: Any) -> np.dtype:
    if code not in ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"):
        raise RefusedPickleError(
            f"its pickle has NumPy's type {code!r}, which is not a plain number's"
        )
    return np.dtype(f"<{code}")


def _numpy_scalar(kind: Any, data: Any) -> int | float | bool:
    if not isinstance(kind, np.dtype) or not isinstance(data, bytes) or len(data) != kind.itemsize:
        raise RefusedPickleError("its pickle has a scalar of NumPy that is not a plain number")
    return np.frombuffer(data, kind)[0].item()


def _encode(text: str, encoding: str) -> bytes:
    """Encode a string as bytes, which is how protocol 2 stores bytes."""
    if encoding != "latin1":
        raise RefusedPickleError(f"its pickle encodes text as {encoding!r}")
    return text.encode("latin1")


NUMPY_SCALARS: Mapping[str, Callable[..., Any]] = {
    "_codecs.encode": _encode,
    "numpy.dtype": _numpy_type,
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy._core.multiarray.scalar": _numpy_scalar,
}
"""A table for `loads` that reads NumPy's numbers as Python's."""


# --- Writing.


@dataclass(frozen=True)
class Call:
    """A call of a named function for `dumps`, which writes the call without making it."""

    name: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Persistent:
    """An object for `dumps` that is written as its persistent id."""

    id: tuple[Any, ...]


def dumps(content: Any) -> bytes:
    """Write plain data as a protocol-2 pickle.

    Args:
        content: None, booleans, numbers, strings, lists, tuples, dictionaries, `Global`, `Call`
            and `Persistent`.

    Raises:
        ValueError: `content` holds an object of another type.
    """
    return pickle.PROTO + b"\x02" + b"".join(_emit(content)) + pickle.STOP


def _emit(value: Any) -> list[bytes]:
    if type(value) in (type(None), bool, int, float, str):  # not NumPy's float64, also a float
        return [pickle.dumps(value, 2)[2:-1]]  # without the protocol header and the stop
    if isinstance(value, Global):
        module, _, name = value.name.rpartition(".")
        return [pickle.GLOBAL, f"{module}\n{name}\n".encode()]
    if isinstance(value, Call):
        return [*_emit(Global(value.name, None)), *_emit(value.arguments), pickle.REDUCE]
    if isinstance(value, Persistent):
        return [*_emit(value.id), pickle.BINPERSID]
    if isinstance(value, dict):
        parts = [part for pair in value.items() for item in pair for part in _emit(item)]
        return [pickle.EMPTY_DICT, pickle.MARK, *parts, pickle.SETITEMS]
    if isinstance(value, list | tuple):
        parts = [part for item in value for part in _emit(item)]
        if isinstance(value, tuple):
            return [pickle.MARK, *parts, pickle.TUPLE]
        return [pickle.EMPTY_LIST, pickle.MARK, *parts, pickle.APPENDS]
    raise ValueError(f"cannot write a {type(value).__name__}: only plain data and arrays")
