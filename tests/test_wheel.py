"""The files that pip installs."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "vclip_jax"


def test_every_file_of_the_package_is_installed():
    """If this fails: add the file's pattern to `package-data` in pyproject.toml."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = content["tool"]["setuptools"]["package-data"]["vclip_jax"]
    installed = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    files = {
        path
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc") and path.name[0] != "."
    }
    assert sorted(map(str, files - installed)) == []
