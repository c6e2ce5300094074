"""The page `docs/config.md`, made from the declarations of the keys."""

from vclip_jax.config.keys import SECTIONS, USER_NAMED_SECTIONS, Key, keys_of

_HEAD = """\
# Configuration

All keys of a configuration, as `vclip_jax/config/keys.py` declares them.
`vclip config` prints this page; with a recipe, as in
`vclip config configs/quickstart.py`, it prints the recipe's values.

Set a key in a recipe (`config.data.image_size = 128`) or on the command line
(`--config.data.image_size=128`). Unknown keys, values that are not allowed, and values that
contradict each other are refused before any time is spent. A recipe may add to the allowed names,
see [Parts of your own](extending.md).

A run resumes with the values that it began with, and refuses others. The column "on resume" marks
the exceptions: a "free" key may change, because no trained number depends on it; a "kept" key is
taken from the run, even if another value is asked for.
"""


def page() -> str:
    """Return the page as Markdown."""
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
    each = " for each name" if isinstance(key.default, dict) else ""
    allowed = key.allowed.words() + each or kinds.get(type(key.default), "a tuple")
    default = f"`{key.default!r}`".replace("'", '"')
    resume = "" if key.on_resume == "same" else key.on_resume
    cells = (f"`{key.name}`", default, allowed, resume, key.meaning)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
