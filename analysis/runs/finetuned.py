"""What fine-tuned runs answer, as rows beside what their parents answer to prompts.

A row has the columns of an evaluation, ``run_id`` of the fine-tuned run, and some that a prompt's row lacks: ``parent``
(the run that it went on from), ``trained_on`` (labelled examples), ``seed``, and by which rules it was trained (RULES).
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from analysis.runs.tidy import Runs
from gpt3core.errors import StoreError
from gpt3core.evals.spec import QUESTION
from gpt3core.spec import RunSpec
from gpt3core.store.rundir import RunDir
from gpt3core.store.sweepdir import SweepDir, SweepRecord, finetuning

METRIC = "classifier"  # of a row that a fine-tuned run's classifier answered
OF_TEXT = ("loss", "loss_se", "bits_per_byte", "draw")
RULES = ("lr", "epochs", "batch", "warmup_steps", "lm_weight", "dropout")  # what runs may differ in beside the seed


def read(root: Path, sweep: str) -> list[pd.DataFrame]:
    """The rows of all finished runs that go on from runs of a sweep, each once, whatever sweeps it is in."""
    found = [rows for _, record in finetuning(root, sweep) for rows in _of(root, record)]
    if not found:
        return []
    every = pd.concat(found, ignore_index=True)
    return [every.drop_duplicates([name for name in ("run_id", *QUESTION) if name in every])]


def _of(root: Path, record: SweepRecord) -> list[pd.DataFrame]:
    found = []
    for run_id in record.runs:
        run = RunDir(root, run_id)
        table = run.evaluation(record.evals.eval_id) if run.trained else None
        if table is None:
            continue
        spec = run.spec()
        assert spec.labelled is not None and spec.parent is not None, "a run that is fine-tuned"
        rows = table[table.metric == METRIC].drop(columns=list(OF_TEXT), errors="ignore")
        count, parent = spec.labelled.count, spec.parent.run_id
        found.append(rows.assign(run_id=run_id, parent=parent, trained_on=count, seed=spec.seed, **_rules(spec)))
    return found


def _rules(spec: RunSpec) -> dict[str, float]:
    """By which rules a run was trained."""
    what, optim = spec.labelled, spec.optim
    assert what is not None, "a run that is fine-tuned"
    batch = optim.batch_tokens // spec.unit_tokens
    steps = optim.warmup_tokens // optim.batch_tokens
    values = (optim.lr, spec.steps * batch / what.count, batch, steps, what.lm_weight, what.dropout)
    return dict(zip(RULES, values, strict=True))


def refuse(root: Path, sweep: str) -> None:
    """Say which sweep has the law, where one is named that fine-tunes another's runs.

    Raises:
        StoreError: for such a sweep.
    """
    path = SweepDir(root, sweep)
    record = path.record()
    if record is not None and record.finetunes:
        raise StoreError(
            f"the sweep {sweep} fine-tunes runs of {record.finetunes}, and none of its own is a point of a law: give "
            f"sweep={record.finetunes}, whose report shows what they answer"
        )


def beside_prompts(runs: Runs) -> pd.DataFrame:
    """One row a parent, task and way of asking: how, and the accuracy, averaged over seeds.

    Columns: task, asked (the task, its file and the number of questions), tuned or not, examples (shown, or trained
    on), way ("0-shot", "fine-tuned on 32", and what differs where runs of one parent differ in more than the seed),
    run_id (of the parent), accuracy, accuracy_se (of the questions, or of the seeds where these scatter more), baseline
    (the larger of chance and always giving the likeliest answer), items, runs. Only what some run that was fine-tuned
    was asked; no row where there is none.
    """
    evals = runs.evals
    if evals.empty or "parent" not in evals:
        return pd.DataFrame()
    tuned, prompts = _asked(evals[evals.parent.notna()]), _asked(runs.prompts)
    prompts = prompts[prompts.asked.isin(tuned.asked) & prompts.run_id.isin(tuned.parent) & prompts.fits.astype(bool)]
    prompts = prompts.assign(way=[f"{k}-shot" for k in prompts.shots], tuned=False, examples=prompts.shots)
    tuned = tuned.assign(run_id=tuned.parent, way=_ways(tuned), tuned=True, examples=tuned.trained_on.astype(int))
    every = pd.concat([prompts, tuned])
    every["baseline"] = every[["chance", "prior_accuracy"]].max(axis=1)
    found = every.groupby(["task", "asked", "tuned", "examples", "way", "run_id"]).agg(
        accuracy=("accuracy", "mean"),
        of_items=("accuracy_se", "mean"),
        of_seeds=("accuracy", "sem"),
        baseline=("baseline", "max"),
        items=("items", "first"),
        runs=("accuracy", "size"),
    )
    found["accuracy_se"] = found[["of_items", "of_seeds"]].max(axis=1)
    return found.reset_index().drop(columns=["of_items", "of_seeds"])


def _asked(rows: pd.DataFrame) -> pd.DataFrame:
    """With which questions were asked: those of another file under the same name, or fewer, are others."""
    content = rows.content.fillna("") if "content" in rows else ""
    return rows.assign(asked=rows.task + content + " " + rows["items"].astype(int).astype(str))


def _ways(tuned: pd.DataFrame) -> list[str]:
    """Of every row how it was trained: the examples, and the rules in which runs of one parent on as many differ."""
    alike = tuned.groupby(["asked", "trained_on", "parent"])
    differ = [name for name in RULES if (alike[name].nunique() > 1).any()]
    told = tuned[differ].to_dict("records")
    return [
        f"fine-tuned on {int(count):,}" + "".join(f", {name} {value:.10g}" for name, value in rules.items())
        for count, rules in zip(tuned.trained_on, told, strict=True)
    ]
