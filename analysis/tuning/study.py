"""From runs that differ in learning rate and batch to the law of their optimum, and how far to trust it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.laws.base import Array
from analysis.note import Note
from analysis.runs import selection, tuned
from analysis.runs.tidy import Runs
from analysis.settings import HparamSettings
from analysis.tuning import critical, interval, judge, surface
from analysis.tuning.critical import Critical
from analysis.tuning.interval import Resampled
from analysis.tuning.judge import Judged, Losses
from analysis.tuning.surface import Surface, Trials
from gpt3core.errors import UsageError
from gpt3core.rule import COUNTS, Fitted, Rule

LEAST_RUNS = 5  # of a pair: two optima, and one run more than a level and two curvatures
LEAST_VALUES = 2  # of learning rate and of batch, over all
SURE = 2.0  # standard errors by which a warm-up or decay has to be better than the commonest
SCHEDULES = ("cosine", "wsd")


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """A law of the optimum, and what it rests on."""

    runs: Runs
    table: pd.DataFrame  # the runs that count
    data: Trials
    known: list[Losses]
    judged: Judged
    forms: list[Judged]
    fitted: Surface
    resampled: Resampled
    smaller: Array  # given away on the pairs of each next size by the law of the smaller ones
    critical: Critical | None  # of measured noise scales
    rule: Rule
    dropped: dict[str, int]  # pair -> runs, of pairs with too few
    notes: list[Note]


def tune(settings: HparamSettings, table: pd.DataFrame | None = None) -> Tuning:
    """Fit the law of the best learning rate and batch.

    Args:
        table: runs in memory, instead of ``settings.runs``.

    Raises:
        UsageError, StoreError: where the runs do not hold such a law, in one sentence.
    """
    found = selection.select(settings, table)
    kept, dropped = _usable(found.table, str(found.runs.source))
    data, known = surface.trials(kept), judge.losses(kept)
    judged, forms = judge.choose(data, known, batch_of_n=settings.batch_on == "ND")
    fitted = surface.fit(data, judged.form)
    if fitted.runs <= int(fitted.free.sum()):
        raise UsageError(
            f"{found.runs.source}: {fitted.runs} runs within {judged.form.window:.0%} of the best of their "
            f"{data.pairs} pairs, for the {int(fitted.free.sum())} numbers of a law: search more, nearer to the best"
        )
    resampled = interval.resample(data, fitted, settings.bootstrap, settings.seed, judge.as_good(judged, forms))
    smaller = judge.from_smaller(data, known, judged.form)
    rule = _rule(settings, found.runs, kept, judged, fitted, resampled, counts=str(found.convention.n))
    return Tuning(
        runs=found.runs,
        table=kept,
        data=data,
        known=known,
        judged=judged,
        forms=forms,
        fitted=fitted,
        resampled=resampled,
        smaller=smaller,
        critical=critical.fit(kept),
        rule=rule,
        dropped=dropped,
        notes=[*found.runs.notes, *_notes(data, kept, judged, fitted, resampled, dropped)],
    )


def _usable(table: pd.DataFrame, source: str) -> tuple[pd.DataFrame, dict[str, int]]:
    """The runs of pairs with runs enough, and the others' pairs."""
    for name, what, unit in (("lr", "learning rate", ""), ("batch_tokens", "batch in tokens", " (or NAME*2048)")):
        if name not in table or table[name].isna().all():
            raise UsageError(f"{source} has no column for the {what}: give it as columns.{name}=NAME{unit}")
    table = table[table[list(surface.X)].notna().all(axis=1)]
    pair = tuned.pairs(table)
    counts = pair.value_counts()
    dropped = {str(name): int(count) for name, count in counts.items() if count < LEAST_RUNS}
    kept = table[~pair.isin(list(dropped))].reset_index(drop=True)
    if kept.empty:
        raise UsageError(
            f"{source}: no pair of N and D has {LEAST_RUNS} runs that differ in learning rate and batch "
            f"({len(table)} runs of {len(counts)} pairs): search them at a few sizes, by sweeps/hparams.py"
        )
    for name in surface.X:
        if kept[name].nunique() < LEAST_VALUES:
            raise UsageError(
                f"{source}: all runs have {name}={kept[name].iloc[0]:g}: a law of its best value needs others"
            )
    return kept, dropped


def _rule(
    settings: HparamSettings,
    runs: Runs,
    table: pd.DataFrame,
    judged: Judged,
    fitted: Surface,
    resampled: Resampled,
    *,
    counts: str,
) -> Rule:
    """The rule that a recipe can name."""

    def exponent(which: str, of: str) -> tuple[float, ...]:
        return resampled.exponent(which, of) if resampled.known else ()

    known = len(judged.given_away) > 0
    schedules = sorted(set(runs.table.schedule)) if "schedule" in runs.table else []
    return Rule(
        name=settings.name or runs.name,
        lr=fitted.lr,
        batch_tokens=fitted.batch,
        counts=counts if counts in COUNTS else "given",
        **_beside(table, fitted),
        fitted=Fitted(
            source=f"{'sweep ' if runs.store else ''}{runs.name}",
            runs=len(table),
            pairs=len(resampled.fitted.theta[: resampled.pairs]),
            N=(float(table.N.min()), float(table.N.max())),
            D=(float(table.D.min()), float(table.D.max())),
            left_out_loss=judged.mean if known else None,
            left_out_worst=float(judged.given_away.max()) if known else None,
            lr_n_95=exponent("lr", "N"),
            lr_d_95=exponent("lr", "D"),
            batch_n_95=exponent("batch", "N"),
            batch_d_95=exponent("batch", "D"),
            schedule=schedules[0] if len(schedules) == 1 and schedules[0] in SCHEDULES else "",
            mup_base_width=_mup(runs.table),
        ),
    )


def _mup(table: pd.DataFrame) -> int:
    """The base width of muP, where all runs have the same."""
    widths = set(table.mup_base_width.fillna(0).astype(int)) if "mup_base_width" in table else {0}
    if len(widths) > 1:
        raise UsageError(f"runs with muP's base widths {sorted(widths)}: they have no learning rate in common")
    return widths.pop()


def _beside(table: pd.DataFrame, fitted: Surface) -> dict[str, float]:
    """Warm-up and decay where they were varied: the commonest, unless another is surely better."""
    found = {}
    for name in surface.BESIDE:
        if name not in table:
            continue
        counts = table[name].astype(float).round(2).value_counts()
        if len(counts) > 1:
            best, lowest = float(counts.index[0]), 0.0
            for (of, value), effect, error in zip(
                surface.values(table), fitted.effects, fitted.effects_se, strict=True
            ):
                if of == name and error > 0 and effect + SURE * error < 0 and effect < lowest:
                    best, lowest = value, float(effect)
            found[name] = best
    return found


def _notes(
    data: Trials,
    table: pd.DataFrame,
    judged: Judged,
    fitted: Surface,
    resampled: Resampled,
    dropped: dict[str, int],
) -> list[Note]:
    """What a reader must know beside the numbers."""
    found = []
    if dropped:
        message = f"{len(dropped)} pairs of N and D have fewer than {LEAST_RUNS} runs and are left out"
        found.append(Note(code="few-runs", severity="warning", message=message))
    if not len(judged.given_away):
        message = (
            f"{data.pairs} pairs of N and D: fewer than {judge.LEAST_PAIRS} (or too few runs near their best) cannot "
            "be left out in turn, so nothing tells how good the law is on another pair"
        )
        found.append(Note(code="not-tested", severity="warning", message=message))
    if judged.form.window > judge.WINDOWS[-1]:
        message = (
            f"too few runs lie near the best of their pairs: those within {judged.form.window:.0%} of it were taken, "
            "so far out that the best is rather guessed than measured; search more trials, or a narrower range"
        )
        found.append(Note(code="wide", severity="warning", message=message))
    if fitted.on_a_line:
        message = (
            "the pairs do not tell N and D apart (one size, or tokens in proportion): the exponents are of D alone and "
            "hold along that line; search a size at several lengths"
        )
        found.append(Note(code="on-a-line", severity="warning", message=message))
    if not resampled.known:
        message = "no intervals: no more pairs than numbers of a law, or bootstrap below 2"
        found.append(Note(code="no-interval", severity="warning", message=message))
    if edge := _at_the_edge(data, fitted):
        message = (
            f"the best of {edge} of {data.pairs} pairs lies outside of what was tried there: search wider, for there "
            "the law rests on the shape of the surface alone"
        )
        found.append(Note(code="edge", severity="warning", message=message))
    if np.linalg.eigvalsh(fitted.curvature)[0] < 1e-4:
        message = "the loss is flat along one direction of learning rate and batch: these runs do not tell the best"
        found.append(Note(code="flat", severity="warning", message=message))
    return found


def _at_the_edge(data: Trials, fitted: Surface) -> int:
    """Pairs whose best choice lies outside of their own runs."""
    count = 0
    for k in range(data.pairs):
        x, best = data.x[data.pair == k], np.log(fitted.best(*np.exp(data.z[k])))
        count += bool((best < x.min(0) - 1e-9).any() or (best > x.max(0) + 1e-9).any())
    return count


def targets(settings: HparamSettings) -> list[tuple[float, float]]:
    """The points asked for: each size at each number of tokens."""
    return [(n, d) for n in settings.target_n for d in settings.target_d]


def default_file(tuning: Tuning) -> Path:
    """Where the rule goes."""
    if tuning.runs.store:
        return Path(tuning.runs.source) / "sweeps" / tuning.runs.name / "rule.yaml"
    return Path.cwd() / f"{tuning.runs.name}-rule.yaml"


def best_rows(tuning: Tuning) -> Sequence[pd.Series]:
    """The best run of every pair, in the order of the data's pairs."""
    pair = tuned.pairs(tuning.table)
    return [rows.iloc[int(rows.loss.argmin())] for _, rows in tuning.table.groupby(pair, sort=True)]
