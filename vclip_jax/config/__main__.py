"""Print the page of all keys (`docs/config.md`), or the values of a recipe:
`python -m vclip_jax.config [configs/X.py]`.
"""

import argparse

from vclip_jax.config.command_line import check_recipe
from vclip_jax.config.page import page
from vclip_jax.config.saved import as_text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m vclip_jax.config", description="Print all keys, or a recipe's values."
    )
    parser.add_argument("recipe", nargs="?", help="configs/X.py[:argument]")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        print(as_text(check_recipe(options.recipe)) if options.recipe else page(), end="")
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
