"""What all commands share: the encoding of the terminal, and whose warnings are shown there."""

import argparse
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from typing import Any, TextIO, cast

from absl import logging as absl_logging
from tqdm import tqdm

OTHERS = ("jax", "orbax", "huggingface_hub", "tensorflow", "tensorflow_datasets", "etils")
"""Libraries whose warnings say nothing to who did not write this package; errors are shown."""


class Handler(logging.Handler):
    """Writes the package's log to standard error, never into a progress bar's line."""

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        try:
            tqdm.write(self.format(record), file=sys.stderr)
        except Exception:
            self.handleError(record)


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
            self.n, self.total, self._said - self._began, initial=self._initial,
            unit=self._unit, prefix=self.desc,
            bar_format="{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]",
        )  # fmt: skip
        self._file.write(f"{progress}{self._more}\n")
        self._file.flush()


def bar(
    *, total: int, unit: str, desc: str = "", initial: int = 0, disable: bool = False,
    mininterval: float = 0.1,
) -> tqdm:  # fmt: skip
    """Progress on standard error, whether or not anybody reads it: a bar on a terminal, a line now
    and then in a file; see `tqdm.tqdm`."""
    stream = cast(TextIO, Lasting(sys.stderr))
    if not disable and not sys.stderr.isatty():
        return Lines(file=stream, total=total, desc=desc, initial=initial, unit=unit)
    return tqdm(
        file=stream, total=total, unit=unit, desc=desc, initial=initial, disable=disable,
        mininterval=mininterval, dynamic_ncols=True,
    )  # fmt: skip


def prepare() -> None:
    """Set a command's process up; before anything is parsed or printed.

    Where the locale's encoding is not UTF-8, arguments and file names of other letters cannot be
    told from noise: the command starts again in Python's UTF-8 mode, and says so. What standard
    output cannot hold (PYTHONIOENCODING) is written as \\\\uXXXX.
    """
    encoding = sys.getfilesystemencoding()
    if encoding != "utf-8" and not sys.flags.utf8_mode:
        print(
            f"note: the locale's encoding is {encoding}: text is read and written as UTF-8 "
            "(LC_ALL=C.UTF-8 makes the terminal agree)",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    # Orbax tells every move, and of what fails the whole way there, which is an error of ours too.
    absl_logging.set_verbosity(absl_logging.FATAL)
    for name in OTHERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # it sets its level when it is imported
    log = logging.getLogger("vclip_jax")
    log.addHandler(Handler())
    log.propagate = False


@contextmanager
def without_others_warnings() -> Iterator[None]:
    """Leave out what other libraries warn of meanwhile, in people's own programs too."""
    before = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.FATAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        absl_logging.set_verbosity(before)


class Parser(argparse.ArgumentParser):
    """argparse's, which names the nearest option where one is not known."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """See `argparse.ArgumentParser`."""
        words = list(sys.argv[1:] if args is None else args)
        if self._subparsers is None:  # whose own parsers look at their options
            self._check_options(words[: words.index("--")] if "--" in words else words)
        return super().parse_known_args(words, namespace)

    def _check_options(self, words: Sequence[str]) -> None:
        options = [name for name in self._option_string_actions if name.startswith("--")]
        for word in words:
            name = word.partition("=")[0]
            known = any(option.startswith(name) for option in options)  # or an abbreviation
            if not name.startswith("--") or known:
                continue
            if close := get_close_matches(name, options, n=1, cutoff=0.7):
                self.error(f"there is no {name}: did you mean {close[0]}?")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a model: --checkpoint and --step."""
    parser.add_argument(
        "--checkpoint",
        required=True,
        help="a workdir, a portable folder, or hub:OWNER/NAME[@REVISION]",
    )
    parser.add_argument(
        "--step",
        default="latest",
        help="of a run: latest (default), best (by its config.keep_best) or a number",
    )


def lines_of_stdin() -> Iterator[str]:
    """The lines of standard input, as file names are decoded: any bytes are a name."""
    buffer = getattr(sys.stdin, "buffer", None)
    return map(os.fsdecode, buffer) if buffer is not None else iter(sys.stdin)
