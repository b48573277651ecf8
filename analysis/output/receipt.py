"""What was fitted, how and by which versions: equal receipts mean equal fits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.runs.selection import Selection
from analysis.study import Options

PACKAGES = ("isoflop", "numpy", "scipy", "pandas")


def receipt(selection: Selection, options: Options, points: pd.DataFrame | None = None) -> dict[str, Any]:
    """The receipt of a fit, plain enough for JSON.

    Args:
        points: that are predicted beside the targets.
    """
    tables = {
        "runs": selection.runs.table,  # under every convention
        "everything": selection.everything,
        "fitted": selection.table[["run_id"]],
        "evals": selection.runs.evals,
        "points": pd.DataFrame() if points is None else points,
    }
    return {
        "runs": len(selection.everything),
        "name": selection.runs.name,
        "convention": {"N": str(selection.convention.n), "C": str(selection.convention.c)},
        "rules_off": list(selection.rules_off),
        "data_sha256": _digest(f"{name}\n{_plain(table)}" for name, table in tables.items()),
        "options": {
            "law": options.law,
            "joint": options.joint.name,
            "fixed_a": options.fixed_a,
            "loss_function": vars(options.rho),
            "bootstrap": options.bootstrap,
            "seed": options.seed,
            "target_compute": list(options.target_compute),
            "models": [vars(model) for model in options.models],
        },
        "versions": {name: _version(name) for name in PACKAGES},
        "code_sha256": code(),
    }


@cache
def code() -> str:
    """Of the package's own sources: a checkout changes without a new version."""
    folder = Path(__file__).resolve().parent.parent
    return _digest(f"{path.relative_to(folder)}\n{path.read_text()}" for path in sorted(folder.rglob("*.py")))


def _plain(table: pd.DataFrame) -> str:
    return str(table.to_csv(index=False, float_format="%.17g"))


def _digest(parts: Iterable[str]) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part.encode())
    return found.hexdigest()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
