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

from analysis.note import Note
from analysis.runs.conventions import OTHER_N, UNRECORDED
from analysis.runs.ratio import Ratio, sizes, tokens
from analysis.runs.reading import load, refuse_names
from analysis.runs.tidy import Runs
from gpt3core.errors import UsageError

LETTER = "L"  # a loss, unless all of it are whole numbers: those are layers
ALIASES = {
    "N": ("N", "params", "n_params", "num_params", "parameters", "n_parameters", "model_size", "model_params"),
    "N_total": ("params_total", "total_params", "N_total", "params_all"),
    "N_nonembedding": ("params_nonembedding", "non_embedding_params", "nonembedding_params", "N_nonembedding"),
    "D": ("D", "tokens", "n_tokens", "num_tokens", "train_tokens", "training_tokens", "tokens_seen", "dataset_size"),
    "C": ("C", "flops", "compute", "train_flops", "training_flops", "total_flops", "flops_model"),
    "loss": ("loss", "val_loss", "validation_loss", "eval_loss", "test_loss", "final_loss", "loss_validation", LETTER),
    "loss_se": ("loss_se", "loss_stderr", "loss_sem", "se_loss", "stderr"),
    "U": ("U", "unique_tokens", "n_unique_tokens", "tokens_unique"),
    "epochs": ("epochs", "n_epochs"),
    "seed": ("seed", "random_seed"),
    "batch_tokens": ("batch_tokens", "batch_size_tokens", "tokens_per_batch"),
    "lr": ("lr", "learning_rate", "peak_lr", "max_lr", "lr_max"),
    "noise_scale": ("noise_scale", "gradient_noise_scale", "critical_batch_tokens"),
    "steps": ("steps", "n_steps", "train_steps"),
    "budget_flops": ("budget_flops", "budget", "flops_budget", "compute_budget"),
    "gpu_hours": ("gpu_hours",),
    "status": ("status", "state"),
    "precision": ("precision", "dtype", "train_dtype", "compute_dtype"),
    "run_id": ("run_id", "run", "name", "run_name", "model_name", "model", "id"),
    "size": ("size", "size_name"),
}
NUMBERS = tuple(name for name in ALIASES if name not in ("status", "run_id", "size", "precision"))
POSITIVE = ("N", "N_total", "N_nonembedding", "D", "C", "loss", "U", "epochs", "batch_tokens", "steps")
COUNTS = ("N", "N_total", "N_nonembedding")  # one of them has to be complete
WHERE_GIVEN = ("budget_flops", "lr")  # positive where a row has one
NOT_NEGATIVE = ("loss_se", "gpu_hours")  # the same, and zero is a value
FINISHED = ("done", "ok", "finished", "complete", "completed", "success", "succeeded", "")
SAME_RUN = ("N", "D", "U", "epochs", "seed", "lr", "batch_tokens", "precision")
MANY_DIGITS = 6  # of a loss
DIGITS = "loss_digits"  # column: of the loss as the file has it, before a unit
COUNTER = "Unnamed:"  # pandas' name for a column without one: the index of a frame that was written with it
MOST_NAMES = 30  # of columns in an error
_UNIT = re.compile(r"^(?P<column>.+?)\s*(?P<operation>[*/])\s*(?P<factor>[0-9.]+(?:[eE][+-]?[0-9]+)?)$")


def runs_of(
    table: pd.DataFrame,
    path: Path,
    exclude: Sequence[str] = (),
    notes: Sequence[Note] = (),
    evaluations: Callable[[Sequence[str]], pd.DataFrame] | None = None,
) -> Runs:
    """A table under isoflop's names as runs, in an order of their own; ``path`` is what errors call it.

    Sums and resamples depend on the order of runs: the same runs in any order of rows give the same numbers.

    Args:
        evaluations: the scores of the rows that have these names, where there are any: then a loss may lack.

    Raises:
        UsageError: when no law could be fitted to it, with the reason and the row; see check_runs.
    """
    checked = check_runs(table, path, exclude, scored=evaluations is not None)
    evals = pd.DataFrame() if evaluations is None else evaluations(list(checked.run_id))
    order = [name for name in ("duplicate", *NUMBERS, "precision", "status") if name in checked]
    ordered = checked.sort_values(order, kind="stable", ignore_index=True)
    return Runs(source=path, name=path.name.split(".")[0], store=False, table=ordered, evals=evals, notes=list(notes))


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
    raw = headed(raw, path)
    unknown = sorted(set(columns) - set(ALIASES))
    if unknown:
        raise UsageError(f"columns.{unknown[0]}: known names are {', '.join(ALIASES)}")
    there = {str(name): str(name) for name in raw.columns}
    there |= {str(name).lower(): str(name) for name in raw.columns if len(str(name)) > 1}  # n and d may mean anything
    table, sources = pd.DataFrame(index=raw.index), {}
    for name, aliases in ALIASES.items():
        if name in columns:
            table[name] = _given(raw, name, columns[name], path)
            continue
        spelt = (alias if len(alias) == 1 else alias.lower() for alias in aliases)
        found = next(
            (there[alias] for alias in spelt if alias in there and not _layers(raw[there[alias]], alias)), None
        )
        if found is not None:
            table[name] = _number(raw[found], found, path) if name in NUMBERS else raw[found].astype("string")
            sources[name] = found
    repeated = raw[[name for name in raw if not str(name).startswith(COUNTER)]].astype(str).duplicated()
    if repeated.any():
        table["duplicate"] = repeated
    table.attrs |= {"sources": sources | dict(columns), "columns": list(raw.columns)}
    if "loss" in table:
        given = columns.get("loss", sources.get("loss", ""))
        column = given if given in raw else column_of(given)
        table[DIGITS] = _number(raw[column], column, path).pipe(_digits)
    return table


def source_of(table: pd.DataFrame, name: str) -> str:
    """The file's own name of a column, as ``columns.X=`` would give it without a unit."""
    return column_of(table.attrs.get("sources", {}).get(name, name))


def has_unit(expression: str) -> bool:
    """Whether a column was given with a unit, like tokens_billion*1e9."""
    return column_of(expression) != expression


def headed(raw: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The rows with their columns' names as words without blanks around them; what names an index is a column too."""
    own = [name for name in raw.index.names if name is not None and name not in raw.columns]
    raw = raw.reset_index(level=own) if own else raw
    names = [str(name).strip() for name in raw.columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    refuse_names(twice, path)
    return raw.reset_index(drop=True).set_axis(names, axis=1)


def _layers(column: pd.Series, alias: str) -> bool:
    """Whether a column that is called by the letter of the loss counts layers."""
    numbers = pd.to_numeric(column, errors="coerce").dropna()
    return alias == LETTER and bool((numbers % 1 == 0).all())


def _has(table: pd.DataFrame) -> str:
    """The file's columns, for an error."""
    return f"it has {listed(table.attrs.get('columns', list(table.columns)))}"


def listed(names: Sequence[str]) -> str:
    """Names for an error: not too many of them."""
    return f"{', '.join(map(str, names[:MOST_NAMES]))}{', ...' if len(names) > MOST_NAMES else ''}"


def check_runs(table: pd.DataFrame, path: Path, exclude: Sequence[str] = (), *, scored: bool = False) -> pd.DataFrame:
    """A table of runs that a law can be fitted to: N, D, C and loss complete and positive.

    Names and sizes are made up where there are none.

    Args:
        exclude: names of runs that a rule will take out: these, and runs whose column status says that they did not
            finish, may lack a loss.
        scored: whether there are scores: then a table without any loss will do, and C is all that it needs.

    Raises:
        UsageError: in one sentence: what is missing or wrong, and where.
    """
    table = _with_n(table)
    lossless = scored and ("loss" not in table or bool(table.loss.isna().all()))
    if lossless:
        table = _lossless(table, path)
    if "loss" not in table:
        raise UsageError(f"{path} has no column for loss: give it as columns.loss=NAME; {_has(table)}")
    if "D" not in table and {"N", "C"} <= set(table):
        table["D"] = table.C / (6 * table.N)
    for name in ("N", "D"):
        if name not in table:
            raise UsageError(
                f"{path} has no column for {name}: give it as columns.{name}=NAME (or NAME*1e9); {_has(table)}"
            )
    if "C" not in table:
        table["C"], table[UNRECORDED] = 6 * table.N * table.D, True
    if "status" not in table:
        table["status"] = "done"
    table["status"] = table.status.fillna("").str.strip()
    done = table.status.str.lower().isin(FINISHED)
    table["status"] = table.status.where(~done, "done")
    table["run_id"] = _names(table)
    counted = done & ~table.run_id.isin(list(exclude))
    _check_numbers(table, path, counted, lossless=lossless)
    again = _again(table[counted]).reindex(table.index, fill_value=False)
    table = table.drop(columns=DIGITS, errors="ignore")
    if again.any():
        table["duplicate"] = again | (table.duplicate if "duplicate" in table else False)
    if "size" not in table:
        table["size"] = [f"{n:.4g}" if n > 0 else name for n, name in zip(table.N, table.run_id, strict=True)]
    if "epochs" not in table:
        table["epochs"] = table.D / table.U if "U" in table else 1.0
    if "U" not in table:
        table["U"] = table.D / np.maximum(table.epochs, 1.0)
    return table.reset_index(drop=True)


def _lossless(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """A table of scores alone, whose trends are against compute; what it does not say of N, D and loss is nan."""
    if "C" not in table and not {"N", "D"} <= set(table):
        raise UsageError(
            f"{path} has no column for compute: give it as columns.C=NAME (or NAME*1e21), or columns.N and columns.D; "
            f"{_has(table)}"
        )
    if {"N", "C"} <= set(table) and "D" not in table:
        table = table.assign(D=table.C / (6 * table.N))
    table = table.assign(**{name: np.nan for name in ("N", "D", "loss") if name not in table})
    if "C" not in table:
        table = table.assign(**{"C": np.nan, UNRECORDED: True})
    known = table.C.fillna(6 * table.N * table.D)
    if not known.notna().any():
        raise UsageError(
            f"{path} says the compute of no run: columns.C=NAME, or columns.N and columns.D; {_has(table)}"
        )
    status = table.status if "status" in table else pd.Series("done", index=table.index)
    return table.assign(C=known, status=status.where(known.notna(), "compute unknown"))


def _check_numbers(table: pd.DataFrame, path: Path, counted: pd.Series, *, lossless: bool = False) -> None:
    """Refuse values that a column cannot have; a loss may lack where none ``counted``, or everywhere."""
    everywhere = pd.Series(True, index=table.index)
    for name in map(str, table):
        if name in WHERE_GIVEN or (lossless and name in POSITIVE):
            _positive(table[name], name, path, must=table[name].notna())
        elif name in POSITIVE:
            spare = name in COUNTS and any(other in table and table[other].notna().all() for other in COUNTS)
            must = counted if name == "loss" else table[name].notna() if spare else everywhere
            _positive(table[name], name, path, must=must)
        elif name in NOT_NEGATIVE:
            _positive(table[name], name, path, must=table[name].notna(), zero=True)


def _again(table: pd.DataFrame) -> pd.Series:
    """Which runs are an earlier one under another name: the same in all that a loss depends on and, to many digits, it.

    A row an evaluation of a run, or a copy that was called otherwise: two seeds differ in the third or fourth digit.
    """
    same = [name for name in (*SAME_RUN, "loss") if name in table]
    digits = table[DIGITS] if DIGITS in table else _digits(table.loss)
    many = digits.median() >= MANY_DIGITS
    return table[same].duplicated() & many & (digits >= MANY_DIGITS - 1)  # one in ten ends in a zero, unwritten


def _digits(values: pd.Series) -> pd.Series:
    """Of numbers in the narrowest format that holds them all: 3.1 that was a float32 has two, not sixteen."""
    known = values.dropna()
    with np.errstate(over="ignore"):
        forms = [known.astype(kind) for kind in (np.float16, np.float32, np.float64)]
    held = next(form for form in forms if (form.astype(float) == known).all())
    written = [np.format_float_scientific(value, trim="-").split("e")[0].replace(".", "") for value in held.to_numpy()]
    return pd.Series([len(digits) for digits in written], index=known.index).reindex(values.index, fill_value=0)


def _names(table: pd.DataFrame) -> list[str]:
    """The runs' own names where they are unique, else with their rows; copies of a row have their rows beside them."""
    rows = [f"row-{i + 1}" for i in range(len(table))]
    if "run_id" not in table:
        return rows
    named = [str(name) for name in table.run_id.fillna("")]
    first = ~table.duplicate.to_numpy(bool) if "duplicate" in table else np.ones(len(table), bool)
    own = [name for name, is_first in zip(named, first, strict=True) if is_first]
    unique = len(set(own)) == len(own)
    return [
        name if unique and is_first else f"{name} ({row})" if name else row
        for name, row, is_first in zip(named, rows, first, strict=True)
    ]


def read_points(path: Path, columns: Mapping[str, str]) -> pd.DataFrame:
    """A file of points under isoflop's names, in its order.

    A name that the runs' file needed and this one lacks is looked for under its usual names.
    """
    raw = load(path)
    given = {name: column for name, column in columns.items() if column in raw or column_of(column) in raw}
    return named(raw, given, path)


def check_points(table: pd.DataFrame, path: Path, cost: Ratio) -> pd.DataFrame:
    """N, D, C and U of points to predict, and N_other if they have it; N and D are nan where C alone is given.

    Args:
        cost: C/(6ND) of the runs by size, for what two of the three say of the third.

    Raises:
        UsageError: when the file says neither, or a value cannot be used.
    """
    table = _with_n(table)
    for name in ("N", "D", "C", "U"):
        if name in table:
            _positive(table[name], name, path, must=pd.Series(True, index=table.index))
    for name in NOT_NEGATIVE:
        if name in table:
            _positive(table[name], name, path, must=table[name].notna(), zero=True)
    if {"N", "C"} <= set(table) and "D" not in table:
        table["D"] = tokens(cost, np.log(table.N.to_numpy(float)), table.C.to_numpy(float))
    if {"D", "C"} <= set(table) and "N" not in table:
        table["N"] = sizes(cost, np.log(table.D.to_numpy(float)), table.C.to_numpy(float))
    if {"N", "D"} <= set(table) and "C" not in table:
        table["C"] = 6 * table.N * table.D * np.exp(cost.ln(np.log(table.N.to_numpy(float))))
    if "C" not in table:
        raise UsageError(
            f"{path} has neither N and D nor C: give them as columns.N=NAME, columns.D=NAME, columns.C=NAME"
        )
    names = ["N", "D", "C", "U", *([OTHER_N] if OTHER_N in table else [])]
    return table.reindex(columns=names).reset_index(drop=True)


def column_of(expression: str) -> str:
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
        raise UsageError(f"columns.{name}={expression}: {path} has no column {column!r}; {_has(raw)}")
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
        value = column.iloc[row]
        hint = " (with a point for decimals, and thousands that nothing parts)" if "," in str(value) else ""
        raise UsageError(f"{path}, row {row + 1}: {name} is {value!r}, a number is expected{hint}")
    return numbers


def _positive(column: pd.Series, name: str, path: Path, must: pd.Series, *, zero: bool = False) -> None:
    """Refuse what is not finite and positive in the rows that ``must`` be; zero passes where it is a value."""
    wrong = must & ~(np.isfinite(column) & ((column > 0) | (zero & (column == 0))))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        value = column.iloc[row]
        what = "missing or not a number" if np.isnan(value) else f"{value:g}"
        hint = "; exclude=[ROW'S NAME], or a column status that says diverged, leaves it out" if name == "loss" else ""
        more = f" (and {int(wrong.sum()) - 1} more)" if wrong.sum() > 1 else ""
        allowed = "zero or more" if zero else "positive"
        raise UsageError(f"{path}, row {row + 1}{more}: {name} is {what}, it must be finite and {allowed}{hint}")


def _with_n(table: pd.DataFrame) -> pd.DataFrame:
    """One column N, whatever the file counts."""
    table = table.copy()
    if "N" not in table:
        there = [name for name in ("N_nonembedding", "N_total") if name in table]
        if there:
            whole = [name for name in there if table[name].notna().all()]
            table["N"] = table[(whole or there)[0]]
    return table
