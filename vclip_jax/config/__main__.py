"""Print the values of a config: `vclip config configs/X.py`.

Without a config, print every key with its default and meaning (`docs/config.md`).
"""

from collections.abc import Sequence

from vclip_jax.console import commands


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return the exit status."""
    options = _parser().parse_args(arguments)

    def run() -> None:
        from vclip_jax.config.command_line import check_recipe
        from vclip_jax.config.page import page
        from vclip_jax.config.saved import as_text

        print(as_text(check_recipe(options.recipe)) if options.recipe else page(), end="")

    return commands.run(run)


def _parser() -> commands.Parser:
    parser = commands.Parser(prog="vclip config", description=__doc__)
    parser.add_argument("recipe", nargs="?", help="the config's file: configs/X.py[:argument]")
    return parser


if __name__ == "__main__":
    commands.start(main)
