"""The package's prose: a docstring starts with a verb or names the thing."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "vclip_jax"
RIDDLE = re.compile(r"\s*(What|Where|Of|Whether|Who|How|Which|In)\b")


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of each docstring: of the module, classes, functions and fields."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.lineno, str(node.value.value)


def test_no_docstring_opens_with_a_riddle():
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {text.strip().splitlines()[0]}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line, text in docstrings(path)
        if RIDDLE.match(text)
    ]
    assert not found
