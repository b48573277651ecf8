"""The same as the commands, from Python, and the one way from settings to runs to a study behind all of them.

``fit`` (laws, intervals, predictions), ``compare`` (is B better than A), ``propose`` (what to run next),
``forecast_scores`` (a family's next model) and ``forecast_loss`` (the end of an unfinished run). Losses are nats per
token, N parameters, D tokens, C FLOPs. Errors are a UsageError or a StoreError of one sentence.

``fit`` takes a table with columns N, D and loss, or as ``columns={"D": "tokens_billion*1e9"}`` names them; ``predict``
has columns N and D, or C, and ``Study.predicted_points`` one prediction for each of its rows, in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import laws
from analysis.accuracy.score_forecast import forecast_scores
from analysis.analyse import analyse
from analysis.estimation import compare as comparing
from analysis.estimation.choices import covered
from analysis.estimation.compare import Comparison
from analysis.estimation.curve_forecast import forecast_loss
from analysis.estimation.design import propose
from analysis.estimation.robust import Rho
from analysis.estimation.unfinished import unfinished
from analysis.next_runs import NextRuns, next_runs
from analysis.note import Note
from analysis.output import saved
from analysis.output.notes import notes
from analysis.output.receipt import receipt
from analysis.runs import curves, foreign, ladders, published, selection
from analysis.runs.ladders import Ladders
from analysis.runs.points import counted
from analysis.runs.scores import Asked
from analysis.runs.selection import Selection
from analysis.settings import DELTA, EVERY, RHO, CompareSettings, DesignSettings, Fix, StudySettings
from analysis.study import Options, Study
from gpt3core.errors import UsageError
from gpt3core.hints import nearest
from gpt3core.words import number_of

__all__ = ["compare", "comparisons", "design", "fit", "forecast_loss", "forecast_scores", "propose", "study"]

LEAST_RUNS = 6  # of a foreign table: a law of five parameters and one run to judge it by


def fit(
    source: pd.DataFrame | Path | str,
    *,
    columns: Mapping[str, str] | None = None,
    scores: Sequence[str] | Asked = (),
    sweep: str | None = None,
    domain: str | None = None,
    N: str | None = None,
    C: str | None = None,
    exclude: Sequence[str] = (),
    rules: str | Sequence[str] = EVERY,
    min_tokens: float | None = None,
    min_compute: float | None = None,
    max_compute: float | None = None,
    precision: str | None = None,
    law: str = "all",
    loss_function: str = RHO,
    delta: float = DELTA,
    target_compute: float | Sequence[float] = (),
    target: str | None = None,
    predict: pd.DataFrame | Path | str | None = None,
    fix: Mapping[str, float] | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Study:
    """Fit scaling laws to a table of runs, its file or a store; options as ``python -m analysis.fit --help`` says."""
    settings = StudySettings(
        **_paths(source, predict),
        columns=_names(columns),
        **(scores if isinstance(scores, Asked) else Asked(scores=scores)).settings,
        sweep=sweep,
        domain=domain,
        N=N,
        C=C,
        exclude=list(exclude),
        rules=_listed(rules),
        min_tokens=min_tokens,
        min_compute=min_compute,
        max_compute=max_compute,
        precision=precision,
        law=law,
        loss_function=loss_function,
        delta=delta,
        target_compute=_computes(target_compute),
        target=target,
        fix=_fix(fix),
        bootstrap=bootstrap,
        seed=seed,
    )
    return study(settings, table=_frame("source", source), points=_frame("predict", predict))[0]


def study(
    settings: StudySettings,
    *,
    table: pd.DataFrame | None = None,
    points: pd.DataFrame | None = None,
    reuse: bool = False,
) -> tuple[Study, Path]:
    """The study that settings ask for, and the folder where ``analysis.fit`` keeps its files by default.

    Args:
        table: runs in memory, instead of ``settings.runs``.
        points: in memory, instead of the file ``settings.predict``.
        reuse: take what is in that folder, if its receipt says that it is of the same runs, options and versions.

    Raises:
        UsageError, StoreError: in one sentence, before anything is written.
    """
    options = options_of(settings)
    selected = selection.select(settings, table, Asked.of(settings))
    _enough(selected)
    if selected.runs.store and settings.columns and not settings.predict:
        named = next(iter(settings.columns))
        raise UsageError(f"columns.{named}: a store's runs name their columns themselves: leave it out")
    if settings.target:
        options = replace(options, models=(published.model(settings.target, selected.convention),))
    points, doubts = _points(settings, selected, points)
    return _study(selected, options, points, doubts, reuse=reuse), folder(selected)


def _points(
    settings: StudySettings, selected: Selection, table: pd.DataFrame | None
) -> tuple[pd.DataFrame | None, list[Note]]:
    """The points to predict, from memory or the file ``settings.predict``, and notes on what they count."""
    path = Path(settings.predict).expanduser().absolute() if settings.predict else Path("predict")
    if table is None and not settings.predict:
        return None, []
    columns = {} if table is not None else settings.columns
    raw = foreign.read_points(path, columns) if table is None else foreign.named(table, columns, path)
    return counted(raw, selected, path, columns)


def compare(
    a: pd.DataFrame | Path | str,
    b: pd.DataFrame | Path | str,
    *,
    names: tuple[str, str] = ("A", "B"),
    columns: Mapping[str, str] | None = None,
    domains: Mapping[str, str] | None = None,
    sweep: Sequence[str] = (),
    N: str | None = None,
    C: str | None = None,
    exclude: Sequence[str] = (),
    rules: str | Sequence[str] = EVERY,
    min_tokens: float | None = None,
    min_compute: float | None = None,
    max_compute: float | None = None,
    precision: str | None = None,
    paired: bool | None = None,
    target_compute: float | Sequence[float] = (),
    fix: Mapping[str, float] | None = None,
) -> list[Comparison]:
    """Is ladder ``b`` better than ``a``, and by how much compute; ``python -m analysis.compare --help`` says more.

    One comparison for each held-out domain; its ``at`` and ``beyond`` hold the multipliers.

    Args:
        a, b: both tables in memory, or both files or stores.
        names: of tables in memory.
        fix: exponents held fixed, as ``{"a": 0.5}`` or ``{"alpha_equals_beta": True}``.
    """
    tables = _two(names, a, b)
    settings = CompareSettings(
        runs=[] if tables else [str(a)] if str(a) == str(b) else [str(a), str(b)],
        sweep=list(sweep),
        columns=_names(columns),
        domains=dict(domains or {}),
        N=N,
        C=C,
        exclude=list(exclude),
        rules=_listed(rules),
        min_tokens=min_tokens,
        min_compute=min_compute,
        max_compute=max_compute,
        precision=precision,
        paired=paired,
        target_compute=_computes(target_compute),
        fix=_fix(fix),
    )
    return comparisons(settings, tables)


def comparisons(settings: CompareSettings, tables: Mapping[str, pd.DataFrame] | None = None) -> list[Comparison]:
    """The comparison of two ladders on each held-out domain.

    Raises:
        UsageError, StoreError: in one sentence.
    """
    return [compared(settings, pair) for pair in ladders.ladders(settings, tables)]


def compared(settings: CompareSettings, pair: Ladders) -> Comparison:
    """The comparison of two ladders that were read before, on the text of their domain."""
    law = _joint(settings.fix)
    a, b = (covered(law, s.table) & s.table.loss.notna().to_numpy() for s in (pair.a, pair.b))
    return comparing.compare(
        pair.a.table[a],
        pair.b.table[b],
        names=pair.names,
        domain=pair.domain,
        texts=pair.texts,
        paired=settings.paired,
        targets=tuple(settings.target_compute),
        law=law,
    )


def folder(selected: Selection) -> Path:
    """Where ``analysis.fit`` keeps its files by default: the fit of one domain of held-out text apart."""
    runs = selected.runs
    fit = f"fit-{runs.domain}" if runs.domain else "fit"
    return runs.source / "sweeps" / runs.name / fit if runs.store else Path.cwd() / f"{runs.name}-fit"


def design(settings: DesignSettings) -> NextRuns:
    """What to run next, what it costs, and the commands that run it; see next_runs.

    Raises:
        UsageError, StoreError: in one sentence.
    """
    return next_runs(settings)


def _study(
    selected: Selection, options: Options, points: pd.DataFrame | None, doubts: list[Note], *, reuse: bool
) -> Study:
    """Fit, or take what is on disk; curves of unfinished runs grow all the time and are forecast anew."""
    proof = receipt(selected, options, points)
    fitted = saved.read(folder(selected), proof) if reuse else None
    if fitted is None:
        read = curves.read(selected.runs.source, selected.table) if selected.runs.store else None
        fitted = analyse(selected, options, points, read)
    found = Study(
        **vars(selected),
        **vars(fitted),
        options=options,
        receipt=proof,
        forecasts=unfinished(selected.runs),
    )
    return replace(found, notes=[*notes(found), *doubts])


def options_of(settings: StudySettings) -> Options:
    """What is fitted, checked.

    Raises:
        UsageError: in one sentence, for what no run makes right.
    """
    settings.check()
    law = settings.law if settings.law == EVERY else laws.named(settings.law)
    if law is None:
        near, authors = nearest(settings.law, (*laws.LAWS, *laws.AUTHORS)), ", ".join(laws.AUTHORS)
        raise UsageError(
            f"law={settings.law}{near}: allowed are all, {', '.join(laws.LAWS)}, or by their authors {authors}"
        )
    if settings.target:
        published.check(settings.target)
    return Options(
        law=law,
        rho=Rho(name=settings.loss_function, delta=settings.delta),
        bootstrap=settings.bootstrap,
        seed=settings.seed,
        target_compute=tuple(settings.target_compute),
        joint=_joint(settings.fix),
        fixed_a=settings.fix.a,
    )


def _frame(name: str, given: pd.DataFrame | Path | str | None) -> pd.DataFrame | None:
    """A table in memory, None of a path; what is neither, as a dictionary or another library's table, is refused."""
    if isinstance(given, pd.DataFrame):
        return given
    if not (isinstance(given, Path | str) or (given is None and name == "predict")):
        raise UsageError(f"{name}: a pandas DataFrame or a path is expected, and a {type(given).__name__} was given")
    return None


def _paths(source: pd.DataFrame | Path | str, predict: pd.DataFrame | Path | str | None) -> dict[str, Any]:
    """The settings of what is not in memory."""
    given = {"runs": source, "predict": predict}
    return {name: None if path is None or isinstance(path, pd.DataFrame) else str(path) for name, path in given.items()}


def _two(names: tuple[str, str], *given: pd.DataFrame | Path | str) -> dict[str, pd.DataFrame]:
    """Two tables in memory by name; none of two paths."""
    frames = [_frame(name, each) for name, each in zip("ab", given, strict=True)]
    tables = [frame for frame in frames if frame is not None]
    if len(tables) == 1:
        raise UsageError("compare takes two tables in memory or two paths, and was given one of each")
    if tables and names[0] == names[1]:
        raise UsageError(f"names={names}: name the two tables apart")
    return dict(zip(names, tables, strict=False))


def _names(columns: Mapping[str, str] | None) -> dict[str, str]:
    """Names of columns, from Python: those that a frame counts are words too."""
    return {name: str(column) for name, column in (columns or {}).items()}


def _computes(given: float | Sequence[float]) -> list[float]:
    """One compute or several, from Python."""
    try:
        if isinstance(given, str | bytes):
            raise TypeError
        return [float(compute) for compute in (given if isinstance(given, Iterable) else [given])]
    except (TypeError, ValueError):
        raise UsageError(f"target_compute={given!r}: numbers of FLOPs are expected (like 1e24)") from None


def _listed(rules: str | Sequence[str]) -> list[str]:
    """Rules, or the one word for them, from Python."""
    return [rules] if isinstance(rules, str) else list(rules)


def _fix(given: Mapping[str, float] | None) -> Fix:
    """Exponents to hold fixed, from Python."""
    known = tuple(field.name for field in fields(Fix))
    for name in given or {}:
        if name not in known:
            raise UsageError(f"fix: {name}{nearest(name, known)}: allowed are {', '.join(known)}")
    return Fix(**dict(given or {}))  # type: ignore[arg-type]


def _joint(fix: Fix) -> laws.Law:
    """The law of N and D, with what the user fixed."""
    return laws.fixed(fix.alpha, fix.beta, fix.a, equal=fix.alpha_equals_beta) or laws.CHINCHILLA


def _enough(selected: Selection) -> None:
    """Refuse runs of which the rules leave none, and a foreign table of too few, or of one loss throughout."""
    least = 1 if selected.runs.store else LEAST_RUNS  # a sweep grows: what is there of it is shown
    if len(selected.table) >= least:
        known = selected.table.loss.notna().all() and not selected.runs.store
        if known and selected.table.loss.nunique() == 1:
            same = f"{float(selected.table.loss.iloc[0]):.6g}"
            raise UsageError(f"{selected.runs.source}: the loss is {same} in every run: is columns.loss another?")
        return
    out = "; ".join(f"{len(rule.excluded)} {rule.name}" for rule in selected.rules if rule.excluded)
    words = sorted(set(selected.everything.status) - {"done"})
    if words and not selected.runs.store:
        finished = ", ".join(word for word in foreign.FINISHED if word)
        out += f"; status {', '.join(map(repr, words[:5]))}, and runs that finished are {finished}"
    raise UsageError(
        f"{selected.runs.source} holds {number_of(len(selected.everything), 'run')}, {len(selected.table)} of them "
        f"usable{f' ({out})' if out else ''}: at least {least} {'is' if least == 1 else 'are'} needed"
    )
