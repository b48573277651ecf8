"""What a reader must know of the runs themselves: their scores, how they were trained, which are not done."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from analysis.accuracy.trends import BELOW, MEAN, averaged
from analysis.note import Note
from analysis.output import evidence
from analysis.study import Study
from gpt3core.words import number_of, some


def of_scores(study: Study) -> Iterator[Note]:
    """Which runs have which scores, and which of them cannot be right."""
    evals = study.runs.evals
    if evals.empty:
        return
    asked, evals = list(dict.fromkeys(evals.task)), evals[evals.run_id.isin(study.table.run_id)]
    counts = evals.groupby("task", sort=False).run_id.nunique().reindex(asked, fill_value=0)
    partly = [f"{task} on {count}" for task, count in counts.items() if count < len(study.table)]
    if partly:
        message = f"not every one of the {len(study.table)} runs fitted has every score: {', '.join(partly)}"
        yield Note(code="scores-partly", severity="info", message=message, runs=evidence.runs(evals.run_id))
    yield from _below_chance(study)
    yield from _mean_of_tasks(evals)


def _below_chance(study: Study) -> Iterator[Note]:
    """Scores that are worse than guessing."""
    below = [t for t in study.trends if t.verdict == BELOW and t.task != MEAN]
    if below:
        listed = ", ".join(f"{t.task} (K={t.shots}) {t.accuracy_large:.3f} for {t.chance:.3g}" for t in below)
        message = (
            f"the highest-compute runs score below chance on {listed}: no ignorance does that; look at the "
            "answer key, at how answers are scored (their length, a letter that is always chosen) and at chance.TASK="
        )
        asked = evidence.runs(run for t in below for run in t.run_ids)
        yield Note(code="below-chance", severity="warning", message=message, runs=asked)


def _mean_of_tasks(evals: pd.DataFrame) -> Iterator[Note]:
    """Which tasks the mean is of, where it is not of all."""
    found = averaged(evals) if len(evals) else None
    if found is None or not (found.left_out or found.without):
        return
    listed = ", ".join(map(str, found.shots))
    message = (
        f"the mean of tasks is that of {', '.join(found.tasks)}, which every run measured at every K shown ({listed})"
    )
    if found.left_out:
        message += f"; left out: {', '.join(found.left_out)}"
    if found.without:
        message += f"; no mean at K={', '.join(map(str, found.without))}, where fewer tasks are measured"
    yield Note(code="mean-of-tasks", severity="info", message=message)


def _parametrisations(study: Study) -> Iterator[Note]:
    """Runs of muP beside others."""
    if "mup_base_width" not in study.table or study.table.mup_base_width.nunique() < 2:
        return
    groups = study.table.groupby("mup_base_width").run_id.apply(list).sort_values(key=lambda ids: ids.map(len))
    names = {width: f"muP of base width {width}" if width else "the standard one" for width in groups.index}
    listed = ", ".join(f"{names[width]} ({number_of(len(ids), 'run')})" for width, ids in groups.items())
    message = (
        f"the runs fitted were trained in different parametrisations, {listed}: each has learning rates of its own, "
        f"so fit them apart; exclude=[{','.join(groups.iloc[0][:30])}] leaves the fewest out"
    )
    yield Note(code="mixed-parametrisation", severity="warning", message=message, runs=evidence.of_fit(study))


def _generated(study: Study) -> Iterator[Note]:
    """Runs with generated episodes mixed into their text."""
    if "episodes" not in study.table or not (study.table.episodes > 0).any():
        return
    shares = " and ".join(f"{share:.0%}" for share in sorted(study.table.episodes.unique()))
    message = (
        f"{shares} of the training tokens are generated episodes, mixed in so that small models learn from examples "
        "(data.episodes): D and C count them, losses are of held-out text alone, so the law is that of such a mixture"
    )
    severity = "warning" if "and" in shares else "info"
    yield Note(code="generated-episodes", severity=severity, message=message, runs=evidence.of_fit(study))


def of_training(study: Study) -> Iterator[Note]:
    """How the runs were trained, and which are not done."""
    if "precision" in study.table and study.table.precision.nunique() > 1:
        counts = study.table.precision.value_counts().sort_index()
        listed = ", ".join(f"{name} ({number_of(count, 'run')})" for name, count in counts.items())
        message = (
            f"the runs fitted were trained in different precisions, {listed}: their losses may differ for that alone; "
            f"precision={counts.idxmax()} leaves the others out"
        )
        yield Note(code="mixed-precision", severity="warning", message=message, runs=evidence.of_fit(study))
    yield from _parametrisations(study)
    yield from _generated(study)
    repeated = study.table[study.table.epochs > 1]
    if len(repeated):
        listed = some([f"{r.run_id} {r.epochs:.2f}" for r in repeated.itertuples()], 30)
        seen = "saw the text, or a source of it, more than once (epochs)"
        message = f"{number_of(len(repeated), 'run')} {seen}: {listed}"
        yield Note(code="repeated-data", severity="info", message=message, runs=evidence.runs(repeated.run_id))
    if study.runs.unmeasured:
        message = (
            f"{len(study.runs.unmeasured)} runs are trained and not measured on every task that is asked for now "
            f"(start the sweep again): {some(study.runs.unmeasured)}"
        )
        yield Note(code="unmeasured", severity="warning", message=message, runs=evidence.runs(study.runs.unmeasured))
    if study.runs.missing:
        without = some(study.runs.missing)
        message = f"{number_of(len(study.runs.missing), 'run')} of the sweep without a result yet: {without}"
        yield Note(code="unfinished", severity="warning", message=message, runs=evidence.runs(study.runs.missing))
