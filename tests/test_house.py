"""The structure of the code: arrows between rooms, no circles between files, files and functions of a readable length.

``python -m tests.test_house`` prints the map: files past 400 lines, functions past 50, circles.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

CODE = Path(__file__).resolve().parent.parent
ROOMS = ("gpt3core", "sweeps", "analysis", "dashboards")
FILE_LINES, FUNCTION_LINES = 400, 50

# room or file -> what it may never import, directly or through others
FORBIDDEN = {
    "gpt3core": {"ray", "sweeps", "analysis", "dashboards"},
    "analysis": {"torch", "ray", "sweeps", "dashboards"},
    "dashboards": {"torch", "ray", "sweeps.cluster", "sweeps.driving"},
    "sweeps.planning": {"torch", "ray"},
    "sweeps.scheduling": {"torch", "ray"},
    "sweeps.driving": {"torch", "ray"},
    "sweeps.watching": {"torch", "ray", "pandas", "numpy"},
    "sweeps.export": {"torch", "ray"},
    "sweeps.exporting": {"torch", "ray"},
    "gpt3core.store": {"torch"},
    "gpt3core.data": {"torch"},
    "gpt3core.spec": {"torch"},
    "gpt3core.costs": {"torch"},
    "gpt3core.sizes": {"torch"},
    "gpt3core.schedule": {"torch"},
    "gpt3core.errors": {"torch"},
    "gpt3core.numerics": {"torch"},
    "gpt3core.evals.spec": {"torch"},
    "gpt3core.parallel.layout": {"torch"},
    "gpt3core.parallel.memory": {"torch"},
    "gpt3core.parallel.speed": {"torch"},
    "gpt3core.parallel.choose": {"torch"},
    "gpt3core.model": {"torch.distributed"},
}


@cache
def modules(root: Path = CODE) -> dict[str, Path]:
    """Every file of the four packages by its dotted name."""
    found = {}
    for room in ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            found[name] = path
    return found


def imported(name: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """What a file imports anywhere in it: in functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known else str(node.module)


@cache
def arrows(root: Path = CODE) -> dict[str, set[str]]:
    """Who imports whom, outsiders by their full name."""
    known = modules(root)
    return {name: set(imported(name, path, known)) - {name} for name, path in known.items()}


def reached(name: str, graph: dict[str, set[str]]) -> set[str]:
    """Everything that importing a file may bring in."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for other in graph.get(waiting.pop(), ()):
            if other not in found:
                found.add(other)
                waiting.append(other)
    return found


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of files that import one another."""
    closure = {name: reached(name, graph) for name in graph}
    groups = {frozenset({name, *(o for o in closure[name] if o in graph and name in closure[o])}) for name in graph}
    return sorted(sorted(group) for group in groups if len(group) > 1)


def long_files(root: Path = CODE) -> dict[str, int]:
    """Files past FILE_LINES, tests too."""
    paths = [*modules(root).values(), *sorted((root / "tests").rglob("*.py"))]
    lines = {str(path.relative_to(root)): len(path.read_text().splitlines()) for path in paths}
    return {name: n for name, n in lines.items() if n > FILE_LINES}


def long_functions(root: Path = CODE) -> dict[str, int]:
    """Functions past FUNCTION_LINES."""
    found = {}
    for name, path in modules(root).items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                if length > FUNCTION_LINES:
                    found[f"{name}:{node.name}"] = length
    return found


def test_no_files_import_one_another_in_a_circle():
    assert circles(arrows()) == []


def test_no_file_and_no_function_is_longer_than_one_reads():
    assert long_files() == {}
    assert long_functions() == {}


@pytest.mark.parametrize("room", FORBIDDEN)
def test_arrows_go_down_only(room):
    graph = arrows()
    mine = [name for name in graph if name == room or name.startswith(f"{room}.")]
    assert mine, f"there is no {room} any more"
    direct = {
        f"{name} -> {other}" for name in mine for other in graph[name] for no in FORBIDDEN[room] if _is(other, no)
    }
    assert direct == set()


def test_only_the_cluster_imports_ray():
    graph = arrows()
    users = {name.rpartition(".")[0] for name, others in graph.items() if any(_is(other, "ray") for other in others)}
    assert users == {"sweeps.cluster"}


# an open for reading, but for the kernel's files and by ``files`` of the store itself
OPENED = re.compile(r"""(?<![\w.])(?<!def )open\((?!.*("[wxa]b?"|O_NONBLOCK))|(?<!\bfiles)\.read_(bytes|text)\(""")


def test_files_of_a_store_are_read_so_that_nobody_waits_for_a_pipe():
    """By ``files.opened`` and what is built on it."""
    rooms = [CODE / "gpt3core/store", CODE / "sweeps/watching"]
    lines = [f"{path.name}: {line}" for room in rooms for path in room.glob("*.py") for line in path.open()]
    assert [line for line in lines if OPENED.search(line) and "/proc/" not in line and "MOUNTS" not in line] == []


HEAVY = ("torch", "ray", "pandas", "scipy", "numpy")


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        ("gpt3core.spec gpt3core.costs gpt3core.store.sweepdir gpt3core.schedule sweeps.command sweeps.line", HEAVY),
        ("sweeps.status sweeps.diff sweeps.logs sweeps.watching.follow", HEAVY),
        ("gpt3core.generate.command gpt3core.generate.choices gpt3core.export sweeps.export sweeps.serve", HEAVY),
        ("gpt3core.data.prepare.__main__", HEAVY),
        ("gpt3core.evals.command", HEAVY),
        ("sweeps.driving.driver sweeps.cluster.launcher", HEAVY[:4]),
        ("analysis.fit analysis.api analysis.design analysis.forecast dashboards.report", HEAVY[:2]),
        ("dashboards.app dashboards.pages.shell", HEAVY),
    ],
)
def test_commands_answer_before_anything_heavy_is_imported(modules, heavy):
    code = f"import sys, {', '.join(modules.split())}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=CODE)
    assert done.stdout.strip() == "[]"


def _is(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def main(root: Path) -> None:
    """Print the map."""
    graph = arrows(root)
    print(f"{len(graph)} files, {sum(len(p.read_text().splitlines()) for p in modules(root).values())} lines")
    print(f"files past {FILE_LINES} lines: {len(long_files(root))} {long_files(root)}")
    print(f"functions past {FUNCTION_LINES} lines: {len(long_functions(root))} {long_functions(root)}")
    print(f"circles between files: {len(circles(graph))} {circles(graph)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else CODE)
