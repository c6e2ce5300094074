"""The trainer's command line: its flags, its help, and one-line errors.

Importing JAX takes seconds, so a wrong command line is refused before JAX is imported.
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
from vclip_jax.files.errors import few, shown

CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "The config file, a recipe: configs/X.py, or configs/X.py:ARGUMENT if it takes one.",
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "The folder for the run's checkpoints, metrics and report, new or not."
)
MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "eval", "compile"],
    "Train and evaluate (the default), only evaluate, or compile the step for --topology.",
)
TOPOLOGY = flags.DEFINE_string(
    "topology",
    None,
    "The accelerators to compile for, such as v5e:4x4, 2xv5e:4x4 (two slices) or h100:8. No "
    "device is needed.",
)
DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "Run as one of several processes; the cluster (TPU pod, SLURM, GKE) says how many and which.",
)
COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "On other clusters, in place of --distributed: the address HOST:PORT of process 0; needs "
    "--num_processes and --process_id.",
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "The number of processes.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "The number of this process, from 0.")
HEARTBEAT_SECONDS = flags.DEFINE_integer(
    "heartbeat_seconds",
    60,
    "With several processes: seconds without a sign of life after which a process counts as lost "
    "(default: 60).",
)
PREEMPTED_EXIT_CODE = flags.DEFINE_integer(
    "preempted_exit_code",
    0,
    "Exit code after SIGTERM, once everything is saved (default: 0).",
)
DETERMINISTIC = flags.DEFINE_bool(
    "deterministic",
    False,
    "On GPUs: use only operations that give the same bits every time; slower.",
)

_ROOT = Path(__file__).parents[2]


_COMMANDS = {
    "train": (
        "vclip train",
        "Train a model, evaluate it and write the report. The same command again resumes the run "
        "where it stopped.",
    ),
    "eval": (
        "vclip eval",
        "Score a trained model and rewrite the report.",
    ),
    "compile": (
        "vclip plan",
        "Compile the training step for accelerators that this machine lacks, and estimate memory, "
        "time and communication.",
    ),
}
"""--mode -> the command's name and its help."""
_MODEL = {
    "model": "config.restore_from",
    "step": "config.restore_step",
    "calibration": "config.calibration",
    "gate": "config.gate",
}
"""Flags of `vclip eval` -> the keys that they set."""
_DATA = {"data-dir": "config.data.data_dir", "data_dir": "config.data.data_dir"}
"""Flags of all commands -> the keys that they set."""
_DATA_HELP = {"data-dir": "The folder of built datasets (config.data.data_dir)."}
_MODEL_HELP = {
    "model": "The model to score: a workdir, a portable folder, or hub:OWNER/NAME[@REVISION] "
    "(default: the run of --workdir).",
    "step": "The checkpoint of that run: latest (default), best (by its config.keep_best), or the "
    "number of a step.",
    "calibration": "A file of vclip calibrate, or off (default: calibration.json beside the "
    "model).",
    "gate": "Photographs that are not of a fundus, or too poor to judge: report (default) counts "
    "them, exclude leaves them out of the figures, off does not judge photographs.",
}
_KEYS_HELP = "Any key of the config; `vclip config` lists them all."
_NO_CONFIG = "--config FILE is needed, for example configs/quickstart.py"
_HELP = ("--help", "-help", "-h", "--helpshort", "-helpshort")


def run(main: Callable[[], None], mode: str = "") -> None:
    """Parse `sys.argv`, then call `main`; does not return.

    Args:
        main: the program.
        mode: the --mode of the command that `sys.argv[0]` names; "" if --mode is a flag.
    """
    # Orbax logs every step, and a traceback for each failure, which we report ourselves.
    logging.set_verbosity(logging.FATAL)
    sys.argv[1:] = _own_flags(sys.argv[1:], mode)
    app.run(lambda _: main(), flags_parser=parse)


def _own_flags(words: Sequence[str], mode: str) -> list[str]:
    """Return a command's words as the trainer's flags, whose names have underscores."""
    trainers = [f"--mode={mode}"] if mode else []
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        if word == name or not name:  # a value, or -- alone
            trainers.append(word)
            continue
        if mode and name == "mode":
            names = ", ".join(command for command, _ in _COMMANDS.values())
            _end(f"--mode is set by the command: {names}")
        name = _DATA.get(name, name)
        if mode == "eval":
            name = _MODEL.get(name, name)
        flag = name.replace("-", "_")
        trainers.append(f"--{flag if flag in flags.FLAGS else name}{equals}{value}")
    return _config_first(trainers)


def _config_first(words: list[str]) -> list[str]:
    """Return flags with --config before all others: ml_collections reads keys only after it."""
    for place, word in enumerate(words):
        if word == "--config" or word.startswith("--config="):
            end = place + (2 if word == "--config" else 1)
            return words[place:end] + words[:place] + words[end:]
    return words


def parse(argv: Sequence[str]) -> list[str]:
    """Parse the command line like absl's own parser, but answer an error in one line."""
    if set(argv) & set(_HELP):
        print(help_of(argv))
        sys.exit(0)
    try:
        return _parse(argv)
    except flags.UnrecognizedFlagError as error:
        if error.flagname.startswith("config.") and _value_of("config", argv) is None:
            _end(_NO_CONFIG)
        _end(f"unknown flag --{error.flagname}: {_meant(error.flagname, argv)}")
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        # A KeyError's own text is a representation, quotes and escapes included.
        _end(str(error.args[0]) if isinstance(error, KeyError) else str(error))


def _meant(name: str, argv: Sequence[str]) -> str:
    """Return a hint at the flag or key that was meant by an unknown flag."""
    known = [flag.name for flag in flags.FLAGS.get_key_flags_for_module(__name__)]
    if close := get_close_matches(name, known, n=1, cutoff=0.8):
        return f"did you mean --{close[0]}?"
    if key := checks.suggestion(name):
        return f"keys are set with --config.KEY=VALUE, here --config.{key}"
    return f"{_program(argv)}--help lists all flags"


def _program(argv: Sequence[str]) -> str:
    """Return the command's name and a space; "" for the module, which has no short name."""
    return f"{argv[0]} " if argv[0] in dict(_COMMANDS.values()) else ""


def help_of(argv: Sequence[str]) -> str:
    """Return the text of --help: usage, purpose and every flag."""
    commands = dict(_COMMANDS.values())
    name = argv[0] if argv[0] in commands else "python -m vclip_jax.main"
    plans, evaluates = (name == _COMMANDS[mode][0] for mode in ("compile", "eval"))
    more = " --topology KIND:SHAPE" if plans else " [--model M]" if evaluates else ""
    about = commands.get(name, "Train a model and evaluate it, or do what --mode says.")
    options = {flag.name: flag.help for flag in flags.FLAGS.get_key_flags_for_module(__name__)}
    if name in commands:
        del options["mode"]
        if not plans:
            del options["topology"]
    first = {key: options.pop(key) for key in ("config", "workdir")}
    own = _DATA_HELP | (_MODEL_HELP if evaluates else {})
    options = first | {"config.KEY=VALUE": _KEYS_HELP} | own | options
    lines = [f"usage: {name} --config FILE --workdir FOLDER{more} [--config.KEY=VALUE ...]", ""]
    lines += [*textwrap.wrap(about, 80), "", "options:"]
    for option, text in options.items():
        lines += [
            f"  --{option}",
            *textwrap.wrap(text, 80, initial_indent=" " * 6, subsequent_indent=" " * 6),
        ]
    return "\n".join(lines)


def _end(message: str) -> NoReturn:
    message = re.sub(r"invalid literal for int\(\) .*", "must be a whole number", message)
    message = re.sub(r"could not convert string to float: .*", "must be a number", message)
    sys.exit(f"error: {shown(' '.join(message.split()))}")


def _parse(argv: Sequence[str]) -> list[str]:
    checks.check_overrides(argv)
    argv, weights = _without_weights(argv)
    recipe = _value_of("config", argv)
    if recipe:
        checks.check_entries(argv, check_recipe(recipe))
    arguments = flags.FLAGS(argv)
    if weights and CONFIG.value is not None:
        mixture = CONFIG.value.data.mixture
        with mixture.unlocked(), mixture.ignore_type():  # a recipe may have whole numbers
            mixture.update(weights)
    # Without its module, worker processes get what a recipe defines by value.
    sys.modules.pop("config_config", None)
    if len(arguments) > 1:
        raise ValueError(f"unexpected argument {arguments[1]!r}: flags are --NAME=VALUE")
    if CONFIG.value is None:
        raise ValueError(_NO_CONFIG)
    if CONFIG.value.epochs and (steps := _value_of(r"config\.total_steps", argv)) is not None:
        raise ValueError(
            f"config.total_steps={steps} and config.epochs={CONFIG.value.epochs:g} both set the "
            "length of the run: leave out one of them, or add --config.epochs=0"
        )
    if not WORKDIR.value:
        raise ValueError("--workdir FOLDER is needed: the folder for the run's files")
    if "://" in WORKDIR.value:
        raise ValueError(
            f"--workdir={WORKDIR.value}: writing to buckets directly is not supported; mount "
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
    # Values of the model are checked only for training; a trained model brings its own.
    if MODE.value != "eval":
        checks.validate(CONFIG.value, devices=1)
    # A config that is compiled for another machine may name files of that machine.
    if MODE.value != "compile":
        checks.check_names(CONFIG.value)
    if MODE.value == "eval" and not CONFIG.value.systems:
        checks.check_scored(CONFIG.value, Path(WORKDIR.value))
    return arguments


def _without_weights(argv: Sequence[str]) -> tuple[list[str], dict[str, float]]:
    """Take `--config.data.mixture.NAME=WEIGHT` out of the words: absl cannot add names.

    Raises:
        ValueError: one line: such a word has no name, or no number.
    """
    words, weights = [], {}
    for word in argv:
        if not re.match(rf"--?{re.escape(checks.MIXTURE)}\b", word):
            words.append(word)
            continue
        match = re.fullmatch(rf"--?{re.escape(checks.MIXTURE)}\.([^=.]+)=(.+)", word)
        if match is None:
            raise ValueError(f"{word}: write --{checks.MIXTURE}.NAME=WEIGHT, for each dataset")
        try:
            weights[match[1]] = float(match[2])
        except ValueError:
            raise ValueError(f"{word}: the weight must be a number") from None
    sys.argv[1:] = [word for word in sys.argv[1:] if word in words]  # ml_collections reads it too
    return words, weights


def _value_of(flag: str, argv: Sequence[str]) -> str | None:
    """Return the last value of a flag in words that are not parsed yet."""
    value = None
    for index, word in enumerate(argv):
        if match := re.fullmatch(rf"--?{flag}(?:=(.*))?", word, re.DOTALL):
            following = argv[index + 1] if index + 1 < len(argv) else None
            value = following if match[1] is None else match[1]
    return value


def check_recipe(recipe: str) -> ConfigDict:
    """Load a recipe, FILE[:argument], to report its errors in one line.

    Raises:
        ValueError: one line that names the file.
    """
    name, *argument = recipe.split(":", 1)
    path = Path(name)
    if not path.is_file():
        raise ValueError(f"there is no {name}{_where(path)}")
    spec = importlib.util.spec_from_file_location("recipe", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{name} is not a Python file: a recipe is configs/X.py")
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
    """Return a hint at where a missing recipe is."""
    if not path.is_absolute() and (_ROOT / path).is_file():
        return f" here: it is in {_ROOT}, run the command there or name {_ROOT / path}"
    folder = path.parent if path.parent.is_dir() else _ROOT / "configs"
    recipes = sorted(p.name for p in folder.glob("*.py")) if folder.is_dir() else []
    if close := get_close_matches(path.name, recipes, n=1, cutoff=0.6):
        return f": did you mean {path.parent / close[0]}?"
    return f": {folder} has {few(recipes)}" if recipes else ""


def _fault(error: Exception, path: Path) -> str:
    """Return the error that a recipe raised and the line of the recipe that raised it."""
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
