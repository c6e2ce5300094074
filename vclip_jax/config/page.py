"""The page of the configuration's keys, `docs/config.md`, from their declarations."""

from vclip_jax.config.keys import SECTIONS, USER_NAMED_SECTIONS, Key, keys_of

_HEAD = """\
# Configuration

All keys of a configuration, as `vclip_jax/config/keys.py` declares them.
`vclip config` prints this page; with a recipe, as in
`vclip config configs/quickstart.py`, it prints the recipe's values.

A recipe sets keys in Python (`config.data.image_size = 128`), the command line as flags
(`--config.data.image_size=128`). A key that does not exist, a value that is not allowed, and values
that do not go together are refused before anything is spent. A recipe may add to the names that are
allowed, see [Parts of your own](extending.md).

A run is continued with the values that it began with. The column "on resume" says what else holds:
"free" keys may change, because no trained number depends on them; "kept" ones are taken from the
run, whatever is asked for.
"""


def page() -> str:
    """The page as Markdown."""
    return "\n".join([_HEAD, *(_section(name) for name in SECTIONS)])


def _section(name: str) -> str:
    rows = "\n".join(_row(key) for key in keys_of(name))
    example = (
        f" An entry, `config.{name}.NAME`, has these keys." if name in USER_NAMED_SECTIONS else ""
    )
    return (
        f"## {name or 'The run'}\n\n{SECTIONS[name]}{example}\n\n"
        f"| key | default | allowed | on resume | meaning |\n|---|---|---|---|---|\n{rows}\n"
    )


def _row(key: Key) -> str:
    kinds = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}
    allowed = key.allowed.words() or kinds.get(type(key.default), "a tuple")
    default = f"`{key.default!r}`".replace("'", '"')
    resume = "" if key.on_resume == "same" else key.on_resume
    cells = (f"`{key.name}`", default, allowed, resume, key.meaning)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
