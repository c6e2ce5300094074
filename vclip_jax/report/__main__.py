"""Write the report of a finished or running training, or compare several runs.

    vclip report W           writes W/report.html
    vclip report W W2 W3     writes a comparison of the runs to W/comparison.html
    vclip report W --export DIR   writes all tables and figures for a paper

A workdir of several systems (`configs/table1.py`) gets the report of the systems.
"""

from argparse import Namespace
from collections.abc import Sequence
from functools import partial

from vclip_jax.console import commands
from vclip_jax.files.foreign import check_paths


def _parser() -> commands.Parser:
    parser = commands.Parser(prog="vclip report", description=__doc__)
    parser.add_argument(
        "workdir", nargs="+", help="the workdir of a run; several are compared on one page"
    )
    parser.add_argument(
        "--out",
        old=["--output"],
        metavar="PAGE.html",
        help="file to write the comparison to; its statistical tests are written as PAGE.json",
    )
    parser.add_argument(
        "--export",
        metavar="DIR",
        help="folder for every table (CSV, LaTeX), figure (SVG with its data), captions and "
        "reporting checklists",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page that the command line asks for, and return the exit status."""
    return commands.run(partial(_write, _parser().parse_args(arguments)))


def _write(options: Namespace) -> None:
    check_paths(options.workdir)
    from vclip_jax.report.comparison_page import write_comparison
    from vclip_jax.report.run_page import write_report
    from vclip_jax.report.table1_page import is_systems_workdir, write_systems_report

    first, *others = options.workdir
    if options.export:
        if others or options.out or is_systems_workdir(first):
            raise ValueError("--export is for one run: name a single workdir of a model")
        from vclip_jax.report.export import export

        written = export(first, options.export)
        print(f"{len(written)} files in {options.export}")
    if others:
        print(write_comparison(options.workdir, options.out))
    elif options.out:
        raise ValueError("--out is for a comparison: name several workdirs")
    elif is_systems_workdir(first):
        print(write_systems_report(first))
    else:
        print(write_report(first))


if __name__ == "__main__":
    commands.start(main)
