"""A sweep of a store as one tidy table, with its evaluations and loss curves: all that analysis reads of gpt3core."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.laws.base import Array
from analysis.note import Note
from analysis.runs import domains, finetuned
from analysis.runs.tidy import Runs, tidy
from gpt3core import anomaly, costs
from gpt3core.errors import StoreError
from gpt3core.evals.spec import HELD_OUT, SPLIT_ACCURACIES, EvalSpec, question
from gpt3core.schedule import learning_rate
from gpt3core.store import files
from gpt3core.store.places import local as place
from gpt3core.store.rundir import STOPPED_EARLY, RunDir, default_root, open_root
from gpt3core.store.sweepdir import SweepDir, SweepRecord
from gpt3core.store.sweepdir import names as sweeps
from gpt3core.words import some

__all__ = [
    "curve",
    "default_root",
    "in_flight",
    "load",
    "place",
    "rates",
    "readable_curve",
    "recipe",
    "schedule",
    "sweeps",
    "unfinished",
]

_FROM_RESULT = (
    *("status", "gpu_hours", "cost", "tokens_per_second", "mfu", "attempts", "epochs", "unique_tokens"),
    *("precision", "kernel", "noise_scale", "device_seconds"),
)
SKIPPED = "skipped"  # column of a curve: whether the step's update was left out
MOST_NAMED = 30
AT_ONCE = 256  # frames that are joined
_FROM_HELD_OUT = ("loss", "loss_se", "bits_per_byte")
_FROM_MODEL = (
    *("n_layer", "d_model", "n_head", "d_head", "n_ctx", "attention"),
    "mup_base_width",
)  # a shape without one leaves it empty


def load(root: Path, sweep: str | None = None) -> Runs:
    """Read a sweep's finished runs, diverged ones among them, sorted by run_id.

    Args:
        sweep: its name; by default the one last driven.

    Raises:
        StoreError: when there is no store, no such sweep, or no finished run in it.
    """
    name = known(root, sweep)
    record = SweepDir(root, name).record()
    assert record is not None, "a sweep is listed by its record"
    rows, missing, pruned, unmeasured, met = [], [], [], [], dict[str, str]()
    evals, prompts = _Rows(), _Rows()
    for run_id in record.runs:
        run = RunDir(root, run_id)
        measured = _measured(run, record.evals)
        row = _row(run, name, measured)
        if row is None:
            if run_id in record.pruned and not run.trained:
                pruned.append(run_id)
            elif run_id not in record.not_taken:
                missing.append(run_id)
            continue
        rows.append(row)
        if words := anomaly.told(run.result() or {}):
            met[run_id] = words
        if measured is not None and len(measured) < len(record.evals.questions):
            unmeasured.append(run_id)
        if measured is not None:
            prompts.add(scores := _scores(measured, run, record))
            evals.add(_of_most(scores))
    if not rows:
        said = f"the sweep {name} in {root} has no finished run yet ({len(missing)} are missing)"
        raise StoreError(said + _others(root, name))
    for tuned in finetuned.read(root, name):
        evals.add(tuned)
    return Runs(
        source=root,
        name=name,
        store=True,
        table=tidy(pd.DataFrame(rows)),
        evals=evals.joined(),
        prompts=prompts.joined(),
        missing=missing,
        pruned=pruned,
        unmeasured=unmeasured,
        min_tokens=record.min_tokens,
        notes=_anomalies(met),
    )


def _others(root: Path, name: str) -> str:
    """The other sweeps of a store, where there are any, and how to ask for them."""
    found = [other for other in sweeps(root, finetuned=False) if other != name]
    return f"; sweep=NAME names another: {some(found)}" if found else ""


class _Rows:
    """Rows of many runs, joined every few hundred: a frame a run, of a row or none, takes 15 kB of it."""

    def __init__(self) -> None:
        self._parts: list[pd.DataFrame] = []

    def add(self, rows: pd.DataFrame) -> None:
        if len(rows) or not self._parts:  # the first has the columns
            self._parts.append(rows)
        if len(self._parts) > AT_ONCE:
            self._parts = [self.joined()]

    def joined(self) -> pd.DataFrame:
        return pd.concat(self._parts, ignore_index=True) if self._parts else pd.DataFrame()


def _anomalies(met: dict[str, str]) -> list[Note]:
    """That runs left updates out or went back: they stay in, and whoever reads a law should know."""
    if not met:
        return []
    listed = "; ".join(f"{run_id} {words}" for run_id, words in list(met.items())[:MOST_NAMED])
    more = f"; and {len(met) - MOST_NAMED} more" if len(met) > MOST_NAMED else ""
    message = (
        f"{len(met)} runs met anomalies or fp16 overflows and went on; D and C count the tokens that they trained on: "
        f"{listed}{more}"
    )
    return [Note(code="anomalies", severity="info", message=message, runs=tuple(sorted(met)))]


def in_flight(runs: Runs) -> pd.DataFrame:
    """Runs of a sweep that were started and have neither ended nor failed: a row a run, as in the tidy table.

    A run has failed when the driver's last word on it is that it failed for good.
    """
    failed = _failed(runs.source / "sweeps" / runs.name / "events.jsonl")
    found = [RunDir(runs.source, run_id) for run_id in runs.missing if run_id not in failed]
    return pd.DataFrame([_planned(run, runs.name) for run in found if run.attempts()])


def unfinished(runs: Runs) -> pd.DataFrame:
    """Runs that were started and have no result, failed and pruned ones among them, as ``in_flight`` gives them."""
    found = [RunDir(runs.source, run_id) for run_id in [*runs.missing, *runs.pruned]]
    rows = [_planned(run, runs.name) for run in found if run.attempts()]
    return pd.DataFrame(rows).assign(status="unfinished", epochs=np.nan)


def recipe(runs: Runs) -> Path:
    """The file of a sweep's recipe."""
    return SweepDir(runs.source, runs.name).recipe


def curve(root: Path, run_id: str, columns: tuple[str, ...] | None = None) -> pd.DataFrame:
    """The loss curve of a run, one row a step: step, tokens, loss, lr, grad_norm, or the columns wanted of these.

    Steps whose update was left out are not among them.
    """
    rows = RunDir(root, run_id).curve((*columns, SKIPPED) if columns else None)
    if SKIPPED not in rows:
        return rows
    return rows[rows[SKIPPED].ne(True)].drop(columns=SKIPPED).reset_index(drop=True)


def readable_curve(root: Path, run_id: str, columns: tuple[str, ...] | None = None) -> pd.DataFrame | None:
    """The same; None of one that is damaged, for what was fitted stands without it."""
    try:
        return curve(root, run_id, columns)
    except (StoreError, OSError, ValueError):
        return None


def schedule(root: Path, run_id: str) -> tuple[Array, float]:
    """The learning rate of every step of a run, (steps,), and the FLOPs of the whole run."""
    spec = RunDir(root, run_id).spec()
    rates = [learning_rate(spec.optim, step) for step in range(spec.steps)]
    return np.array(rates), float(costs.run_costs(spec)["flops_model"])


def rates(root: Path, run_id: str, progress: Array) -> tuple[int, Array]:
    """The tokens of a whole run, and its learning rate after these shares of them, relative to the highest (n,)."""
    spec = RunDir(root, run_id).spec()
    at = [max(1, spec.optim.ramp.steps_within(round(share * spec.tokens))) - 1 for share in progress]
    peak = min(spec.steps - 1, spec.optim.ramp.steps_within(max(0, spec.optim.warmup_tokens - 1)))
    every = [learning_rate(spec.optim, step) for step in [*at, peak]]
    return spec.tokens, np.array(every[:-1]) / max(every)


def known(root: Path, sweep: str | None) -> str:
    """The sweep asked for, or the one last driven."""
    open_root(root, create=False)
    names = sweeps(root, finetuned=False)
    if not names:
        raise StoreError(f"{root} holds no sweep yet: run python sweeps/sizes.py first")
    if sweep is not None and sweep not in names:
        finetuned.refuse(root, sweep)
        raise StoreError(f"{root} holds no sweep {sweep!r}; there are {', '.join(names)}")
    return sweep or names[0]


def _failed(log: Path) -> set[str]:
    """Runs whose last event is a failure that is not tried again."""
    last = {event["run_id"]: event for event in files.read_lines(log) if "run_id" in event}
    return {run_id for run_id, event in last.items() if event["event"] == "failed"}


def _planned(run: RunDir, sweep: str, tokens: int | None = None) -> dict[str, Any]:
    """What a run's specification says of it, or would of one of other tokens."""
    spec = run.spec()
    spec = spec if tokens is None else replace(spec, tokens=tokens)
    return {
        "run_id": run.run_id,
        "sweep": sweep,
        **{name: getattr(spec.model, name, None) for name in _FROM_MODEL},
        "vocab": spec.model.vocab_size,
        "tokens": spec.tokens,
        "batch_tokens": spec.optim.batch_tokens,
        "lr": spec.optim.lr,
        "warmup_fraction": spec.optim.warmup_tokens / spec.tokens,
        "final_fraction": spec.optim.final_fraction,
        "seed": spec.seed,
        "schedule": spec.optim.schedule,
        "parent": None if spec.parent is None else f"{spec.parent.run_id}@{spec.parent.step}",
        "size": spec.label,
        "budget_flops": spec.budget_flops,
        "corpus": Path(spec.data.corpus).name,
        "corpus_sha256": spec.data.corpus_sha256,
        "held_out": domains.held_out(spec.data),
        "mixture": domains.mixture(spec.data),
        "episodes": spec.data.episodes,
        **costs.run_costs(spec),
    }


def _measured(run: RunDir, asked: EvalSpec) -> pd.DataFrame | None:
    """The evaluation asked for; where it was not made, what earlier ones answer of it; None without a held-out loss."""
    whole = run.evaluation(asked.eval_id)
    if whole is not None:
        return whole
    known = {question(row): row for row in run.measurements()}
    rows = [known[each] for each in asked.questions if each in known]
    return pd.DataFrame(rows) if rows and rows[0]["task"] == HELD_OUT else None


def _scores(measured: pd.DataFrame, run: RunDir, record: SweepRecord) -> pd.DataFrame:
    """What a run answered beside the held-out text; see _over_draws."""
    every = pd.concat([measured, *_few_shot(run, record)], ignore_index=True)
    single = [name for name in every if domains.is_of_domain(str(name))]
    scores = every[every.task != HELD_OUT].drop(columns=[*_FROM_HELD_OUT, *single])
    return _over_draws(scores).assign(run_id=run.run_id)


def _few_shot(run: RunDir, record: SweepRecord) -> list[pd.DataFrame]:
    """What was asked of a finished run beside its sweep's evaluation, as far as it was answered."""
    if not record.few_shot:
        return []
    known = {question(row): row for row in run.measurements()}
    rows = [known[asked] for asked in record.more_questions if asked in known]
    return [pd.DataFrame(rows)] if rows else []


def _over_draws(scores: pd.DataFrame) -> pd.DataFrame:
    """A row a task, number of examples, file and number of its items: the mean over draws of the examples.

    Draws share their items, so a standard error stays that of one draw: an upper bound.
    """
    if "draw" not in scores:
        return scores
    scores = scores.drop(columns="draw")
    if not scores.duplicated(["task", "shots"]).any():
        return scores
    split = [name for name in SPLIT_ACCURACIES if name in scores]
    means = dict.fromkeys(("accuracy", "accuracy_se", "logprob", "logprob_se", *split), "mean")
    rest = {name: "first" for name in scores.columns if name not in (*means, "task", "shots", "items", "content")}
    floats = scores.astype(dict.fromkeys(means, float))
    keys = ["task", "shots", "items", *(["content"] if "content" in scores else [])]
    found = floats.groupby(keys, sort=False, as_index=False, dropna=False).agg({**rest, **means})
    return found[list(scores.columns)]


def _of_most(scores: pd.DataFrame) -> pd.DataFrame:
    """A row a task and number of examples: that of the most items of one file."""
    if not scores.duplicated(["task", "shots"]).any():
        return scores
    return scores.sort_values("items", kind="stable").drop_duplicates(["task", "shots"], keep="last").sort_index()


def _trained(run: RunDir, result: dict[str, Any]) -> dict[str, Any]:
    """Tokens and compute of a run that left updates out: of those that were applied."""
    if not (skipped := int(result.get("skipped_tokens") or 0)):
        return {}
    spec = run.spec()
    return {"tokens": spec.tokens - skipped, **costs.run_costs(spec, spec.tokens - skipped)}


def _row(run: RunDir, sweep: str, measured: pd.DataFrame | None) -> dict[str, Any] | None:
    """A run that ended: trained and measured, or diverged. None for any other. One that stopped early as it was."""
    result = run.result()
    if result is None or (measured is None and result["status"] != "diverged"):
        return None
    early = result["status"] == STOPPED_EARLY
    held_out: Any = {} if measured is None else measured[measured.task == HELD_OUT].iloc[0]
    return (
        _planned(run, sweep, tokens=result["tokens"] if early else None)
        | _trained(run, result)
        | ({"parent": result["trunk"]} if result.get("trunk") else {})
        | {name: result.get(name) for name in _FROM_RESULT}
        | {name: held_out.get(name) for name in _FROM_HELD_OUT}
        | {name: value for name, value in held_out.items() if domains.is_of_domain(str(name))}
    )
