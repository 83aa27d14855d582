"""The order of the rooms: what is lower imports nothing that is higher, and no two modules import each other."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From the ground up; rooms of one line know nothing of each other.
FLOORS = [
    {"crimson_core.errors", "crimson_core.install", "crimson_core.version"},
    {"crimson_core.protocol"},
    {"crimson_core.judges"},
    {"crimson_core.run"},
    {"crimson_core.compare", "crimson_core.dropin", "crimson_core.rewards"},
    {"crimson_core"},  # what it exports
    {"crimson_core.cli", "crimson_core.__main__", "crimson_metric", "space", "training"},
    {"app", "benchmarks", "bundle"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def modules() -> dict[str, Path]:
    files = [
        path
        for room in ("crimson_core", "space", "training", "benchmarks", "bundle")
        for path in (ROOT / room).rglob("*.py")
    ]
    named = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}
    return named | {name: ROOT / f"{name}.py" for name in ("crimson_metric", "app")}


def imports(module: str, path: Path, known: dict[str, Path]) -> set[str]:
    """Modules of ours that a module imports when it is imported or later."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports by a relative name"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            inside = names & known.keys()
            found |= inside if len(inside) == len(names) else inside | {node.module}
    return found & known.keys()


def floor(module: str) -> int:
    room = module
    while room not in FLOOR or (room == "crimson_core" and module != room):
        room = room.rpartition(".")[0]
        assert room, f"{module} stands in no room"
    return FLOOR[room]


MODULES = modules()
IMPORTS = {module: imports(module, path, MODULES) for module, path in MODULES.items()}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_room_imports_nothing_from_above(module):
    above = sorted(other for other in IMPORTS[module] if floor(other) > floor(module))
    assert not above, f"{module} imports {', '.join(above)}"


def test_no_modules_import_in_a_circle():
    try:
        TopologicalSorter({module: others - {module} for module, others in IMPORTS.items()}).prepare()
    except CycleError as circle:
        pytest.fail(" -> ".join(circle.args[1]))


def test_no_two_test_files_have_one_name():
    """pytest collects only the first of them."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
