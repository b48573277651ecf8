"""The tables of a study's few-shot scores."""

from __future__ import annotations

import math

from analysis.accuracy.trends import Trend
from analysis.output import evidence
from analysis.output.table import FEW_SHOT, REACHED, Row, Table, row
from analysis.study import Study
from gpt3core.words import Name, number, shares, span

UNTOLD = ("at chance", "not measured")  # verdicts on a series whose numbers say nothing


def few_shot(study: Study) -> Table:
    """The trend of every task at every number of examples."""
    return Table(
        group=FEW_SHOT,
        title="Few-shot accuracy against compute",
        header=[
            *("task", "K", "chance", "best baseline", "accuracy, small -> large runs", "ln p(answer) per decade"),
            "verdict",
        ],
        rows=[_trend(study, trend) for trend in study.trends],
        unquoted="at chance or not measured",
    )


def _trend(study: Study, t: Trend) -> Row:
    accuracy = f"{t.accuracy_small:.3f} -> {t.accuracy_large:.3f} +- {t.accuracy_large_se:.3f}"
    known = math.isfinite(t.logprob_per_decade)
    logprob = f"{t.logprob_per_decade:+.2f} +- {t.logprob_per_decade_se:.2f}" if known else "-"
    verdict = t.verdict if t.slope is None else f"{t.verdict}: logit {t.slope:+.2f} +- {t.slope_se:.2f} a decade"
    if t.by_compute is not None:
        verdict += f", ceiling {span(t.by_compute.ceiling_interval, 2)}"
    if t.verdict == "not measured":
        accuracy, logprob, verdict = "-", "-", f"not measured: {t.reason}"
    return row(
        *(Name(t.task), str(t.shots), f"{t.chance:.2f}", f"{t.baseline:.3f}", accuracy, logprob, verdict),
        behind=evidence.of_scores(study, t.task, t.shots),
        quoted=t.verdict not in UNTOLD,
    )


def accuracies(study: Study) -> Table:
    """What each of the predicted runs would score."""
    rows = []
    chained = [(p, a) for p, each in zip(study.predictions, study.accuracies, strict=True) for a in each]
    for p, a in [*chained, *((None, a) for a in study.score_forecasts)]:
        what, compute = ("compute", a.compute) if p is None else (p.what, p.compute)
        score = "-" if a.accuracy is None else f"{a.accuracy:.3f}"
        note = a.reason or ("by compute alone" if p is None else "")
        rows.append(
            row(
                *(what, f"{compute:.3g}", Name(a.task), str(a.shots), score),
                *(shares(a.interval_mean), shares(a.interval_new_run), note),
                behind=evidence.of_accuracy(study, a, p),
                quoted=a.accuracy is not None,
            )
        )
    return Table(
        group=REACHED,
        title="Predicted accuracy (compute -> loss -> accuracy, where there is a loss)",
        header=["of", "C", "task", "K", "accuracy", "95% of the trend", "95% of a new run", "note"],
        rows=rows,
        unquoted="not predicted",
    )


def gains(study: Study) -> Table:
    """What examples bring."""
    rows = [
        row(
            *(Name(g["task"]), str(g["shots"])),
            f"{g['accuracy_gain']:+.3f} +- {g['accuracy_gain_se']:.3f}",
            f"{g['logprob_gain']:+.2f} +- {g['logprob_gain_se']:.2f}",
            behind=evidence.of_gain(study, str(g["task"]), int(g["shots"])),
        )
        for g in study.gains
    ]
    title = "What K examples bring over none (mean over runs)"
    return Table(group=FEW_SHOT, title=title, header=["task", "K", "accuracy", "ln p(answer)"], rows=rows)


def overlaps(study: Study) -> Table:
    """Accuracy on the questions that are in the training text and on the others."""
    rows = []
    for asked in study.overlaps:
        found = asked.row
        score, dirty, clean = (number(value) for value in (found.score, found.dirty_score, found.clean_score))
        difference = f"{found.difference:+.0%}" if math.isfinite(found.difference) else "-"
        rows.append(
            row(
                *(Name(found.name), str(asked.shots), str(found.n), score, f"{found.total:,}", dirty),
                *(f"{found.dirty:,}", clean, f"{found.clean:,}", f"{found.clean_share:.0%}", difference),
                behind=evidence.runs(asked.run_ids),
            )
        )
    return Table(
        group=FEW_SHOT,
        title="Questions in the training text (dirty) and not (clean), runs of most compute",
        header=[
            *("task", "K", "words", "accuracy", "questions", "dirty accuracy", "dirty", "clean accuracy", "clean"),
            *("clean share", "clean over all"),
        ],
        rows=rows,
    )
