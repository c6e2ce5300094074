"""The trainer's command line: its flags, and what is wrong with them in one line.

JAX takes seconds to import, so nothing here imports it before the command line is known to be good.
"""

import importlib.util
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from vclip_jax.config import checks
from vclip_jax.files.foreign import shown

CONFIG = config_flags.DEFINE_config_file("config", None, "The recipe: configs/X.py[:argument].")
WORKDIR = flags.DEFINE_string("workdir", None, "Where the run's files go.")
MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "eval", "compile"],
    "Train and evaluate; evaluate; or compile the training step for --topology.",
)
TOPOLOGY = flags.DEFINE_string(
    "topology",
    None,
    "What is compiled for: v5e:4x4, 2xv5e:4x4 (slices), h100:8; no device is needed.",
)
DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "One of several processes that find each other: TPU pods, SLURM, GKE."
)
COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0, where they do not; with the next two."
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes there are.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which one this is, from 0.")
HEARTBEAT_SECONDS = flags.DEFINE_integer(
    "heartbeat_seconds", 60, "Of several processes: when one that is not heard of counts as lost."
)
PREEMPTED_EXIT_CODE = flags.DEFINE_integer(
    "preempted_exit_code", 0, "Of a run that SIGTERM has ended, with everything saved."
)
DETERMINISTIC = flags.DEFINE_bool(
    "deterministic", False, "On GPUs: only operations that give the same bits every time, slower."
)

_ROOT = Path(__file__).parents[2]


# --mode -> the command, and what it does.
_COMMANDS = {
    "train": (
        "vclip train",
        "Train a model, evaluate it and write the report; the same command again continues.",
    ),
    "eval": (
        "vclip eval",
        "Score a trained model and rewrite the report: the run of --workdir, or --model (a "
        "workdir, a portable folder, or hub:OWNER/NAME[@REVISION]), of which --step takes latest "
        "(default), best or a number.",
    ),
    "compile": (
        "vclip plan",
        "Compile the training step for accelerators that are not here: memory, time, traffic.",
    ),
}
_MODEL = {"model": "config.restore_from", "step": "config.restore_step"}
"""Flags of `vclip eval` -> the keys that they set."""
_HELP = ("--help", "-help", "-h", "--helpshort", "-helpshort")


def run(main: Callable[[], None], mode: str = "") -> None:
    """Parse `sys.argv`, then call `main`; does not return.

    `mode` is that of the command that `sys.argv[0]` names, which leaves --mode out.
    """
    # Orbax tells every move, and of what fails the whole way there, which is an error of ours too.
    logging.set_verbosity(logging.FATAL)
    sys.argv[1:] = _own_flags(sys.argv[1:], mode)
    app.run(lambda _: main(), flags_parser=parse)


def _own_flags(words: Sequence[str], mode: str) -> list[str]:
    """A command's words as the trainer's flags, whose names have underscores."""
    found = [f"--mode={mode}"] if mode else []
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        if word == name or not name:  # a value, or -- alone
            found.append(word)
            continue
        if mode and name == "mode":
            names = ", ".join(command for command, _ in _COMMANDS.values())
            _end(f"--mode is set by the command: {names}")
        if mode == "eval":
            name = _MODEL.get(name, name)
        flag = name.replace("-", "_")
        found.append(f"--{flag if flag in flags.FLAGS else name}{equals}{value}")
    return found


def parse(argv: Sequence[str]) -> list[str]:
    """Like absl's own parser, but whatever is wrong is one line rather than a traceback."""
    if set(argv) & set(_HELP):
        print(help_of(argv))
        sys.exit(0)
    try:
        return _parse(argv)
    except flags.UnrecognizedFlagError as error:
        _end(f"unknown flag --{error.flagname}: {_meant(error.flagname, argv)}")
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        # A KeyError's own text is a representation, quotes and escapes included.
        _end(str(error.args[0]) if isinstance(error, KeyError) else str(error))


def _meant(name: str, argv: Sequence[str]) -> str:
    """What somebody may have meant by a flag that there is not."""
    own = [flag.name for flag in flags.FLAGS.get_key_flags_for_module(__name__)]
    if close := get_close_matches(name, own, n=1, cutoff=0.8):
        return f"did you mean --{close[0]}?"
    if key := checks.suggestion(name):
        return f"keys are set with --config.KEY=VALUE, here --config.{key}"
    return f"{_program(argv)}--help lists all flags"


def _program(argv: Sequence[str]) -> str:
    """The command's name and a space; nothing for the module, which has no short name."""
    return f"{argv[0]} " if argv[0] in dict(_COMMANDS.values()) else ""


def help_of(argv: Sequence[str]) -> str:
    """What --help says: usage, what the command does, and every flag."""
    own = dict(_COMMANDS.values())
    name = argv[0] if argv[0] in own else "python -m vclip_jax.main"
    more = " --topology KIND:SHAPE" if name == _COMMANDS["compile"][0] else ""
    about = own.get(name, "Train a model and evaluate it (the default), or what --mode says.")
    lines = [f"usage: {name} --config FILE --workdir FOLDER{more} [--config.KEY=VALUE ...]", ""]
    lines += [*textwrap.wrap(about, 80), "", "options:"]
    for flag in flags.FLAGS.get_key_flags_for_module(__name__):
        if name in own and (flag.name == "mode" or (flag.name == "topology" and not more)):
            continue
        lines += [
            f"  --{flag.name}",
            *textwrap.wrap(flag.help, 80, initial_indent=" " * 6, subsequent_indent=" " * 6),
        ]
    return "\n".join(lines)


def _end(message: str) -> NoReturn:
    message = re.sub(r"invalid literal for int\(\) .*", "must be a whole number", message)
    message = re.sub(r"could not convert string to float: .*", "must be a number", message)
    sys.exit(f"error: {shown(' '.join(message.split()))}")


def _parse(argv: Sequence[str]) -> list[str]:
    checks.check_overrides(argv)
    recipe = _value_of("config", argv)
    if recipe:
        check_recipe(recipe)
    arguments = flags.FLAGS(argv)
    # What a recipe defines goes to worker processes by value, unless a module is named to them.
    sys.modules.pop("config_config", None)
    if len(arguments) > 1:
        raise ValueError(f"unexpected argument {arguments[1]!r}: flags are --NAME=VALUE")
    if CONFIG.value is None:
        raise ValueError("--config FILE is needed, for example configs/quickstart.py")
    if not WORKDIR.value:
        raise ValueError("--workdir FOLDER is needed: where the run's files go")
    if "://" in WORKDIR.value:
        raise ValueError(
            f"--workdir={WORKDIR.value}: buckets are not written to directly yet; mount "
            "the bucket (gcsfuse) and name the folder"
        )
    if Path(WORKDIR.value).exists() and not Path(WORKDIR.value).is_dir():
        raise ValueError(f"--workdir={WORKDIR.value} is not a folder: name a folder, new or not")
    if (MODE.value == "compile") != (TOPOLOGY.value is not None):
        command = _COMMANDS["compile"][0] if _program(argv) else "--mode compile"
        raise ValueError(f"{command} and --topology, for example v5e:4x4, go together")
    by_hand = (COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
    if any(value is not None for value in by_hand) and None in by_hand:
        raise ValueError("--coordinator, --num_processes and --process_id go together")
    # A trained model brings its own values; here are those of a model to be trained.
    if MODE.value != "eval":
        checks.validate(CONFIG.value, devices=1)
    # What is compiled for another machine may name what is there alone.
    if MODE.value != "compile":
        checks.check_names(CONFIG.value)
    return arguments


def _value_of(flag: str, argv: Sequence[str]) -> str | None:
    """The last value of a flag, before it is parsed."""
    found = None
    for index, word in enumerate(argv):
        if match := re.fullmatch(rf"--?{flag}(?:=(.*))?", word, re.DOTALL):
            following = argv[index + 1] if index + 1 < len(argv) else None
            found = following if match[1] is None else match[1]
    return found


def check_recipe(recipe: str) -> ConfigDict:
    """Load a recipe, FILE[:argument], for what is wrong with it.

    Raises:
        ValueError: one line that names the file.
    """
    name, *argument = recipe.split(":", 1)
    path = Path(name)
    if not path.is_file():
        raise ValueError(f"there is no {name}{_where(path)}")
    spec = importlib.util.spec_from_file_location("recipe", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{name} is no Python file: a recipe is configs/X.py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config(*argument)
    except (ValueError, OSError) as error:
        raise ValueError(f"{recipe}: {error}") from error
    except Exception as error:  # a recipe is a program
        raise ValueError(f"{recipe}: {_fault(error, path)}") from error
    if not isinstance(config, ConfigDict):
        raise ValueError(f"{name}: get_config returns a {type(config).__name__}, not a ConfigDict")
    return config


def _where(path: Path) -> str:
    """What to do where a recipe is not found."""
    if not path.is_absolute() and (_ROOT / path).is_file():
        return f" here: it is in {_ROOT}, run the command there or name {_ROOT / path}"
    folder = path.parent if path.parent.is_dir() else _ROOT / "configs"
    recipes = sorted(p.name for p in folder.glob("*.py")) if folder.is_dir() else []
    if close := get_close_matches(path.name, recipes, n=1, cutoff=0.6):
        return f": did you mean {path.parent / close[0]}?"
    return f": {folder} has {', '.join(recipes)}" if recipes else ""


def _fault(error: Exception, path: Path) -> str:
    """What a recipe raised, and in which of its lines."""
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: {error.msg}"
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    where = "" if line is None else f"line {line}: "
    if isinstance(error, TypeError) and "get_config()" in str(error):
        return "it takes no argument after the colon, or needs one"
    return f"{where}{type(error).__name__}: {error}"
