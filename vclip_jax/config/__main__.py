"""Print the values of a config, or the page of all keys (`docs/config.md`) without one:
`vclip config [configs/X.py]`.
"""

from collections.abc import Sequence

from vclip_jax.console import commands


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = _parser().parse_args(arguments)

    def run() -> None:
        from vclip_jax.config.command_line import check_recipe
        from vclip_jax.config.page import page
        from vclip_jax.config.saved import as_text

        print(as_text(check_recipe(options.recipe)) if options.recipe else page(), end="")

    return commands.run(run)


def _parser() -> commands.Parser:
    parser = commands.Parser(prog="vclip config", description=__doc__)
    parser.add_argument("recipe", nargs="?", help="configs/X.py[:argument]")
    return parser


if __name__ == "__main__":
    commands.start(main)
