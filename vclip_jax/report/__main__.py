"""Rewrites the report of a finished or running training: `python -m vclip_jax.report WORKDIR`.

So it does with that of several systems (`configs/table1.py`). With `--compare OTHER` it holds a run
against another one, image by image.
"""

import argparse
import sys

from vclip_jax.report.build import write_report
from vclip_jax.report.systems import is_systems_workdir, write_systems_report


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m vclip_jax.report", description=__doc__)
    parser.add_argument("workdir", nargs="+", help="folder that a training run wrote")
    parser.add_argument(
        "--compare", action="append", default=[], metavar="OTHER",
        help="another run's folder, to be compared on the same images; may be given several times",
    )  # fmt: skip
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Write the reports that the command line names; an error ends the program with one line."""
    options = _parser().parse_args(arguments)
    for workdir in options.workdir:
        try:
            if is_systems_workdir(workdir):
                print(write_systems_report(workdir))
            else:
                print(write_report(workdir, compare=options.compare))
        except (FileNotFoundError, ValueError) as error:
            sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
