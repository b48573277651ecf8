"""The command behind sweeps/fewshot.py: which questions finished runs have not answered, and the jobs that ask them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gpt3core import cli, costs, hints
from gpt3core import spec as specs
from gpt3core.errors import StoreError, UsageError
from gpt3core.evals.spec import HELD_OUT, EvalSpec, Question, question
from gpt3core.spec import RunSpec
from gpt3core.store import rundir, sweepdir
from gpt3core.store.rundir import RunDir
from gpt3core.store.sweepdir import SweepDir, SweepRecord
from sweeps.planning import checks, estimate, grid, precedence
from sweeps.planning import recipe as recipes
from sweeps.planning import text as texts
from sweeps.planning.recipe import Evals, Recipe

if TYPE_CHECKING:
    from sweeps.driving.hands import Cluster
    from sweeps.driving.progress import Display
    from sweeps.driving.view import Outcome

DONE, FAILED, INTERRUPTED = 0, 1, 130
MOST_SEEDS = 1000
LISTED = 40  # runs that a plan names
KEY_OF_A_RECIPE = re.compile(r"(?<![\w./])evals\.(tasks|shots|items|files(?:\.\w+)?)")


@dataclass
class FewShot:
    """What is asked."""

    sweep: str | None = None
    runs: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    shots: list[int] = field(default_factory=lambda: [0, 1, 8])
    seeds: int = 1
    items: int | None = None
    files: dict[str, list[str]] = field(default_factory=dict)
    run_programs: bool = False


@dataclass(frozen=True, kw_only=True)
class Job:
    """A checkpoint, and what was not asked of it before."""

    spec: RunSpec
    missing: tuple[Question, ...]


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a command comes to; nothing is started."""

    recipe: Recipe
    sweep: SweepDir
    record: SweepRecord
    evals: EvalSpec
    jobs: list[Job]
    answered: list[str]  # runs of which nothing is missing
    skipped: dict[str, str]  # runs of which nothing can be asked any more, and why
    diverged: list[str]
    waiting: list[str]  # runs that are not trained (yet)


def few_shot(argv: Sequence[str], usage: str) -> int:
    """The command: 0 when all was asked, 1 when a run could not be.

    Raises:
        UsageError, StoreError: for what cannot be asked (2), in one sentence.
    """
    words, flags = cli.split(argv, ("--plan", "--keys", "--help"))
    if "--help" in flags:
        print(usage)
        return DONE
    placed = [word for word in words if word.startswith("placement.")]
    given = cli.settings(FewShot(), [word for word in words if word not in placed] + ["--keys"] * ("--keys" in flags))
    order = read(given, placed)
    _say(order)
    reason, told = answerable(order)
    for sentence in told:
        print(sentence)
    if "--plan" in flags:
        _plan(order)
        if reason:
            print(f"only to plan, not to run as it stands: {reason}")
        return DONE
    if reason:
        raise UsageError(reason)
    if not order.jobs:
        print("nothing is left to ask")
        return FAILED if order.skipped else DONE
    return _drive(order)


def read(given: FewShot, placed: Sequence[str] = ()) -> Order:
    """What settings come to.

    Args:
        placed: words on placement, over those of the sweep's recipe.

    Raises:
        UsageError, StoreError: in one sentence.
    """
    root = rundir.open_root(rundir.default_root(), create=False)
    sweep, record = the_sweep(root, given.sweep)
    recipe = placement(sweep, placed)
    found = order(sweep, record, recipe, _evals(given, record), chosen(record, given.runs))
    checks.check_workers(recipe, [job.spec for job in found.jobs])
    return found


def placement(sweep: SweepDir, placed: Sequence[str]) -> Recipe:
    """Where the runs of a sweep may be placed, as its recipe says, for what is done with them afterwards.

    Args:
        placed: words on placement, over those of the recipe.

    Raises:
        UsageError, StoreError: in one sentence.
    """
    if not sweep.recipe.exists():
        raise StoreError(
            f"{sweep.recipe} is gone: without it nothing says where the runs of {sweep.name} may be placed"
        )
    # of the sweep, not of what comes after it
    off = ["adaptive=false", "prune.by_value=null", *(f"limit.{name}=null" for name in ("hours", "usd", "deadline"))]
    found = recipes.load([f"recipe={sweep.recipe}", *off, *placed])
    checks.check_placements(found)
    precedence.check(found)
    return found


def order(sweep: SweepDir, record: SweepRecord, recipe: Recipe, evals: EvalSpec, run_ids: Sequence[str]) -> Order:
    """What asking runs of a sweep comes to."""
    jobs, answered, skipped, diverged, waiting = [], [], {}, [], []
    for run_id in run_ids:
        run = RunDir(sweep.root, run_id)
        try:
            spec, result = run.spec(), run.sound_result()
            if result is None:
                waiting.append(run_id)
            elif result["status"] == "diverged":
                diverged.append(run_id)
            elif result.get("steps") not in run.checkpoint_steps():
                skipped[run_id] = f"its last checkpoint is gone from {run.checkpoints}"
            elif missing := _missing(run, evals):
                jobs.append(Job(spec=spec, missing=missing))
            else:
                answered.append(run_id)
        except StoreError as error:
            skipped[run_id] = str(error)
    return Order(
        recipe=recipe,
        sweep=sweep,
        record=record,
        evals=evals,
        jobs=jobs,
        answered=answered,
        skipped=skipped,
        diverged=diverged,
        waiting=waiting,
    )


def the_sweep(root: Path, name: str | None) -> tuple[SweepDir, SweepRecord]:
    """The sweep of that name, by default the last one driven that trained runs of its own."""
    known = sweepdir.names(root)
    if not known:
        raise StoreError(f"{root} holds no sweep yet: run python sweeps/sizes.py first")
    if name is not None and name not in known:
        raise UsageError(f"sweep={name:.80}: no such sweep{hints.nearest(name, known)}; there are {', '.join(known)}")
    sweep = SweepDir(root, name or (sweepdir.names(root, finetuned=False) or known)[0])

    record = sweep.record()
    assert record is not None, "a sweep is listed by its record"
    return sweep, record


def _evals(given: FewShot, record: SweepRecord) -> EvalSpec:
    tasks = given.tasks or list(record.evals.tasks)
    if not tasks:
        raise UsageError("tasks=[]: the sweep asked none, so say which (like tasks=[copy,addition_2])")
    if not 1 <= given.seeds <= MOST_SEEDS:
        raise UsageError(f"seeds={given.seeds}: draws of the examples, from 1 to {MOST_SEEDS}")
    if given.seeds > 1 and not any(given.shots):
        raise UsageError(f"seeds={given.seeds} has no effect with shots={given.shots}: without examples none are drawn")
    items = record.evals.items if given.items is None else given.items
    with own_keys():
        rules = Evals(
            tasks=tasks,
            shots=given.shots,
            items=items,
            files={**record.evals.of(*tasks).files, **given.files},
            validation_tokens=record.evals.validation_tokens,
            run_programs=given.run_programs,
        )
        checks.check_evals(rules)
        return grid.asked(rules, given.seeds)


@contextmanager
def own_keys(**named: str) -> Iterator[None]:
    """What is wrong with ``evals`` is said by the keys of a command: without ``evals.``, or as ``named`` has it."""
    try:
        yield
    except ValueError as error:
        raise UsageError(KEY_OF_A_RECIPE.sub(lambda key: named.get(key[1], key[1]), str(error))) from error


def chosen(record: SweepRecord, asked: Sequence[str]) -> list[str]:
    """The runs of a sweep that are meant by ids, beginnings of ids or labels."""
    if not asked:
        return list(record.runs)
    found: dict[str, None] = {}
    for name in asked:
        meant = [i for i in record.runs if name in (i, i.rpartition("-")[0])]
        meant = meant or [i for i in record.runs if name and i.startswith(name)]
        if not meant:
            near = hints.nearest(name, [*record.runs, *{i.rpartition("-")[0] for i in record.runs}])
            raise UsageError(f"runs: the sweep has no run {name[:80]!r}{near}")
        found |= dict.fromkeys(meant)
    return list(found)


def _missing(run: RunDir, evals: EvalSpec) -> tuple[Question, ...]:
    known = {question(row) for row in run.measurements()}
    return tuple(asked for asked in evals.questions if asked not in known)


def answerable(order: Order) -> tuple[str, list[str]]:
    """Why what is missing cannot be asked, empty where it can, or nothing is; and what to know of it."""
    missing = {task for job in order.jobs for task, *_ in job.missing}
    tasks = [task for task in order.evals.tasks if task in missing]
    return texts.answerable([job.spec for job in order.jobs], order.evals.of(*tasks)) if tasks else ("", [])


def _say(order: Order) -> None:
    evals = order.evals
    draws = f", {evals.seeds} draws of the examples" if evals.seeds > 1 else ""
    print(
        f"sweep {order.sweep.name}: {len(evals.tasks)} tasks at {', '.join(map(str, evals.shots))} examples{draws}, "
        f"{evals.items} items each; {len(order.jobs)} checkpoints to read, {len(order.answered)} answered all of it "
        f"before, {len(order.diverged)} diverged, {len(order.waiting)} are not trained",
        flush=True,
    )
    for run_id, reason in order.skipped.items():
        print(f"  skipped {run_id}: {reason}")


def _plan(order: Order) -> None:
    """What would be asked, and at most how long it takes."""
    place, seconds = order.recipe.placement, 0.0
    for job in order.jobs[:LISTED]:
        print(f"  {job.spec.run_id}: {len(job.missing)} of {len(order.evals.questions)} evaluations are missing")
    if len(order.jobs) > LISTED:
        print(f"  and {len(order.jobs) - LISTED} more")
    for job in order.jobs:
        scored = sum(q[2] for q in job.missing if q[0] != HELD_OUT) * job.spec.model.n_ctx
        scored += sum(q[2] for q in job.missing if q[0] == HELD_OUT)
        rate = estimate.worker_flops(job.spec, gpus=place.gpus, plan=order.recipe.plan, workers=place.workers)
        seconds += costs.train_flops(job.spec.model, scored) / 3 / rate  # the forward pass alone
    device = "GPU" if place.gpus else "core"
    if not order.jobs:
        print("nothing is left to ask")
        return
    print(
        f"about {seconds * place.workers / 60:,.2g} {device}-minutes for forward passes over whole contexts (shorter "
        f"prompts take less, choices more), one job a checkpoint; store {order.sweep.root}"
    )


def drive(order: Order, cluster: Cluster, display: Display) -> Outcome:
    """Ask what is missing, a job a checkpoint; under ``order.sweep.owned()``."""
    from sweeps.driving import driver
    from sweeps.driving.taking import Taken

    before = order.sweep.record() or order.record
    record = replace(before, few_shot={**before.few_shot, order.evals.eval_id: specs.as_dict(order.evals)})
    order.sweep.write_record(record)
    taken = Taken(sweep=order.sweep, runs=tuple(job.spec for job in order.jobs), evals=order.evals, record=record)
    try:
        return driver.Driver(order.recipe, taken, cluster, display, entry=driver.EVALUATE).drive()
    except StoreError:  # nothing could be asked, of a text that does not give such a task for example
        order.sweep.write_record(replace(order.sweep.record() or record, few_shot=before.few_shot))
        raise


def _drive(order: Order) -> int:
    from sweeps.cluster.launcher import Launcher
    from sweeps.driving import driver, progress

    with order.sweep.owned():
        launcher = Launcher(driver.namespace(order.sweep.root, order.sweep.name))
        if launcher.local:
            print("no cluster was named by RAY_ADDRESS: started a local Ray for this", flush=True)
        try:
            display = progress.display()
            try:
                outcome = drive(order, launcher, display)
            finally:
                display.close()
        finally:
            launcher.close()
    return conclude(order, outcome)


def conclude(order: Order, outcome: Outcome) -> int:
    """Say how it ended; the exit code."""
    root = order.sweep.root
    print(
        f"{len(outcome.done)} of {len(order.jobs)} checkpoints asked, {len(outcome.failed)} failed, "
        f"{len(order.skipped)} skipped; store {root}"
    )
    for run_id, reason in {**outcome.failed, **outcome.held, **order.skipped}.items():
        print(f"  {run_id}: {reason}")
    if outcome.interrupted:
        print("interrupted: start the same command again to go on where it stopped")
        return INTERRUPTED
    print(f"next: python -m analysis.fit runs={root} sweep={order.sweep.name}")
    return FAILED if outcome.failed or outcome.held or order.skipped else DONE
