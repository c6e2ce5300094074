"""The examples of what docs/api.md shows, and the Python programs of all pages, run.

The names come from the page's `:::` entries: a name without an example fails.
"""

import ast
import doctest
import importlib
import inspect
import re
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml
from PIL import Image, ImageDraw

import vclip_jax
from vclip_jax import datasets
from vclip_jax.predict import pretrained

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/api.md"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
DATASET = "synthetic/messidor_like-32px-8-s1"


def entries(page: str) -> list[str]:
    """Dotted names of what the page's entries show: what is named, or those of its members that
    the options list."""
    names = []
    for name, options in re.findall(r"^::: ([\w.]+)\n((?: {4}.*\n)*)", page, re.M):
        listed = (yaml.safe_load(options) or {}).get("options", {}).get("members")
        names += [f"{name}.{member}" for member in listed] if listed else [name]
    return names


def python_blocks(page: Path) -> list[str]:
    """The Python programs of a page."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)


def resolve(name: str) -> Any:
    """The module, or what a module or a class calls so."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        owner, _, last = name.rpartition(".")
        return getattr(resolve(owner), last)


def home(thing: Any) -> str:
    """Where a function or a class is defined, from wherever it was imported."""
    return f"{thing.__module__}.{thing.__qualname__}"


def documented(cls: type) -> list[Any]:
    """The methods that mkdocstrings shows of a class; the class has the constructor's example."""
    methods = [getattr(cls, name) for name in vars(cls) if re.match("[^_]|__call__$", name)]
    return [method for method in methods if callable(method) and method.__doc__]


def with_examples(path: Path) -> list[str]:
    """Dotted names of a module's functions, classes and methods that have an example."""
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)

    def found(body: list[ast.stmt], owner: str) -> list[str]:
        names = []
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                if ">>> " in (ast.get_docstring(node) or ""):
                    names.append(f"{owner}.{node.name}")
                if isinstance(node, ast.ClassDef):
                    names += found(node.body, f"{owner}.{node.name}")
        return names

    text = path.read_text("utf-8")
    return found(ast.parse(text).body, module) if ">>> " in text else []


NAMED = [resolve(name) for name in entries(PAGE.read_text("utf-8"))]
SHOWN = {
    home(thing): thing
    for named in NAMED
    if callable(named)  # no module, no registry
    for thing in (named, *(documented(named) if inspect.isclass(named) else ()))
}
OTHERS = {
    name: resolve(name)
    for path in sorted((ROOT / "vclip_jax").rglob("*.py"))
    for name in with_examples(path)
    if name not in SHOWN
}


@pytest.fixture(scope="session")
def photograph(tmp_path_factory) -> str:
    """The path of a drawn eye, which does not change with the renderer."""
    picture = Image.new("RGB", (128, 128))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((4, 4, 124, 124), (190, 90, 40))
    draw.ellipse((78, 54, 98, 74), (250, 210, 130))
    path = tmp_path_factory.mktemp("photographs") / "eye.jpg"
    picture.save(path, quality=95)
    return str(path)


@pytest.fixture(scope="session")
def doctest_namespace(portable_folder, photograph, tmp_path_factory) -> dict[str, Any]:
    """The names that examples use without an import, as docs/api.md lists them."""
    data_dir = tmp_path_factory.mktemp("data")
    datasets.prepare(DATASET, "", data_dir)
    clip = vclip_jax.load(portable_folder)
    clip.batch_size = 1  # one compiled shape for all examples
    return {
        "model_folder": str(portable_folder),
        "clip": clip,
        "photograph": photograph,
        "data_dir": str(data_dir),
    }


def test_entries_members_and_methods_are_found():
    page = "::: vclip_jax.config\n    options:\n      members: [small]\n\n::: vclip_jax.predict.b\n"
    assert entries(page) == ["vclip_jax.config.small", "vclip_jax.predict.b"]
    for name in (
        "prompts.sets.for_classes",
        "predict.pretrained.Pretrained.prompt_set",
        "predict.heat_maps.Explainer.__call__",
    ):
        assert f"vclip_jax.{name}" in SHOWN
    assert not [name for name in SHOWN if re.search(r"\._(?!_call)", name)]
    assert "vclip_jax.compilation.cost.scope_of" in OTHERS
    assert len(PROGRAMS) >= 3


@pytest.mark.parametrize("name", SHOWN)
def test_what_the_page_shows_has_an_example(name):
    """mkdocstrings reads "Examples:", not "Example:", and ends an example at an empty line."""
    _, heading, section = (inspect.getdoc(SHOWN[name]) or "").partition("\n\nExamples:\n")
    assert heading, f"{name} has no section `Examples:`"
    assert section.startswith("    >>> ")
    assert "\n\n" not in section, "the examples are the last section, without empty lines"


@pytest.mark.parametrize("name", [*SHOWN, *OTHERS])
def test_examples_print_what_they_say(name, doctest_namespace):
    thing = (SHOWN | OTHERS)[name]
    told: list[str] = []
    (example,) = doctest.DocTestFinder(recurse=False).find(thing, name, globs=doctest_namespace)
    assert example.examples
    doctest.DocTestRunner(verbose=False).run(example, out=told.append)
    assert not told, "".join(told)


# --- The programs of all pages.

PROGRAMS = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(python_blocks(page))
    # test_docs.py and test_extending.py load the recipes, interop/export/test_towers.py runs the
    # programs for exported models, predict/embed/test_page.py those for files of embeddings.
    if "def get_config" not in block and page.name not in ("export.md", "embeddings.md")
]


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_of_the_pages_run(program, doctest_namespace, photograph, tmp_path, monkeypatch):
    """The stand-in for `load` takes the same arguments and gives the tiny model."""
    monkeypatch.chdir(tmp_path)
    for name in re.findall(r'"([\w.]+\.(?:jpg|png))"', program):
        Path(name).write_bytes(Path(photograph).read_bytes())
    load = mock.create_autospec(pretrained.load, return_value=doctest_namespace["clip"])
    monkeypatch.setattr(pretrained, "load", load)
    exec(program, {})


def test_the_page_shows_what_the_programs_import():
    homes, shown = set(SHOWN), set(entries(PAGE.read_text("utf-8")))
    for page in PAGES:
        for block in python_blocks(page):
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vclip_jax"):
                    for name in (f"{node.module}.{alias.name}" for alias in node.names):
                        thing = resolve(name)
                        there = inspect.ismodule(thing) or name in shown
                        assert there or home(thing) in homes, f"{page.name}: {name}"
