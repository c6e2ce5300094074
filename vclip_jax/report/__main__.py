"""Rewrites the report of a finished or running training: `python -m vclip_jax.report WORKDIR`.

So it does with that of several systems (`configs/table1.py`). With several workdirs it writes one
page that holds the runs against one another, `comparison.html` in the first of them.
"""

import argparse
import sys

from vclip_jax.console import terminal
from vclip_jax.files.foreign import shown
from vclip_jax.report.comparison_page import write_comparison
from vclip_jax.report.run_page import write_report
from vclip_jax.report.table1_page import is_systems_workdir, write_systems_report


def _parser() -> argparse.ArgumentParser:
    parser = terminal.Parser(prog="python -m vclip_jax.report", description=__doc__)
    parser.add_argument(
        "workdir", nargs="+", help="folder that a training run wrote; several are compared"
    )
    parser.add_argument(
        "--output", metavar="PAGE.html",
        help="where the comparison goes; its tests go beside it, as .json",
    )  # fmt: skip
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Write the page that the command line asks for; an error ends the program with one line."""
    options = _parser().parse_args(arguments)
    first, *others = options.workdir
    try:
        if others:
            print(write_comparison(options.workdir, options.output))
        elif options.output:
            raise ValueError("--output is of a comparison: name several workdirs")
        elif is_systems_workdir(first):
            print(write_systems_report(first))
        else:
            print(write_report(first))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {shown(error)}")


if __name__ == "__main__":
    terminal.prepare()
    main()
