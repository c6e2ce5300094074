"""Progress bars, lines of standard input, and whose warnings are shown on the terminal."""

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
    """A stream that stays usable when whoever read it is gone.

    tqdm keeps its lock when a write fails, and every other thread would wait for it for ever.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or leave it."""
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, or leave it."""
        with suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __eq__(self, other: object) -> bool:
        # As what it writes to: tqdm clears the bars of a stream before it writes a line there.
        return self._stream is other or self is other

    def __hash__(self) -> int:
        return hash(self._stream)


LINE_SECONDS = 60
"""Between two lines of progress where there is no terminal."""


class Lines(tqdm):
    """Progress as plain lines, for a file: now and then one, and one at the end."""

    def __init__(self, *, file: TextIO, total: int, desc: str = "", initial: int = 0, unit: str):
        """Say nothing yet; the options are tqdm's."""
        super().__init__(disable=True, total=total, initial=initial)  # which draws no bar
        self._file, self._unit, self._initial = file, unit, initial
        self._began = self._said = time.monotonic()
        self._closed = False
        self.desc, self._more = desc, ""

    def update(self, n: float | None = 1) -> bool:
        """Count; say so where it is time."""
        self.n += n or 0
        if time.monotonic() - self._said < LINE_SECONDS:
            return False
        self._say()
        return True

    def set_description(self, desc: str | None = None, refresh: bool | None = True) -> None:
        """What the next line begins with."""
        self.desc = desc or ""

    def set_postfix(self, *_: Any, refresh: bool | None = True, **values: Any) -> None:
        """What the next line ends with."""
        self._more = "".join(f", {name} {value}" for name, value in values.items())

    def close(self) -> None:
        """Say how far it came, once."""
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
    """Progress on standard error, whether or not anybody reads it: a bar on a terminal, a line now
    and then in a file; see `tqdm.tqdm`."""
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
    """Leave out what Orbax logs meanwhile: every move, and of what fails the whole way there, which
    is an error of ours too."""
    before = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.FATAL)
    try:
        yield
    finally:
        absl_logging.set_verbosity(before)


@contextmanager
def without_others_warnings() -> Iterator[None]:
    """Leave out what other libraries warn of meanwhile, in people's own programs too."""
    with without_absl(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def lines_of_stdin() -> Iterator[str]:
    """The lines of standard input, as file names are decoded: any bytes are a name."""
    buffer = getattr(sys.stdin, "buffer", None)
    return map(os.fsdecode, buffer) if buffer is not None else iter(sys.stdin)
