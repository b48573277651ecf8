"""Anybody's table of runs: CSV, Parquet or JSON lines with columns N, D and loss, under whatever names and units.

A column is found by its usual names, or given as ``columns.N=params`` or ``columns.D=tokens_billion*1e9``. What a law
cannot be fitted to (missing, not a number, not positive) is refused with the row that holds it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.runs.tidy import Runs
from gpt3core.errors import UsageError

ALIASES = {
    "N": ("N", "params", "n_params", "num_params", "parameters", "n_parameters", "model_size", "model_params"),
    "N_total": ("params_total", "total_params", "N_total", "params_all"),
    "N_nonembedding": ("params_nonembedding", "non_embedding_params", "nonembedding_params", "N_nonembedding"),
    "D": ("D", "tokens", "n_tokens", "num_tokens", "train_tokens", "training_tokens", "tokens_seen", "dataset_size"),
    "C": ("C", "flops", "compute", "train_flops", "training_flops", "total_flops", "flops_model"),
    "loss": ("loss", "val_loss", "validation_loss", "eval_loss", "test_loss", "final_loss", "loss_validation", "L"),
    "loss_se": ("loss_se", "loss_stderr", "loss_sem", "se_loss", "stderr"),
    "U": ("U", "unique_tokens", "n_unique_tokens", "tokens_unique"),
    "epochs": ("epochs", "n_epochs"),
    "seed": ("seed", "random_seed"),
    "batch_tokens": ("batch_tokens", "batch_size_tokens", "tokens_per_batch"),
    "steps": ("steps", "n_steps", "train_steps"),
    "budget_flops": ("budget_flops", "budget", "flops_budget", "compute_budget"),
    "gpu_hours": ("gpu_hours",),
    "status": ("status", "state"),
    "precision": ("precision", "dtype", "train_dtype", "compute_dtype"),
    "run_id": ("run_id", "run", "name", "run_name", "model_name", "model", "id"),
    "size": ("size", "size_name"),
}
NUMBERS = tuple(name for name in ALIASES if name not in ("status", "run_id", "size", "precision"))
POSITIVE = ("N", "N_total", "N_nonembedding", "D", "C", "loss", "U", "batch_tokens", "steps")
FINISHED = ("done", "ok", "finished", "complete", "completed", "success", "succeeded", "")
_UNIT = re.compile(r"^(?P<column>.+?)\s*(?P<operation>[*/])\s*(?P<factor>[0-9.]+(?:[eE][+-]?[0-9]+)?)$")


def read_table(path: Path, columns: Mapping[str, str], exclude: Sequence[str] = ()) -> Runs:
    """Anybody's CSV, Parquet or JSON lines as runs.

    Raises:
        UsageError: when no law could be fitted to it, with the reason and the row.
    """
    return runs_of(read(path, columns), path, exclude)


def runs_of(table: pd.DataFrame, path: Path, exclude: Sequence[str] = ()) -> Runs:
    """A table under isoflop's names as runs; ``path`` is what errors call it. See check_runs."""
    return Runs(source=path, name=path.name.split(".")[0], store=False, table=check_runs(table, path, exclude))


def read(path: Path, columns: Mapping[str, str]) -> pd.DataFrame:
    """A file's rows under isoflop's names, as many columns of ALIASES as it has; numbers as floats.

    Args:
        columns: names that the user gave, each a column or a column times or over a number.

    Raises:
        UsageError: for a missing file, an unreadable format, or a name that the file does not have.
    """
    return named(load(path), columns, path)


def named(raw: pd.DataFrame, columns: Mapping[str, str], path: Path) -> pd.DataFrame:
    """The same for a table that is in memory; ``path`` is what errors call it."""
    if raw.empty:
        raise UsageError(f"{path} holds no rows")
    raw = raw.reset_index(drop=True)
    unknown = sorted(set(columns) - set(ALIASES))
    if unknown:
        raise UsageError(f"columns.{unknown[0]}: known names are {', '.join(ALIASES)}")
    there = {str(name): str(name) for name in raw.columns}
    there |= {str(name).lower(): str(name) for name in raw.columns if len(str(name)) > 1}  # n and d may mean anything
    table = pd.DataFrame(index=raw.index)
    for name, aliases in ALIASES.items():
        if name in columns:
            table[name] = _given(raw, name, columns[name], path)
            continue
        spelt = (alias if len(alias) == 1 else alias.lower() for alias in aliases)
        found = next((there[alias] for alias in spelt if alias in there), None)
        if found is not None:
            table[name] = _number(raw[found], found, path) if name in NUMBERS else raw[found].astype("string")
    return table


def check_runs(table: pd.DataFrame, path: Path, exclude: Sequence[str] = ()) -> pd.DataFrame:
    """A table of runs that a law can be fitted to: N, D, C and loss complete and positive.

    Names and sizes are made up where there are none.

    Args:
        exclude: names of runs that a rule will take out: these, and runs whose column status says that they did not
            finish, may lack a loss.

    Raises:
        UsageError: in one sentence: what is missing or wrong, and where.
    """
    table = _with_n(table)
    if "loss" not in table:
        raise UsageError(f"{path} has no column for loss: give it as columns.loss=NAME")
    if "D" not in table and {"N", "C"} <= set(table):
        table["D"] = table.C / (6 * table.N)
    for name in ("N", "D"):
        if name not in table:
            raise UsageError(f"{path} has no column for {name}: give it as columns.{name}=NAME (or NAME*1e9)")
    if "C" not in table:
        table["C"] = 6 * table.N * table.D
    if "status" not in table:
        table["status"] = "done"
    done = table.status.fillna("").str.strip().str.lower().isin(FINISHED)
    table["status"] = table.status.where(~done, "done").fillna("done")
    table["run_id"] = _names(table)
    counted = done & ~table.run_id.isin(list(exclude))
    for name in POSITIVE:
        if name in table:
            _positive(table[name], name, path, must=counted if name == "loss" else counted | True)
    if "size" not in table:
        table["size"] = [f"{n:.4g}" for n in table.N]
    if "epochs" not in table:
        table["epochs"] = table.D / table.U if "U" in table else 1.0
    if "U" not in table:
        table["U"] = table.D / np.maximum(table.epochs, 1.0)
    return table.reset_index(drop=True)


def _names(table: pd.DataFrame) -> list[str]:
    """The runs' own names where they are unique, else with their rows."""
    rows = [f"row-{i + 1}" for i in range(len(table))]
    if "run_id" not in table:
        return rows
    named = [str(name) for name in table.run_id.fillna("")]
    if len(set(named)) == len(named):
        return named
    return [f"{name} ({row})" if name else row for name, row in zip(named, rows, strict=True)]


def read_points(path: Path, columns: Mapping[str, str]) -> pd.DataFrame:
    """A file of points under isoflop's names, in its order.

    A name that the runs' file needed and this one lacks is looked for under its usual names.
    """
    raw = load(path)
    given = {name: column for name, column in columns.items() if column in raw or _column(column) in raw}
    return named(raw, given, path)


def points(path: Path, columns: Mapping[str, str]) -> pd.DataFrame:
    """Points to predict, in the file's order; see check_points."""
    return check_points(read_points(path, columns), path)


def check_points(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """N, D, C and U of points to predict; N and D are nan where C alone is given.

    Raises:
        UsageError: when the file says neither, or a value cannot be used.
    """
    table = _with_n(table)
    for name in ("N", "D", "C", "U"):
        if name in table:
            _positive(table[name], name, path, must=pd.Series(True, index=table.index))
    if {"N", "C"} <= set(table) and "D" not in table:
        table["D"] = table.C / (6 * table.N)
    if {"D", "C"} <= set(table) and "N" not in table:
        table["N"] = table.C / (6 * table.D)
    if {"N", "D"} <= set(table) and "C" not in table:
        table["C"] = 6 * table.N * table.D
    if "C" not in table:
        raise UsageError(
            f"{path} has neither N and D nor C: give them as columns.N=NAME, columns.D=NAME, columns.C=NAME"
        )
    return table.reindex(columns=["N", "D", "C", "U"]).reset_index(drop=True)


def load(path: Path) -> pd.DataFrame:
    """A file's rows under its own names.

    Raises:
        UsageError: for a missing file or an unreadable format.
    """
    readers: dict[str, Callable[[Path], pd.DataFrame]] = {
        ".csv": pd.read_csv,
        ".tsv": lambda p: pd.read_csv(p, sep="\t"),
        ".parquet": pd.read_parquet,
        ".jsonl": lambda p: pd.read_json(p, lines=True),
        ".ndjson": lambda p: pd.read_json(p, lines=True),
    }
    suffixes = [s.lower() for s in path.suffixes if s.lower() != ".gz"]
    reader = readers.get(suffixes[-1] if suffixes else "")
    if reader is None:
        raise UsageError(f"{path}: a store's folder, or a file of {', '.join(readers)}, is expected")
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    try:
        table = reader(path)
    except (ValueError, OSError) as error:  # parser errors of pandas and pyarrow are ValueErrors
        raise UsageError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from error
    return table


def _column(expression: str) -> str:
    """The column of an expression like tokens_billion*1e9."""
    match = _UNIT.match(expression)
    return match["column"] if match else expression


def _given(raw: pd.DataFrame, name: str, expression: str, path: Path) -> pd.Series:
    column, factor = expression, 1.0
    if column not in raw.columns:
        match = _UNIT.match(expression)
        if match:
            column = match["column"]
            factor = _factor(match["operation"], match["factor"], f"columns.{name}={expression}")
    if column not in raw.columns:
        listed = ", ".join(str(c) for c in raw.columns[:30])
        raise UsageError(f"columns.{name}={expression}: {path} has no column {column!r}; it has {listed}")
    if name not in NUMBERS:
        return raw[column].astype("string")
    return _number(raw[column], column, path) * factor


def _factor(operation: str, digits: str, where: str) -> float:
    try:
        factor = float(digits) if operation == "*" else 1 / float(digits)
    except (ValueError, ZeroDivisionError):
        factor = float("nan")
    if not 0 < factor < float("inf"):
        raise UsageError(f"{where}: {operation}{digits} is no unit; multiply or divide by a number above zero (*1e9)")
    return factor


def _number(column: pd.Series, name: str, path: Path) -> pd.Series:
    """As floats: products of integer columns overflow for large runs."""
    numbers = pd.to_numeric(column, errors="coerce").astype(float)
    wrong = column.notna() & numbers.isna() & (column.astype(str).str.strip().str.lower() != "nan")
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise UsageError(f"{path}, row {row + 1}: {name} is {column.iloc[row]!r}, a number is expected")
    return numbers


def _positive(column: pd.Series, name: str, path: Path, must: pd.Series) -> None:
    wrong = must & ~(np.isfinite(column) & (column > 0))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        value = column.iloc[row]
        what = "missing or not a number" if np.isnan(value) else f"{value:g}"
        hint = "; exclude=[ROW'S NAME], or a column status that says diverged, leaves it out" if name == "loss" else ""
        more = f" (and {int(wrong.sum()) - 1} more)" if wrong.sum() > 1 else ""
        raise UsageError(f"{path}, row {row + 1}{more}: {name} is {what}, it must be finite and positive{hint}")


def _with_n(table: pd.DataFrame) -> pd.DataFrame:
    """One column N, whatever the file counts."""
    table = table.copy()
    if "N" not in table:
        for name in ("N_nonembedding", "N_total"):
            if name in table:
                table["N"] = table[name]
                break
    return table
