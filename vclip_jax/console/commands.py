"""The parts that all commands share: start of the process, options and their old names, errors.

This module imports nothing slow when it is loaded: a command answers `--help`, or reports an error
in its command line, before it imports its own libraries.
"""

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

from vclip_jax.files import packaged
from vclip_jax.files.errors import shown

OTHERS: Final = (
    "jax",
    "orbax",
    "huggingface_hub",
    "tensorflow",
    "tensorflow_datasets",
    "etils",
)
"""Libraries whose warnings do not help users of this package; their errors are shown."""
INTERRUPTED: Final = 130
"""The exit status after Ctrl-C, by the convention of shells."""
READER_GONE: Final = 141
"""The exit status if the output's reader has ended (`| head`), by the convention of shells."""


# --- The start and the end of a process.


class Handler(logging.Handler):
    """Write the package's log to standard error, never into a progress bar's line."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; see `logging.Handler`."""
        from tqdm import tqdm  # imported late: parsing a command line does not need it

        try:
            tqdm.write(self.format(record), file=sys.stderr)
        except Exception:
            self.handleError(record)


def prepare() -> None:
    """Set up a command's process, before anything is parsed or printed.

    If the locale's encoding is not UTF-8, arguments and file names in other scripts cannot be
    decoded: the command restarts in Python's UTF-8 mode and prints a note. A character that
    standard output cannot encode (PYTHONIOENCODING) is written as \\\\uXXXX.
    """
    encoding = sys.getfilesystemencoding()
    if encoding != "utf-8" and not sys.flags.utf8_mode:
        print(
            f"note: the locale's encoding is {encoding}: text is read and written as UTF-8 "
            "(LC_ALL=C.UTF-8 makes the terminal agree)",
            file=sys.stderr,
            flush=True,
        )
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    for name in OTHERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # huggingface_hub sets its level on import
    log = logging.getLogger("vclip_jax")
    log.addHandler(Handler())
    log.propagate = False


def keep_compiled() -> None:
    """Keep compiled programs on disk, in this user's cache, for the next process.

    Call it before JAX is imported. JAX's own variables come first: JAX_COMPILATION_CACHE_DIR names
    another folder, whose settings stay as they are, and JAX_ENABLE_COMPILATION_CACHE=0 keeps
    nothing. Processors of another kind have another folder, because a home directory may be shared
    by machines. A user without a home directory keeps nothing.
    """
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ and os.path.isabs(caches):
        folder = os.path.join(caches, "vclip_jax", _processor())
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def _processor() -> str:
    """Return a short name of the kind of this machine's processor."""
    import platform
    from hashlib import sha256

    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            kinds = {line for line in file if line.startswith(("model name", "flags", "Features"))}
    except OSError:
        kinds = {platform.processor()}
    kind = sha256("".join(sorted(kinds)).encode()).hexdigest()[:12]
    return f"{platform.machine()}-{kind}"


def start(main: Callable[[], int]) -> NoReturn:
    """Prepare the process, call a command's `main`, and end with its exit status."""
    prepare()
    sys.exit(main())


def run(main: Callable[[], int | None]) -> int:
    """Call a command's function and return its exit status; print an expected error as one line."""
    from vclip_jax.console.terminal import without_absl

    try:
        with without_absl():
            status = main() or 0
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except (ValueError, OSError) as error:
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            return READER_GONE
        print(f"error: {shown(error)}", file=sys.stderr)
        return 1
    return status


def _reader_is_gone() -> bool:
    """Return whether standard output is a pipe without a reader; if so, discard further output."""
    from select import POLLERR, POLLHUP, poll

    try:
        output = sys.stdout.fileno()
    except (ValueError, OSError):  # standard output is not a file
        return False
    poller = poll()
    poller.register(output, 0)
    if not any(event & (POLLERR | POLLHUP) for _, event in poller.poll(0)):
        return False
    # Buffered output would fail when Python ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return True


# --- Options.


class Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` with hints for old names and misspelt names of options.

    Option names have hyphens; underscores, which they once had, are accepted.
    """

    def __init__(self, *args: Any, **options: Any):
        """Take the options of `argparse.ArgumentParser`; the description keeps its line breaks."""
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        self._old: dict[str, str] = {}
        super().__init__(*args, **options)

    def add_argument(self, *names: str, old: Sequence[str] = (), **options: Any) -> argparse.Action:
        """Add an option; each of its `old` names is accepted, with a note on its first use."""
        self._old |= dict.fromkeys(old, names[0])
        return super().add_argument(*names, **options)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Parse after replacing old names; see `argparse.ArgumentParser`."""
        words = list(sys.argv[1:] if args is None else args)
        if self._subparsers is None:  # each subparser replaces its own options
            end = words.index("--") if "--" in words else len(words)
            words[:end] = [self._renamed(word) for word in words[:end]]
        return super().parse_known_args(words, namespace)

    def _renamed(self, word: str) -> str:
        """Return a word of the command line with an old or misspelt option name replaced or
        refused.

        argparse reports missing options before it reports misspelt ones.
        """
        name, equals, value = word.partition("=")
        if not name.startswith("--") or any(c.isspace() for c in name):
            return word
        known = list(self._option_string_actions)
        now = self._old.get(name, name)
        for spelling in (now, now.replace("_", "-")):
            if any(option.startswith(spelling) for option in known):  # abbreviations count
                if spelling != name:
                    note_once(f"{name} is called {spelling} now")
                return f"{spelling}{equals}{value}"
        if close := closest(name, [*known, *self._old]):
            self.error(f"there is no {name}: did you mean {self._old.get(close, close)}?")
        return word

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            if close := closest(str(value), map(str, action.choices or ())):
                raise argparse.ArgumentError(
                    action, f"there is no {value}: did you mean {close}?"
                ) from None
            raise error from None


def closest(word: str, known: Any) -> str | None:
    """Return the known word that is most similar to `word`, or None if none is similar."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(word, list(known), n=1, cutoff=0.7)), None)


_noted: set[str] = set()


def note_once(text: str) -> None:
    """Print a note on standard error, once per process."""
    if text not in _noted:
        _noted.add(text)
        print(f"note: {text}", file=sys.stderr)


MODELS: Final = (
    "a workdir, a portable folder, the name of a packaged model, or hub:OWNER/NAME[@REVISION]"
)
"""The help of an option or argument that names a model."""


def add_model(
    parser: Parser,
    what: str = "",
    *,
    required: bool = True,
    default: bool = False,
    old: str = "--checkpoint",
) -> None:
    """Add the options that name a model, --model and --step.

    Args:
        parser: the command's parser.
        what: the start of the help of --model.
        required: refuse a command line without --model.
        default: without --model, take the packaged model, see `chosen_model`.
        old: the old name of --model.
    """
    words = f" (default: {packaged.DEFAULT})" if default else ""
    parser.add_argument(
        "--model",
        required=required and not default,
        old=[old],
        help=f"{what}{MODELS}{words}",
    )
    add_step(parser)


def add_step(parser: Parser) -> None:
    """Add --step, the checkpoint of a run."""
    parser.add_argument(
        "--step",
        default="latest",
        help="of a run: latest (default), best (by its config.keep_best) or a number",
    )


def add_calibration(parser: Parser) -> argparse._ActionsContainer:
    """Add --calibration, and return its group of mutually exclusive options."""
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "--calibration",
        metavar="FILE",
        help="a file of vclip calibrate, or off (default: calibration.json beside the model)",
    )
    return choice


def add_prevalence(parser: argparse._ActionsContainer) -> None:
    """Add --prevalence, a dictionary of class names and shares."""
    parser.add_argument(
        "--prevalence",
        type=shares,
        metavar="CLASS=SHARE,...",
        help="the share of each class among these photographs: sets class offsets, without labels, "
        "that make the mean answer this prevalence; one class may be left out and gets the rest",
    )


def add_gate(parser: Parser, choices: Sequence[str]) -> None:
    """Add --gate; the first choice is the default."""
    parser.add_argument(
        "--gate",
        choices=choices,
        default=choices[0],
        help="pictures that are not fundus photographs, or too poor to judge: report them beside "
        "their answer (default), exclude them, or off, which does not judge pictures",
    )


def shares(text: str) -> dict[str, float]:
    """Read `normal=.6,amd=.1` as names and shares, for argparse.

    Raises:
        argparse.ArgumentTypeError: one line: a part is not a name and a share, or a name repeats.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        name, equals, number = (word.strip() for word in part.rpartition("="))
        try:
            share = float(number)
        except ValueError:
            share = 0.0
        if not equals or not name or not 0 < share < 1:
            raise argparse.ArgumentTypeError(
                f"{part.strip()!r} is not a class with a share above 0 and below 1, such as "
                "normal=.6"
            )
        if name in found:
            raise argparse.ArgumentTypeError(f"{name!r} is given twice")
        found[name] = share
    return found


def chosen_model(options: argparse.Namespace) -> str:
    """Return --model; without it, the packaged model's folder, which is named on standard error.

    A command calls it before its slow imports. The name of a model on the Hub is not checked.

    Raises:
        ValueError: one line: there is no such model, or the package has none.
    """
    if options.model is None:
        options.model = str(packaged.default())
        note_once(f"{packaged.DEFAULT}, the packaged model, answers; --model names another")
    if not str(options.model).startswith("hub:"):
        packaged.check_named(options.model)
    return str(options.model)
