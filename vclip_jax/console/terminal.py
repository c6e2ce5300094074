"""What all commands share: the encoding of the terminal, and whose warnings are shown there."""

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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


def bar(**options: Any) -> tqdm:
    """A progress bar on standard error, whether or not anybody reads it; see `tqdm.tqdm`."""
    return tqdm(file=cast(TextIO, Lasting(sys.stderr)), dynamic_ncols=True, **options)


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
