"""Train and use language-image models of the retina: `vclip COMMAND`.

    vclip train --config configs/quickstart.py --workdir W
    vclip predict --model W photo.jpg folder/

W is a folder for the run, its workdir, which the other commands take as the model. Options have the
same names in every command: --model, --out, --data-dir, --prompts.
`python -m vclip_jax COMMAND` is the same as `vclip COMMAND`.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final, NamedTuple

from vclip_jax.console import commands


class Command(NamedTuple):
    """A command: the module that runs it, and one line of help."""

    module: str
    line: str
    function: str = "main"
    """The module's function: takes the words after the command, returns the exit status."""
    mode: str = ""
    """The trainer's --mode; empty for other commands."""


COMMANDS: Final = {
    "train": Command(
        "vclip_jax.main", "train a model, evaluate it, write the report", mode="train"
    ),
    "eval": Command("vclip_jax.main", "evaluate a trained model", mode="eval"),
    "plan": Command(
        "vclip_jax.main",
        "estimate memory and time on accelerators that this machine lacks",
        mode="compile",
    ),
    "predict": Command("vclip_jax.predict.__main__", "classify photographs"),
    "embed": Command(
        "vclip_jax.predict.embed.__main__", "write embeddings of photographs as a Parquet file"
    ),
    "probe": Command(
        "vclip_jax.evaluation.probe.__main__", "score few-shot probes of a model's embeddings"
    ),
    "calibrate": Command(
        "vclip_jax.evaluation.calibration.__main__",
        "set temperature and class offsets of a model's answers",
    ),
    "audit": Command("vclip_jax.audit.__main__", "find near-duplicates between two datasets"),
    "datasets": Command("vclip_jax.datasets.__main__", "build, list, show and export datasets"),
    "weights": Command(
        "vclip_jax.interop.__main__", "import other projects' weights, push weights to the Hub"
    ),
    "export": Command(
        "vclip_jax.interop.__main__",
        "write a trained model for other programs",
        function="export",
    ),
    "config": Command("vclip_jax.config.__main__", "print a config's values, or explain all keys"),
    "report": Command("vclip_jax.report.__main__", "write the report of a run, or compare runs"),
    "demo": Command("vclip_jax.demo.__main__", "try a model on photographs in a browser"),
    "drills": Command("vclip_jax.drills.__main__", "break runs on purpose and count the losses"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; the trainer ends the process itself."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    name = _parser().parse_args(words[:1] or ["--help"]).command
    command = COMMANDS[name]
    if not command.mode:
        return int(getattr(import_module(command.module), command.function)(words[1:]))
    from vclip_jax.config import command_line

    sys.argv = [f"vclip {name}", *words[1:]]  # ml_collections looks for keys there
    command_line.run(_start, command.mode)
    return 0


def _parser() -> commands.Parser:
    table = "\n".join(f"  {name:10}{command.line}" for name, command in COMMANDS.items())
    parser = commands.Parser(
        prog="vclip",
        usage="vclip COMMAND ...",
        description=f"{(__doc__ or '').strip()}\n\ncommands:\n{table}",
        epilog="vclip COMMAND --help lists the options of a command.",
    )
    parser.add_argument("command", metavar="COMMAND", choices=COMMANDS, help="one of the above")
    return parser


def _start() -> None:
    """Import the trainer, which takes seconds, and run it."""
    from vclip_jax.main import run_flags

    run_flags()


def script() -> None:
    """Run the console script `vclip`."""
    commands.start(main)


if __name__ == "__main__":
    script()
