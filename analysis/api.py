"""The same as the commands, from Python: four functions.

``fit`` (laws, intervals, predictions), ``propose`` (what to run next), ``forecast_scores`` (a family's next model) and
``forecast_loss`` (the end of an unfinished run). Losses are nats per token, N parameters, D tokens, C FLOPs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from analysis import laws, runs, solve, tables
from analysis.conventions import Compute, Parameters
from analysis.curves import forecast as forecast_loss
from analysis.design import propose
from analysis.forecast import forecast as forecast_scores
from analysis.study import Options, Study, study
from gpt3core.errors import UsageError

__all__ = ["fit", "forecast_loss", "forecast_scores", "propose"]


def fit(
    source: pd.DataFrame | Path | str,
    *,
    columns: Mapping[str, str] | None = None,
    sweep: str | None = None,
    predict: pd.DataFrame | None = None,
    target_compute: Sequence[float] = (),
    law: str = "all",
    loss_function: str = "huber",
    delta: float = solve.DELTA,
    N: str | None = None,
    C: str | None = None,
    exclude: Sequence[str] = (),
    bootstrap: int = 1000,
    seed: int = 0,
) -> Study:
    """Fit scaling laws to runs; see analysis.fit for what each setting means.

    Args:
        source: a table with a run a row (columns N, D, loss, ...), its file, or a store's folder.
        columns: names of a table's columns, ``{"D": "tokens_billion*1e9"}``.
        predict: points with columns N and D, or C; ``Study.predicted_points`` has one prediction a row, in order.
        target_compute: FLOPs of compute-optimal runs to predict, in ``Study.predictions``.

    Returns:
        Everything that fit.json holds: ``laws[name].fit.params``, ``stack``, ``predictions``, ``notes``, ...

    Raises:
        UsageError: in one sentence, when no law could be fitted.
    """
    if law not in ("all", *laws.LAWS):
        raise UsageError(f"law={law}: allowed are all, {', '.join(laws.LAWS)}")
    if isinstance(source, pd.DataFrame):
        where = Path("table")
        table = tables.check_runs(tables.named(source, columns or {}, where), where, exclude)
        loaded = runs.Runs(source=where, name="table", store=False, table=table)
    elif Path(source).is_dir():
        loaded = runs.load(Path(source).absolute(), sweep)
    else:
        loaded = runs.read_table(Path(source).absolute(), columns or {}, exclude)
    points = (
        None if predict is None else tables.check_points(tables.named(predict, {}, Path("predict")), Path("predict"))
    )
    options = Options(
        size=Parameters(N) if N else None,
        compute=Compute(C) if C else None,
        law=law,
        loss=solve.Loss(name=loss_function, delta=delta),
        bootstrap=bootstrap,
        seed=seed,
        exclude=tuple(exclude),
        target_compute=tuple(target_compute),
    )
    return study(loaded, options, points)
