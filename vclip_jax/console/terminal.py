"""Progress bars, lines of standard input, and a filter of other libraries' warnings."""

import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from absl import logging as absl_logging
from tqdm import tqdm


class Lasting:
    """A stream that stays usable after its reader has ended.

    tqdm keeps its lock when a write fails, and every other thread would wait for the lock for ever.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text, ignoring failures."""
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream, ignoring failures."""
        with suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __eq__(self, other: object) -> bool:
        # Equal to the wrapped stream: tqdm clears a stream's bars before it writes a line there.
        return self._stream is other or self is other

    def __hash__(self) -> int:
        return hash(self._stream)


LINE_SECONDS = 60
"""Seconds between two lines of progress without a terminal."""


class Lines(tqdm):
    """Progress as plain lines, for a file: one every `LINE_SECONDS`, and one at the end."""

    def __init__(self, *, file: TextIO, total: int, desc: str = "", initial: int = 0, unit: str):
        """Start counting without output; the options are tqdm's."""
        super().__init__(disable=True, total=total, initial=initial)  # disabled: draws no bar
        self._file, self._unit, self._initial = file, unit, initial
        self._began = self._said = time.monotonic()
        self._closed = False
        self.desc, self._more = desc, ""

    def update(self, n: float | None = 1) -> bool:
        """Count, and write a line if `LINE_SECONDS` have passed."""
        self.n += n or 0
        if time.monotonic() - self._said < LINE_SECONDS:
            return False
        self._say()
        return True

    def set_description(self, desc: str | None = None, refresh: bool | None = True) -> None:
        """Set the text before the figures of the next line."""
        self.desc = desc or ""

    def set_postfix(self, *_: Any, refresh: bool | None = True, **values: Any) -> None:
        """Set the text after the figures of the next line."""
        self._more = "".join(f", {name} {value}" for name, value in values.items())

    def close(self) -> None:
        """Write the last line, once."""
        if not self._closed:
            self._closed = True
            self._say()

    def _say(self) -> None:
        self._said = time.monotonic()
        progress = tqdm.format_meter(
            self.n,
            self.total,
            self._said - self._began,
            initial=self._initial,
            unit=self._unit,
            prefix=self.desc,
            bar_format="{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]",
        )
        self._file.write(f"{progress}{self._more}\n")
        self._file.flush()


def bar(
    *,
    total: int,
    unit: str,
    desc: str = "",
    initial: int = 0,
    disable: bool = False,
    mininterval: float = 0.1,
) -> tqdm:
    """Show progress on standard error: a bar on a terminal, lines (`Lines`) in a file.

    It works without a reader (`Lasting`). The arguments are those of `tqdm.tqdm`.
    """
    stream = cast(TextIO, Lasting(sys.stderr))
    if not disable and not sys.stderr.isatty():
        return Lines(file=stream, total=total, desc=desc, initial=initial, unit=unit)
    return tqdm(
        file=stream,
        total=total,
        unit=unit,
        desc=desc,
        initial=initial,
        disable=disable,
        mininterval=mininterval,
        dynamic_ncols=True,
    )


@contextmanager
def without_absl() -> Iterator[None]:
    """Suppress Orbax's log in the block.

    Orbax logs each action, and a traceback for each failure, which this package reports itself.
    """
    before = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.FATAL)
    try:
        yield
    finally:
        absl_logging.set_verbosity(before)


@contextmanager
def without_others_warnings() -> Iterator[None]:
    """Suppress other libraries' warnings in the block, in users' own programs too."""
    with without_absl(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def lines_of_stdin() -> Iterator[str]:
    """Return the lines of standard input, decoded as file names are: any bytes are accepted."""
    buffer = getattr(sys.stdin, "buffer", None)
    return map(os.fsdecode, buffer) if buffer is not None else iter(sys.stdin)
