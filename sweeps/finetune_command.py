"""The command behind sweeps/finetune.py: which runs go on from which, drive them, and ask their parents by prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gpt3core import cli, costs
from gpt3core.errors import StoreError, UsageError
from gpt3core.evals import tasks
from gpt3core.evals.spec import EvalSpec
from gpt3core.spec import RunSpec
from gpt3core.store import rundir
from gpt3core.store.rundir import RunDir
from gpt3core.store.sweepdir import NAME, SweepDir, SweepRecord
from sweeps import fewshot_command
from sweeps.fewshot_command import DONE, FAILED, INTERRUPTED, MOST_SEEDS
from sweeps.planning import checks, estimate, finetuned, grid
from sweeps.planning.finetuned import Rules, Source
from sweeps.planning.recipe import Evals, Recipe

if TYPE_CHECKING:
    from sweeps.driving.hands import Cluster
    from sweeps.driving.progress import Display
    from sweeps.driving.view import Outcome


@dataclass
class Finetune:
    """What is asked."""

    sweep: str | None = None
    runs: list[str] = field(default_factory=list)
    task: str = "copy"
    file: list[str] = field(default_factory=list)  # of the questions, and of what is trained on
    examples: list[int] = field(default_factory=lambda: [32, 128, 512])
    seeds: int = 1
    items: int | None = None  # questions; by default as many as the sweep asked
    shots: list[int] = field(default_factory=lambda: [0, 1, 8])
    name: str | None = None  # of the sweep that these runs make up; by default SWEEP-finetuned-TASK
    train: Rules = field(default_factory=Rules)


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a command comes to; nothing is started."""

    recipe: Recipe
    sweep: SweepDir
    base: SweepDir
    numerics: dict[str, dict[str, str]]  # that the parents' sweep has settled
    runs: list[RunSpec]
    evals: EvalSpec
    left_out: int  # examples that ask what is asked
    prompts: fewshot_command.Order | None  # what the parents are asked
    done: set[str]


def finetune(argv: Sequence[str], usage: str) -> int:
    """The command: 0 when all is done, 1 when a run failed, 130 when interrupted.

    Raises:
        UsageError, StoreError: for what cannot be run (2), in one sentence.
    """
    words, flags = cli.split(argv, ("--plan", "--keys", "--help"))
    if "--help" in flags:
        print(usage)
        return DONE
    placed = [word for word in words if word.startswith("placement.")]
    given = cli.settings(Finetune(), [word for word in words if word not in placed] + ["--keys"] * ("--keys" in flags))
    order = read(given, placed)
    _say(order)
    reason, told = ("", []) if order.prompts is None else fewshot_command.answerable(order.prompts)
    for sentence in told:
        print(f"prompts: {sentence}")
    if "--plan" in flags:
        _plan(order)
        if reason:
            print(f"only to plan, not to run as it stands: {reason}")
        return DONE
    if reason:
        raise UsageError(f"shots={given.shots}: {reason}")
    return _drive(order)


def read(given: Finetune, placed: Sequence[str] = ()) -> Order:
    """What settings come to.

    Args:
        placed: words on placement, over those of the parents' sweep.

    Raises:
        UsageError, StoreError: in one sentence.
    """
    root = rundir.open_root(rundir.default_root(), create=False)
    base, record = fewshot_command.the_sweep(root, given.sweep)
    recipe = fewshot_command.placement(base, placed)
    if not 1 <= given.seeds <= MOST_SEEDS:
        raise UsageError(f"seeds={given.seeds}: draws of the examples, from 1 to {MOST_SEEDS}")
    if not given.examples or min(given.examples) < 1 or len(set(given.examples)) < len(given.examples):
        raise UsageError(f"examples={given.examples}: numbers of examples to train on, each once, like [32,128,512]")
    evals = _evals(given, record)
    parents = _parents(root, record, given.runs)
    source, left_out = _source(given, evals, parents)
    try:
        runs = finetuned.runs(parents, source, given.examples, given.seeds, given.train)
        for run in runs:
            estimate.placed(run, recipe)
    except ValueError as error:
        raise UsageError(str(error)) from error
    sweep = SweepDir(root, _name(given, base))
    _before(sweep, base.name, evals)
    prompts = None
    if given.shots:
        with fewshot_command.own_keys():
            asked = replace(evals, shots=tuple(given.shots))
        prompts = fewshot_command.order(base, record, recipe, asked, [parent.run_id for parent, _ in parents])
    return Order(
        recipe=recipe,
        sweep=sweep,
        base=base,
        numerics=record.numerics,
        runs=runs,
        evals=evals,
        left_out=left_out,
        prompts=prompts,
        done={run.run_id for run in runs if RunDir(root, run.run_id).evaluated(evals.eval_id)},
    )


def _evals(given: Finetune, record: SweepRecord) -> EvalSpec:
    """The task as the classifier is asked it; its files by default those of the sweep."""
    files = {given.task: given.file} if given.file else record.evals.of(given.task).files
    if not files and given.task in tasks.TASKS and (fields := tasks.fields(tasks.TASKS[given.task])):
        raise UsageError(
            f"task={given.task}: its examples come from a file: give file=[QUESTIONS,EXAMPLES], lines of JSON with "
            f"{fields}"
        )
    rules = Evals(
        tasks=[given.task],
        shots=[0],
        items=record.evals.items if given.items is None else given.items,
        files=files,
        validation_tokens=record.evals.validation_tokens,
    )
    with fewshot_command.own_keys(tasks="task", **{f"files.{given.task}": "file"}):
        checks.check_evals(rules)
        return grid.asked(rules)


def _parents(root: Path, record: SweepRecord, asked: Sequence[str]) -> list[tuple[RunSpec, int]]:
    """The runs that are fine-tuned, and their last steps: those asked for, or the longest of every size."""
    found: list[tuple[RunSpec, int]] = []
    for run_id in fewshot_command.chosen(record, asked):
        run = RunDir(root, run_id)
        result = run.sound_result()
        problem = ""
        if result is None:
            problem = "is not trained"
        elif result["status"] == "diverged":
            problem = "diverged"
        elif int(result["steps"]) not in run.checkpoint_steps():
            problem = f"has lost its last checkpoint ({run.checkpoints})"
        if problem and asked:
            raise StoreError(f"run {run_id} {problem}, so it cannot be fine-tuned: leave it out of runs=[...]")
        if not problem and result is not None:
            found.append((run.spec(), int(result["steps"])))
    if not found:
        raise StoreError("the sweep has no run that is trained and has its last checkpoint, so none can be fine-tuned")
    if asked:
        return found
    longest: dict[str, tuple[RunSpec, int]] = {}
    for spec, step in sorted(found, key=lambda parent: (-parent[0].tokens, parent[0].seed, parent[0].run_id)):
        longest.setdefault(spec.label, (spec, step))
    return sorted(longest.values(), key=lambda parent: costs.params(parent[0].model).nonembedding)


def _source(given: Finetune, evals: EvalSpec, parents: Sequence[tuple[RunSpec, int]]) -> tuple[Source, int]:
    """The examples, and how many of them ask what is asked."""
    from gpt3core.data import shards
    from gpt3core.evals import examples

    texts = {parent.data for parent, _ in parents}
    if len(texts) > 1:
        raise UsageError(f"the runs were trained on {len(texts)} texts or tokenizers: give runs=[...] of one")
    data = texts.pop()
    try:
        paths, _ = evals.source(given.task)
        found = examples.of_task(given.task, evals.items, shards.prepare(data), data.tokenizer, paths)
    except ValueError as error:
        raise UsageError(str(error)) from error
    source = Source(task=given.task, files=paths, held_out=evals.items, training=found.training, asked=found.asked)
    return source, found.left_out


def _name(given: Finetune, base: SweepDir) -> str:
    name = given.name or f"{base.name}-finetuned-{given.task}"
    if not NAME.fullmatch(name):
        raise UsageError(f"name={name:.100}: it names a folder, so letters, digits, dots, dashes and underscores only")
    return name


def _before(sweep: SweepDir, base: str, evals: EvalSpec) -> SweepRecord | None:
    """What was asked under the name; only more of the same may be asked."""
    record = sweep.record()
    if record is None:
        return None
    if record.finetunes != base:
        kind = f"fine-tunes {record.finetunes}" if record.finetunes else "trains runs of its own"
        raise UsageError(f"name={sweep.name}: there is a sweep of that name, which {kind}; give another name")
    if record.evals.eval_id != evals.eval_id:
        raise UsageError(
            f"name={sweep.name}: its runs are asked other questions (other files, or items={record.evals.items} where "
            f"now items={evals.items}); give another name, or the same questions"
        )
    return record


def _say(order: Order) -> None:
    first = order.runs[0]
    assert first.labelled is not None
    what = first.labelled
    answers = f"{len(what.classes)} classes" if what.classes else f"{what.ways} choices"
    print(
        f"sweep {order.sweep.name}: {len(order.runs)} fine-tuning runs of {order.base.name} on {what.source} "
        f"({what.form.replace('_', ' ')}, {answers}, at most {what.length} tokens a sequence), {order.evals.items} "
        f"questions each; {len(order.done)} are done; store {order.sweep.root}",
        flush=True,
    )
    if order.left_out:
        print(f"{order.left_out} training examples ask what is asked, and are left out", flush=True)


def _plan(order: Order) -> None:
    place, seconds = order.recipe.placement, 0.0
    for run in order.runs:
        assert run.labelled is not None and run.parent is not None
        state = "done" if run.run_id in order.done else "to do"
        print(
            f"  {run.run_id}: step {run.parent.step} of {run.parent.run_id}, {run.labelled.count} examples, seed "
            f"{run.seed}, {run.steps} steps at lr {run.optim.lr:.3g}; {state}"
        )
        if run.run_id not in order.done:
            seconds += estimate.seconds(run, workers=place.workers, gpus=place.gpus, plan=order.recipe.plan)
    missing = 0 if order.prompts is None else len(order.prompts.jobs)
    device = "GPU" if place.gpus else "core"
    print(
        f"about {seconds * place.workers * (place.gpus or place.cpus) / 60:,.2g} {device}-minutes with their "
        f"evaluation; then {missing} parents are asked by prompts"
    )


def drive(order: Order, cluster: Cluster, display: Display) -> Outcome:
    """Train what is missing; under ``order.sweep.owned()``."""
    from sweeps.driving import driver, taking
    from sweeps.planning import recipe as recipes

    new = SweepRecord(runs=(), evals=order.evals, numerics=order.numerics, finetunes=order.base.name)
    before = _before(order.sweep, order.base.name, order.evals) or new  # what another command may have added since
    order.sweep.write_recipe(recipes.to_yaml(replace(order.recipe, name=order.sweep.name)))
    record, damage = taking.add(order.sweep, before, order.runs)
    taken = taking.Taken(
        sweep=order.sweep, runs=tuple(order.runs), evals=order.evals, record=record, damage=tuple(damage)
    )
    return driver.Driver(order.recipe, taken, cluster, display).drive()


def _drive(order: Order) -> int:
    from sweeps.cluster.launcher import Launcher
    from sweeps.driving import driver, progress

    launcher = Launcher(driver.namespace(order.sweep.root, order.sweep.name))
    if launcher.local:
        print("no cluster was named by RAY_ADDRESS: started a local Ray for this", flush=True)
    outcomes = []
    try:
        with order.sweep.owned():
            outcomes.append(_shown(lambda display: drive(order, launcher, display), progress.display()))
        if order.prompts is not None and order.prompts.jobs and not outcomes[0].interrupted:
            prompts = order.prompts
            with prompts.sweep.owned():
                outcomes.append(
                    _shown(lambda display: fewshot_command.drive(prompts, launcher, display), progress.display())
                )
    finally:
        launcher.close()
    return conclude(order, outcomes)


def _shown(work: Callable[[Display], Outcome], display: Display) -> Outcome:
    try:
        return work(display)
    finally:
        display.close()


def conclude(order: Order, outcomes: Sequence[Outcome]) -> int:
    """Say how it ended; the exit code."""
    trained, asked = outcomes[0], outcomes[1] if len(outcomes) > 1 else None
    beside = f"; {len(asked.done)} of its parents asked by prompts, {len(asked.failed)} failed" if asked else ""
    print(
        f"{len(trained.done)} of {len(order.runs)} runs fine-tuned, {len(trained.failed)} failed{beside}; store "
        f"{order.sweep.root}"
    )
    problems = {run_id: reason for o in outcomes for run_id, reason in {**o.failed, **o.held}.items()}
    for run_id, reason in problems.items():
        print(f"  {run_id}: {reason}")
    if any(outcome.interrupted for outcome in outcomes):
        print("interrupted: start the same command again to go on where it stopped")
        return INTERRUPTED
    print(f"next: python -m dashboards.report runs={order.sweep.root} sweep={order.base.name}")
    return FAILED if problems else DONE
