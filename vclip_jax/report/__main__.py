"""Rewrites the report of a finished or running training: `python -m vclip_jax.report WORKDIR`."""

import argparse
import sys

from vclip_jax.report.build import write_report


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m vclip_jax.report", description=__doc__)
    parser.add_argument("workdir", nargs="+", help="folder that a training run wrote")
    for workdir in parser.parse_args(arguments).workdir:
        try:
            print(write_report(workdir))
        except FileNotFoundError as error:
            sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
