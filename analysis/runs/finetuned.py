"""What fine-tuned runs answer, as rows beside what their parents answer to prompts.

A row has the columns of an evaluation, ``run_id`` of the fine-tuned run, and three that a prompt's row lacks:
``parent`` (the run that it went on from), ``trained_on`` (labelled examples) and ``seed``.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from analysis.runs.tidy import Runs
from gpt3core.errors import StoreError
from gpt3core.store.rundir import RunDir
from gpt3core.store.sweepdir import SweepDir, SweepRecord, finetuning

METRIC = "classifier"  # of a row that a fine-tuned run's classifier answered
OWN = ("parent", "trained_on", "seed")
OF_TEXT = ("loss", "loss_se", "bits_per_byte", "draw")


def read(root: Path, sweep: str) -> list[pd.DataFrame]:
    """The rows of all finished runs that go on from runs of a sweep."""
    return [rows for _, record in finetuning(root, sweep) for rows in _of(root, record)]


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
        known = {"parent": spec.parent.run_id, "trained_on": spec.labelled.count, "seed": spec.seed}
        found.append(rows.assign(run_id=run_id, **known))
    return found


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

    Columns: task, way ("fine-tuned on 32", "0-shot"), run_id (of the parent), accuracy, accuracy_se, chance, runs. The
    standard error is that of the questions, or of the seeds where these scatter more. Only tasks that some run was
    fine-tuned on; no row where there is none.
    """
    evals = runs.evals
    if evals.empty or "parent" not in evals:
        return pd.DataFrame()
    tuned = evals[evals.parent.notna()]
    prompts = evals[evals.parent.isna() & evals.task.isin(tuned.task) & evals.run_id.isin(tuned.parent)]
    prompts = prompts[prompts.fits.astype(bool)].assign(way=lambda rows: [f"{k}-shot" for k in rows.shots])
    tuned = tuned.assign(run_id=tuned.parent, way=[f"fine-tuned on {int(n):,}" for n in tuned.trained_on])
    every = pd.concat([prompts.assign(order=prompts.shots), tuned.assign(order=1e6 + tuned.trained_on)])
    if "content" in every:  # another file's questions under the same name are another task
        every["content"] = every.content.fillna("")
        last = dict(zip(tuned.task, tuned.get("content", pd.Series("", tuned.index)).fillna(""), strict=True))
        every = every[every.content == every.task.map(last)]
    groups = every.groupby(["task", "order", "way", "run_id"], sort=True)
    found = groups.agg(
        accuracy=("accuracy", "mean"),
        of_items=("accuracy_se", "mean"),
        of_seeds=("accuracy", "sem"),
        chance=("chance", "first"),
        items=("items", "first"),
        runs=("accuracy", "size"),
    ).reset_index()
    found["accuracy_se"] = found[["of_items", "of_seeds"]].max(axis=1)
    return found.drop(columns=["of_items", "of_seeds", "order"])
