"""Few-shot re-evaluation: one job a checkpoint for all that is missing, beside a job for every question.

``python -m tests.benchmarks.few_shot_jobs [--runs 3] [--repeats 3]``. Small runs are trained on a small text; then 3
tasks x 3 numbers of examples x 2 draws of the examples (15 questions, for without examples there is one draw) are asked
of each, by the workers' own job body in this process: no start of a worker and no scheduling is counted, which every
further job would pay too. Both ways in turn on copies of the store; medians. The scores must be the same.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from gpt3core import run as runs
from gpt3core.evals.spec import EvalSpec, question
from gpt3core.numerics import Numerics
from gpt3core.spec import RunSpec
from gpt3core.store.rundir import RunDir, open_root
from sweeps.cluster import worker
from sweeps.cluster.job import Assignment, Job
from sweeps.scheduling.inventory import Resources
from tests.benchmarks.target import target
from tests.conftest import make_run, write_corpus

FIRST = EvalSpec(items=50, validation_tokens=2048)
TASKS, SHOTS, DRAWS = ("addition_2", "subtraction_2", "multiplication_2"), (0, 1, 4), 2
ASKED = EvalSpec(tasks=TASKS, shots=SHOTS, seeds=DRAWS, items=50, validation_tokens=2048)


def one_by_one() -> list[EvalSpec]:
    """An evaluation a question: a second draw is asked once the first is known."""
    parts = [replace(ASKED, tasks=(task,), shots=(shots,)) for task in TASKS for shots in SHOTS]
    return [replace(part, seeds=n) for part in parts for n in range(1, (DRAWS if part.shots[0] else 1) + 1)]


def ask(root: Path, specs: Sequence[RunSpec], evaluations: Sequence[EvalSpec]) -> None:
    """Each evaluation of each run as a job."""
    for spec in specs:
        for evals in evaluations:
            numerics = Numerics(precision="fp32", kernel="softmax")
            job = Job(spec=spec, evals=evals, root=root, device="cpu", numerics=numerics)
            work = Assignment(
                entry="sweeps.cluster.worker:evaluate",
                run_id=spec.run_id,
                job=job,
                node="n",
                shape=Resources(cpus=1),
            )
            report = worker.perform(work, lambda live: None, lambda: False)
            assert report.state == "done", report.error


def scores(root: Path, specs: Sequence[RunSpec]) -> dict[tuple[object, ...], float]:
    """What every question was answered with."""
    rows = [(spec.run_id, row) for spec in specs for row in RunDir(root, spec.run_id).measurements()]
    return {(run_id, *question(row)): row["logprob"] for run_id, row in rows if row["task"] in TASKS}


def timed(action: Callable[[], None]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    """Measure and print."""
    settings = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    count, repeats = int(settings.get("--runs", 3)), int(settings.get("--repeats", 3))
    ways = {"one job a checkpoint": [ASKED], "one job a question": one_by_one()}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ISOFLOP_CACHE"] = str(Path(folder) / "cache")
        root, text = open_root(Path(folder) / "root", create=True), write_corpus(Path(folder) / "text")
        tiny = [make_run(text, seed=seed, steps=12, width=32) for seed in range(count)]
        specs = [replace(spec, model=replace(spec.model, n_ctx=128)) for spec in tiny]
        for spec in specs:
            runs.run(spec, FIRST, root)
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        found = {}
        for k in range(repeats):
            for name, evaluations in ways.items():
                copy = Path(shutil.copytree(root, Path(folder) / f"{name}-{k}"))
                times[name].append(timed(lambda at=copy, asked=evaluations: ask(at, specs, asked)))  # type: ignore[misc]
                found[name] = scores(copy, specs)
        assert found["one job a checkpoint"] == found["one job a question"]
        assert len(found["one job a checkpoint"]) == count * (len(ASKED.questions) - 1)
    medians = {name: [statistics.median(side) for side in zip(*rows, strict=True)] for name, rows in times.items()}
    for name, (wall, cpu) in medians.items():
        jobs = count * len(ways[name])
        print(f"{name:22s} {jobs:3d} jobs  {wall:6.2f} s  {cpu:6.2f} CPU s  {1000 * cpu / jobs:6.0f} ms a job")
    wall, cpu = (a / b for a, b in zip(medians["one job a checkpoint"], medians["one job a question"], strict=True))
    print(f"one job a checkpoint takes {wall:.2f} of the time and {cpu:.2f} of the CPU time, with the same scores")
    target("one_job_over_many_cpu_time", cpu, "<", 1)


if __name__ == "__main__":
    main()
