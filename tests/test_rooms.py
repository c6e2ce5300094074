"""The rooms of the package stand on floors: what a module imports lies on a lower one."""

import ast
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

# An old name of a command leads to its new place.
RENAMED = ("vclip_jax.datasets.__main__", "vclip_jax.audit.__main__")
# The registry names what is made, and what is made looks a recipe's own parts up in it.
REGISTRY = "vclip_jax.models.kinds"

MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def imports(*, by_name: bool = True) -> dict[str, set[str]]:
    """Module -> the package's modules that it imports, wherever in the file, by dotted names.

    An import runs the faces of the packages around a module, too. `by_name` adds what is imported
    on demand by a text: "vclip_jax.report.run_page", "readers.aptos" in the catalogue, and "losses"
    in the registry of models.
    """
    found: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        tree = ast.parse(path.read_text("utf-8"))
        names = imported(tree) | (named(tree, module) if by_name else set())
        parts = [name.split(".") for name in names & MODULES.keys()]
        outer = {".".join(part[:n]) for part in parts for n in range(2, len(part))}
        found[module] = (names & MODULES.keys()) | {o for o in outer if not within(module, o)}
        found[module].discard(module)  # a command may import itself
    return found


def within(module: str, package: str) -> bool:
    return f"{module}.".startswith(f"{package}.")


def imported(tree: ast.AST) -> set[str]:
    """The names in import statements."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names |= {one if one in MODULES else str(node.module) for one in whole}
    return names


def named(tree: ast.AST, module: str) -> set[str]:
    """The names in texts and in calls of the registry."""
    names, commands = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "_later":
            names.add(f"vclip_jax.models.{ast.literal_eval(node.args[0])}")
        elif isinstance(node, ast.List) and "-m" in ast.unparse(node):
            commands |= {id(one) for one in node.elts}  # a process of its own
        elif isinstance(node, ast.Constant) and "." in str(node.value) and id(node) not in commands:
            names |= {str(node.value), f"{module.rpartition('.')[0]}.{node.value}"}
    return {name for name in names if not within(module, name)}  # files of its own package


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
        and not (module == RENAMED[0] and within(RENAMED[1], other))
        and FLOOR[room_of(other)] >= FLOOR[room_of(module)]
    ]
    assert wrong == []


def test_no_modules_import_each_other_in_a_circle():
    graph = imports() | {REGISTRY: imports(by_name=False).get(REGISTRY, set())}
    assert graph[REGISTRY] == set()  # so it waits for nothing that waits for it
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        if module not in done:
            for other in graph.get(module, ()):
                visit(other, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_imports_on_demand_are_seen():
    graph = imports()
    assert "vclip_jax.predict.pretrained" in graph["vclip_jax"]  # within a function
    assert "vclip_jax.datasets.ingest.prepare" in graph["vclip_jax.datasets"]  # by a face
    assert "vclip_jax.datasets.readers.aptos" in graph["vclip_jax.datasets.catalog"]
    assert "vclip_jax.models.losses" in graph[REGISTRY]
    assert RENAMED[1] in graph[RENAMED[0]]
    assert "vclip_jax.main" not in graph["vclip_jax.drills.runs"]  # a process of its own
