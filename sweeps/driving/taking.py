"""Taking a sweep: what was asked under its name and is asked now, written down before anything starts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from gpt3core import spec as specs
from gpt3core.errors import StoreError
from gpt3core.evals.spec import EvalSpec
from gpt3core.spec import RunSpec
from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from gpt3core.store.sweepdir import SweepDir, SweepRecord
from sweeps.planning import asked, limits
from sweeps.planning import recipe as recipes
from sweeps.planning.grid import Grid
from sweeps.planning.profiles import Profiles
from sweeps.planning.recipe import Recipe

WRITERS = 16  # specifications are written side by side: each waits for the disk


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A sweep to drive."""

    sweep: SweepDir
    runs: tuple[RunSpec, ...]  # all that was asked, in order
    evals: EvalSpec
    record: SweepRecord
    damage: tuple[str, ...] = ()  # sentences
    profiles: Profiles | None = None  # that place themselves: the sweep's runs grow with its results


def take(recipe: Recipe, cells: Grid, sweep: SweepDir) -> Taken:
    """Join what a command asks to what was asked under the name before, and write it down; under ``sweep.owned()``.

    What is damaged is set aside and said: it concerns its run, never the sweep.

    Raises:
        UsageError: when runs asked before would drop out and the recipe does not say that they may.
    """
    before, damage = _before(sweep)
    share = recipe.prune.by_value
    asked_now = {run.run_id: run for run in cells.asked(before.runs if before else ())}
    joined = asked.union(before, list(asked_now), replace=recipe.replace, extend=recipe.extend)
    runs, places = [], {run.data.corpus_sha256: run.data.corpus for run in cells.runs}
    for run_id in joined.runs:
        try:
            runs.append(asked_now.get(run_id) or _moved(RunDir(sweep.root, run_id).spec(), places))
        except StoreError as error:
            damage.append(f"run {run_id}, which was asked before, stays out: {error}")
    record = SweepRecord(
        runs=joined.runs,
        evals=cells.evals,
        numerics=before.numerics if before else {},
        not_taken=before.not_taken if before and set(before.runs) == set(joined.runs) else (),
        min_tokens=recipe.min_tokens,
        few_shot=before.few_shot if before else {},
        pruned={} if before is None else {i: f for i, f in before.still_pruned(share).items() if i in joined.runs},
        deadline_began=_deadline_began(recipe, before),
    )
    sweep.write_record(record)
    sweep.write_recipe(recipes.to_yaml(recipe))
    if before and (again := sorted(set(before.pruned) & set(joined.runs) - set(record.pruned))):
        sweep.event("unpruned", runs=again)
    if joined.dropped:
        sweep.event("dropped", runs=list(joined.dropped))
    with ThreadPoolExecutor(WRITERS) as pool:
        damage += [sentence for sentence in pool.map(lambda run: _create(sweep, run), runs) if sentence]
    return Taken(
        sweep=sweep,
        runs=tuple(runs),
        evals=cells.evals,
        record=record,
        damage=tuple(damage),
        profiles=cells.profiles,
    )


def add(sweep: SweepDir, record: SweepRecord, runs: Sequence[RunSpec]) -> tuple[SweepRecord, list[str]]:
    """Join runs that were decided on since to a sweep, written down before any of them starts; and what was damaged."""
    damage = [sentence for run in runs if (sentence := _create(sweep, run))]
    joined = replace(record, runs=(*record.runs, *(run.run_id for run in runs if run.run_id not in record.runs)))
    sweep.write_record(joined)
    return joined, damage


def _deadline_began(recipe: Recipe, before: SweepRecord | None) -> float | None:
    """From when a duration counts: from the first command that gave one, whatever was started again since."""
    if recipe.limit.deadline is None or not limits.is_duration(recipe.limit.deadline):
        return None
    return before.deadline_began if before and before.deadline_began else time.time()


def _moved(run: RunSpec, places: Mapping[str, str]) -> RunSpec:
    """An earlier run, its text looked for where the runs asked now have the same one."""
    return replace(run, data=replace(run.data, corpus=places.get(run.data.corpus_sha256, run.data.corpus)))


def _before(sweep: SweepDir) -> tuple[SweepRecord | None, list[str]]:
    """The sweep's record; a damaged one is set aside, and what it alone knew is forgotten aloud."""
    try:
        return sweep.record(), []
    except StoreError as error:
        aside = files.set_aside(sweep.path / "sweep.json")
        return None, [
            f"sweep {sweep.name}: its record was damaged ({error}) and set aside as {aside}: runs asked before and not "
            "now are forgotten, unless they are asked again"
        ]


def _create(sweep: SweepDir, run: RunSpec) -> str:
    """Write a run's specification, unless it is there; a sentence where a damaged one was."""
    folder = RunDir(sweep.root, run.run_id)
    path = folder.path / "spec.json"
    with contextlib.suppress(OSError):
        if files.read_bytes(path) == specs.to_json(run).encode():
            return ""
    try:
        folder.create(run)
        return ""
    except StoreError as error:
        if not path.exists():
            raise
        aside = files.set_aside(path)
        folder.create(run)
        return f"run {run.run_id}: its specification was damaged ({error}), set aside as {aside} and written again"
