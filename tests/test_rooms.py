"""The rooms of the package stand on floors: what a module imports lies on a lower one."""

import ast
from collections import defaultdict
from pathlib import Path

import vclip_jax

PACKAGE = Path(vclip_jax.__file__).parent

# From the ground up. Rooms of one floor do not know each other.
FLOORS = (
    ("files",),
    ("console",),
    ("devices",),
    ("data",),
    ("prompts", "models"),
    ("datasets",),
    ("config",),
    ("tracking",),
    ("train",),
    ("interop", "compilation", "drills"),
    ("predict",),
    ("evaluation",),
    ("report", "demo"),
    ("audit",),
    ("main",),
    ("__main__",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def imports() -> dict[str, set[str]]:
    """Module -> the package's modules that it imports, wherever in the file, by dotted names."""
    modules = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in PACKAGE.rglob("*.py")
    }
    found = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                whole = [f"{node.module}.{alias.name}" for alias in node.names]
                names = [one if one in modules else node.module for one in whole]
            found[name.removesuffix(".__init__")] |= set(names) & modules
    return found


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_every_room_has_a_floor_and_says_what_lives_there():
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    files = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert rooms | files == set(FLOOR)
    assert len(files) <= 3
    for path in PACKAGE.rglob("__init__.py"):
        assert len(ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "") > 40, path


def test_no_import_runs_up_or_across_a_floor():
    wrong = [
        (module, other)
        for module, others in imports().items()
        for other in others
        if room_of(module) != room_of(other)
        and room_of(module)  # the package's own face loads `predict` when it is asked to
        and FLOOR[room_of(other)] >= FLOOR[room_of(module)]
    ]
    assert wrong == []


def test_no_modules_import_each_other_in_a_circle():
    graph = imports()
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        if module not in done:
            for other in graph.get(module, ()):
                # A package's __init__ is the face of its modules; a command may import itself.
                if not f"{module}.".startswith(f"{other}."):
                    visit(other, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())
