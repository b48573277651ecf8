"""No file of ours is a pickle: no line reads one, and Python sees none read while a run trains, stops and resumes."""

import ast
import contextlib
import sys
from pathlib import Path

import pytest

from gpt3core import run as runs
from gpt3core.errors import StoppedError
from gpt3core.store.rundir import RunDir
from tests import test_house
from tests.conftest import EVALS, make_run
from tests.gpt3core import ranks

MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "pickletools"}
# of torch: its own files, distributed checkpoints (their .metadata), and collectives of objects
TORCH = {"torch.load", "torch.save", "torch.hub", "torch.package", "torch.jit.load", "torch.distributed.checkpoint"}
CALLS = {"read_pickle", "to_pickle", "load_checkpoint", "all_gather_object", "broadcast_object_list", "gather_object"}
CALLS |= {"scatter_object_list", "send_object_list", "recv_object_list"}


def pickles(source: str) -> list[str]:
    """What in a file reads or writes pickles, by its names however they were imported."""
    tree, names, found = ast.parse(source), {}, []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
                found += _forbidden(alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                found += _forbidden(f"{node.module}.{alias.name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            found += _forbidden(_dotted(node, names))
        elif (
            isinstance(node, ast.keyword)
            and node.arg == "allow_pickle"
            and getattr(node.value, "value", 1) is not False
        ):
            found.append("allow_pickle")
    return found


def _dotted(node: ast.expr, names: dict[str, str]) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, names)}.{node.attr}"
    return names.get(node.id, node.id) if isinstance(node, ast.Name) else "?"


def _forbidden(name: str) -> list[str]:
    beginnings = {".".join(name.split(".")[:count]) for count in range(1, name.count(".") + 2)}
    wrong = name.split(".")[0] in MODULES or beginnings & TORCH or name.split(".")[-1] in CALLS
    return [name] if wrong else []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import pickle", True),
        ("from torch import load as read", True),
        ("import torch as t\nt.load(path)", True),
        ("import torch.distributed.checkpoint as dcp", True),
        ("from torch.distributed import checkpoint", True),
        ("import torch\ntorch.distributed.checkpoint.save(x)", True),
        ("import torch.distributed as dist\ndist.all_gather_object(a, b)", True),
        ("import pandas as pd\npd.read_pickle(path)", True),
        ("import numpy as np\nnp.load(path, allow_pickle=True)", True),
        ("import numpy as np\nnp.load(path, allow_pickle=False)", False),
        ("from gpt3core.train import checkpoint\ncheckpoint.load(a, b, c)", False),
        ("from torch.utils.checkpoint import checkpoint", False),
        ("import json\njson.load(file)", False),
    ],
)
def test_the_check_sees_pickles_and_nothing_else(source, found):
    assert bool(pickles(source)) == found


def test_no_line_reads_or_writes_a_pickle():
    root = Path(test_house.__file__).parent.parent
    wrong = {
        str(path.relative_to(root)): found
        for room in ("gpt3core", "sweeps", "analysis", "dashboards")
        for path in sorted((root / room).rglob("*.py"))
        if (found := pickles(path.read_text()))
    }
    assert wrong == {}


def _watched(rank, size, address, root, spec):
    """Train, stop, and resume, in a process that hears of every pickle that is loaded."""
    loaded = []

    def hear(event, args):
        if event == "pickle.find_class":
            loaded.append(args)

    sys.addaudithook(hear)
    for stops in (True, False):
        with contextlib.suppress(StoppedError):
            runs.run(spec, EVALS, Path(root), stop=lambda stops=stops: stops)
    return [list(map(str, args)) for args in loaded]


@pytest.mark.xdist_group("ranks")
def test_nothing_unpickles_while_a_run_trains_and_resumes(tales, isolated):
    spec = make_run(tales, steps=6)
    assert ranks.run(_watched, 1, str(isolated), spec) == [[]]
    assert RunDir(isolated, spec.run_id).trained
