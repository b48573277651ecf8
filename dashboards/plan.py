"""What the page Plan says: the best run at a compute, what it reaches and takes on GPUs, and what to run before it.

A request is text (the query of a permalink); what is answered is computed from a study. The answer of a click is quick;
what is the same for all clicks (``outlook``) and what is not quick (``design``) is made behind the page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from analysis.settings import DesignSettings, RunSettings, StudySettings
from dashboards import typed
from gpt3core.errors import UsageError
from gpt3core.words import amount, between, count, duration, flops, nats, number, outside, size

if TYPE_CHECKING:
    import pandas as pd

    from analysis.estimation.predict import Prediction
    from analysis.laws import Array
    from analysis.next_runs import NextRuns
    from analysis.output.answer import Line
    from analysis.study import Study
    from sweeps.planning.larger import Ladder, Larger

STATE = {"compute": "", "largest": "", "batch": "4", "for": "loss", "gpu": "H100", "days": "30"}
TARGETS = {"loss": "loss", "n_star": "best size"}
FARTHEST = 6.0  # decades beyond the largest run that may be asked for
SHOWN = 4.0  # decades beyond it that the figure and the sliders reach
POINTS = 49  # of the figure's curves
MOST_RUNS, MOST_DAYS = 64, 3650.0


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a reader asks."""

    compute: float  # FLOPs of the run that is planned, as the study counts C
    largest: float  # of those that may be run before it
    batch: int = 4  # how many of these
    target: str = "loss"  # what these are to narrow
    gpu: str = "H100"
    days: float = 30.0  # that the planned run may take


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What a study says of larger runs, for any request."""

    study: Study
    thetas: list[Array]
    ladder: Ladder
    along: pd.DataFrame  # the best runs at computes up to SHOWN decades beyond: C, N, D, loss and their intervals


# ---------------------------------------------------------------------------------------------------------- the request


def asked(state: Mapping[str, str], highest: float) -> tuple[Asked, list[str]]:
    """A request, and a sentence on each of its words that says nothing: the default stands in its place.

    Args:
        highest: FLOPs of the highest-compute run.
    """
    from analysis.estimation.design import FARTHER
    from sweeps.planning import hardware

    wrong: list[str] = []

    def between(name: str, low: float, high: float, default: float, like: str, *, whole: bool = False) -> float:
        text = state.get(name, "").strip()
        if not text:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high or (whole and value % 1):
            wrong.append(f"{name}={text:.40}: {like}, from {number(low)} to {number(high)}; {number(default)} is taken")
            return default
        return value

    def among(name: str, known: Mapping[str, object]) -> str:
        text = state.get(name, STATE[name])
        if text in known:
            return text
        wrong.append(f"{name}={text:.40}: allowed are {', '.join(known)}; {STATE[name]} is taken")
        return STATE[name]

    farthest = highest * 10**FARTHEST
    usual = float(flops(FARTHER * highest))
    compute = between("compute", highest / 10**FARTHEST, farthest, usual, "FLOPs")
    largest = between("largest", highest / 10**FARTHEST, farthest, min(compute, usual), "FLOPs")
    found = Asked(
        compute=compute,
        largest=largest,
        batch=int(between("batch", 1, MOST_RUNS, 4, "a whole number of runs", whole=True)),
        target=among("for", TARGETS),
        gpu=among("gpu", hardware.GPUS),
        days=between("days", 1e-3, MOST_DAYS, 30.0, "days"),
    )
    return found, wrong


def highest_compute(study: Study) -> float:
    """FLOPs of the highest-compute run, in whose multiples computes are asked for."""
    return float(study.table.C.max())


def slid(decades: float, highest: float) -> str:
    """The FLOPs of a slider that stands so many decades beyond the highest-compute run, as a reader would type them."""
    return flops(highest * 10**decades)


def decades(text: str, highest: float) -> float:
    """Where a slider stands for what was typed; for nothing, at the usual target."""
    from analysis.estimation.design import FARTHER

    try:
        value = float(text)
    except ValueError:
        value = 0.0
    return min(SHOWN, max(-1.0, math.log10(value / highest if value > 0 else FARTHER)))


# ----------------------------------------------------------------------------------------------------------- the answer


def outlook(study: Study) -> Outlook:
    """What is the same for all requests; takes as long as a part of the fit.

    Raises:
        UsageError: where the study knows no best size.
    """
    import numpy as np
    import pandas as pd

    from analysis import analyse

    thetas = analyse.drawn(study.ensemble, study.minima, study.options)
    whole = Outlook(study=study, thetas=thetas, ladder=_ladder(study), along=pd.DataFrame())
    table = study.table
    grid = np.geomspace(float(table.C.min()), float(table.C.max()) * 10**SHOWN, POINTS)
    found = _predicted(whole, tuple(map(float, grid)))
    if not found:
        raise UsageError("the laws fitted to these runs know no best size at any compute: there is nothing to plan by")
    return Outlook(study=study, thetas=thetas, ladder=whole.ladder, along=pd.DataFrame(list(map(_row, found))))


def at(known: Outlook, compute: float) -> Prediction | None:
    """The best run at a compute; None where the laws know no best size there."""
    found = _predicted(known, (compute,))
    return found[0] if found else None


def _predicted(known: Outlook, compute: tuple[float, ...]) -> list[Prediction]:
    from analysis import analyse

    study = known.study
    found, _ = analyse.best_runs(compute, study.ensemble, study.table, study.minima, study.options, known.thetas)
    return found


def _row(p: Prediction) -> dict[str, float]:
    def ends(name: str, interval: list[float] | None) -> dict[str, float]:
        low, high = interval or (math.nan, math.nan)
        return {f"{name}_low": low, f"{name}_high": high}

    row = {"C": p.compute, "N": p.n, **ends("N", p.interval_n), "D": p.d, **ends("D", p.interval_d)}
    return {**row, "loss": p.loss, **ends("loss", p.interval_new_run), "decades": p.decades}


def _ladder(study: Study) -> Ladder:
    """What the study's runs have in common; GPT-3's where they do not say."""
    from analysis.runs.conventions import Parameters
    from sweeps.planning.larger import Ladder

    table = study.runs.table
    shared: dict[str, int] = {}
    for name, column in (("n_layer", "n_layer"), ("n_ctx", "n_ctx"), ("vocab_size", "vocab")):
        if study.runs.store and column in table and table[column].nunique() == 1:
            shared[name] = int(table[column].iloc[0])
    return Ladder(embeddings=study.convention.n is Parameters.TOTAL, **shared)


def trained(known: Outlook, p: Prediction, wanted: Asked) -> Larger:
    """The predicted run, laid out on the fewest GPUs that end it in time."""
    from sweeps.planning import larger
    from sweeps.planning.recipe import Hardware

    return larger.larger(p.n, p.d, known.ladder, Hardware(gpu=wanted.gpu, max_days=wanted.days))


def reached(p: Prediction) -> list[Line]:
    """What the run is expected to be and to reach."""
    loss = nats(p.loss)
    if p.interval_new_run is not None:
        loss += f" ({between(p.interval_new_run)} for a new run)"
    far = f"{flops(p.compute)} FLOPs, {outside(p.decades)} the computes that were run"
    per = f"{p.d / p.n:.3g} tokens a parameter"
    return [
        ("compute", far),
        ("loss", f"{loss} nats per token"),
        ("best size N*", f"{size(p.n, p.interval_n)} parameters"),
        ("tokens D*", f"{size(p.d, p.interval_d)}, {per}"),
    ]


def taken(run: Larger, wanted: Asked) -> list[Line]:
    """What training it takes: shape, GPUs, time, price."""
    from gpt3core import costs
    from sweeps.planning import hardware

    model, optim, found = run.spec.model, run.spec.optim, run.found
    shape = (
        f"{getattr(model, 'n_layer', '?')} blocks of width {getattr(model, 'd_model', '?')}, "
        f"{count(costs.params(model).nonembedding)} parameters without embeddings; context {model.n_ctx:,}, "
        f"{run.spec.steps:,} steps of {count(optim.batch_tokens)} tokens"
    )
    if found.layout is None:
        return [("shape", shape), ("layout", found.reason)]
    late = f", more than the {wanted.days:g} days that it may" if found.days > wanted.days else ""
    price = hardware.GPUS[wanted.gpu].usd_per_hour
    return [
        ("shape", shape),
        (
            "time",
            f"{duration(86_400 * found.days)} on {run.gpus:,} {wanted.gpu}{late}; MFU {found.mfu:.0%}",
        ),
        ("price", f"{amount(found.usd)} USD for {amount(run.gpu_hours)} GPU-hours at {price:g} USD"),
        ("layout", found.layout.describe()),
    ]


def why(run: Larger) -> list[str]:
    """Why it is cut so, against simpler ways."""
    from gpt3core.parallel import choose

    return [] if run.found.choice is None else choose.explain(run.found.task, run.found.choice)


# --------------------------------------------------------------------------------------------------------- what is next


def settings(given: StudySettings, wanted: Asked) -> DesignSettings:
    """What analysis.design is asked: of the same runs as the study."""
    return replace(
        same_runs(given),
        target=wanted.target,
        target_compute=wanted.compute,
        largest=wanted.largest,
        batch=wanted.batch,
    )


def same_runs(given: StudySettings) -> DesignSettings:
    """What analysis.design is asked where nothing but the runs is said."""
    return DesignSettings(**{field.name: getattr(given, field.name) for field in fields(RunSettings)})


def command(given: StudySettings, wanted: Asked) -> str:
    """What to type for the same proposals."""
    return typed.command("analysis.design", settings(given, wanted))


def design(given: StudySettings, wanted: Asked) -> NextRuns:
    """What to run next.

    Raises:
        UsageError, StoreError: in one sentence.
    """
    from analysis import api

    asked_for = settings(given, wanted)
    asked_for.check()
    return api.design(asked_for)
