"""The command behind the entry points: read the recipe, then show its plan or drive it."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt3core import anomaly, cli
from gpt3core.errors import StoreError, UsageError
from gpt3core.store import places, rundir, soundness
from gpt3core.store.sweepdir import SweepDir, SweepRecord
from sweeps.driving import spending
from sweeps.planning import asked, estimate, grid, placing, precedence, recipe, rules
from sweeps.planning import text as texts
from sweeps.planning.grid import Grid
from sweeps.planning.idle import idle
from sweeps.planning.recipe import Recipe
from sweeps.planning.text import Text

if TYPE_CHECKING:
    from sweeps.driving.view import Outcome

FLAGS = ("--plan", "--keys", "--help")
DONE, FAILED, DAMAGED, LIMITED, INTERRUPTED = 0, 1, 3, 4, 130
NAMED = 20  # runs that a remark lists


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a command asks for, read and checked; nothing is started."""

    recipe: Recipe
    grid: Grid
    text: Text
    root: Path
    record: SweepRecord | None  # of the sweep's name, before this command
    idle: list[str]  # settings that change nothing here

    @property
    def run_ids(self) -> list[str]:
        """Of the runs asked."""
        return [run.run_id for run in self.grid.asked(self.record.runs if self.record else ())]

    @cached_property
    def answerable(self) -> tuple[str, list[str]]:
        """Why the tasks cannot be asked, empty where they can; and what to know of them."""
        return texts.answerable(self.grid.runs, self.grid.evals)


def sweep(argv: Sequence[str], usage: str) -> int:
    """Run a sweep command.

    The exit code is 0 when done, 1 when runs failed, 3 when done but a checkpoint was damaged, 4 when a limit was
    reached before all were done.

    Raises:
        UsageError, StoreError: for what cannot be run (2), in one sentence.
    """
    settings, flags = cli.split(argv, FLAGS)
    if "--help" in flags:
        print(usage)
        store = places.portable(rundir.default_root())
        print(f"recipes: {', '.join(recipe.available())}, or the path of a .yaml file; store: {store}")
        return DONE
    if "--keys" in flags:
        print(recipe.to_yaml(recipe.load(settings), commands=True), end="")
        return DONE
    order = read(settings)
    if "--plan" in flags:
        _show(order)
        return DONE
    refuse(order)
    return _drive(order)


def read(settings: Sequence[str]) -> Order:
    """What the settings ask for.

    Raises:
        UsageError, StoreError: when they describe no runs, their text is missing or too small, or the sweep's record is
            unreadable.
    """
    from gpt3core.data import corpus  # numpy, which --help and --keys do without

    chosen = recipe.load(settings)
    try:
        fingerprint = corpus.fingerprint(chosen.data.corpus)
    except OSError as error:
        raise UsageError(f"data.corpus={chosen.data.corpus:.200}: not readable ({error.strerror})") from error
    cells = grid.build(chosen, fingerprint)
    text = texts.describe(cells.runs, cells.evals)
    if cells.profiles is not None:
        cells = grid.build(chosen, fingerprint, text.fresh_tokens)
    root = rundir.default_root()
    if (root / "store.json").exists():
        rundir.open_root(root, create=False)  # one of another version is not understood, so not planned on either
    else:
        places.refresh(root)
    return Order(
        recipe=chosen,
        grid=cells,
        text=text,
        root=root,
        record=_record(SweepDir(root, chosen.name)),
        idle=idle(settings, chosen, cells),
    )


def _record(sweep: SweepDir) -> SweepRecord | None:
    """What was asked before; a damaged record says nothing, and the driver sets it aside aloud."""
    try:
        return sweep.record()
    except StoreError as error:
        print(f"{error}; it is set aside when the sweep is driven", file=sys.stderr)
        return None


def refuse(order: Order) -> None:
    """Refuse what may be planned but not run.

    Raises:
        UsageError: where the text is too small, runs would drop out of the sweep, or a run needs what is not built.
    """
    if reasons := _refusals(order):
        raise UsageError(reasons[0])
    asked.union(order.record, order.run_ids, replace=order.recipe.replace, extend=order.recipe.extend)


def _refusals(order: Order) -> list[str]:
    """Why the order may be planned and not run."""
    runs = order.grid.runs
    reasons = texts.refusal(order.text, order.recipe, runs), _misfit(order), order.answerable[0]
    return [reason for reason in reasons if reason]


def _misfit(order: Order) -> str:
    """Why a run cannot be placed as the recipe says: what to say before anything starts."""
    for run in order.grid.runs:
        try:
            estimate.placed(run, placing.own(order.recipe, run.label))
        except UsageError as error:
            return str(error)
    return ""


def _show(order: Order) -> None:
    from sweeps.planning import show

    order, outlook = _expected(order)
    chosen, runs = order.recipe, order.grid.runs
    trained = {run_id for run_id in (run.run_id for run in runs) if rundir.RunDir(order.root, run_id).trained}
    pruned = set(_pruned(order)) - trained
    remarks = [*outlook, *_remarks(order), precedence.ruled_out(chosen), _forgotten(order), *_met(order, trained)]
    remarks += _limited(order, trained, pruned)
    remarks += [f"only to plan, not to run as it stands: {reason}" for reason in _refusals(order)]
    show.show(chosen, order.grid, order.text, trained, [remark for remark in remarks if remark], pruned)
    remote = places.of(order.root)
    how = soundness.choose(order.root) if remote is None else remote.how
    print(f"store: {places.portable(order.root)}, kept for one driver a sweep and one worker a run by {how}")


def _limited(order: Order, trained: Set[str], pruned: Set[str]) -> list[str]:
    """What fits the limits and what falls out."""
    from sweeps.planning import fitting

    if order.recipe.limit == recipe.Limit():
        return []
    chosen, sweep, runs = order.recipe, SweepDir(order.root, order.recipe.name), order.grid.runs
    used, now = spending.so_far(sweep), time.time()
    hours = used.gpu_hours if chosen.placement.gpus else used.core_hours
    left = [run for run in runs if run.run_id not in trained and run.run_id not in pruned]

    def choose(*words: Any) -> Sequence[int]:
        from sweeps.driving import informative  # the laws, which a plan without limits does without

        return informative.choose(*words).runs

    began = order.record.deadline_began if order.record else None
    taken = fitting.Taken(hours=hours, usd=used.usd, deadline_began=began, now=now)
    return fitting.lines(chosen, left, [run for run in runs if run.run_id in trained], taken, choose)


def _expected(order: Order) -> tuple[Order, list[str]]:
    """With the runs that profiles would have by what the store knows, and words on them; any other order as it is."""
    profiles = order.grid.profiles
    if profiles is None:
        return order, []
    from sweeps.driving import profiling
    from sweeps.driving.results import held_out_loss
    from sweeps.driving.run_state import Phase

    before, losses = order.record.runs if order.record else (), {}
    phases = dict.fromkeys(before, Phase.WAITING)
    for run_id in before:
        folder = rundir.RunDir(order.root, run_id)
        if folder.trained:
            phases[run_id] = Phase.DONE
            with contextlib.suppress(StoreError):  # a damaged table is set aside, and made again, by the driver
                if (found := held_out_loss(folder, order.grid.evals)) is not None:
                    losses[run_id] = found[0]
    runs, words = profiling.expected(profiles, phases, losses)
    return replace(order, grid=replace(order.grid, runs=runs)), words


def _met(order: Order, trained: Set[str]) -> list[str]:
    """Which of the trained runs left updates out or went back, and whose result cannot be read."""
    told, found = [], []
    for run_id in (run.run_id for run in order.grid.runs if run.run_id in trained):
        try:
            result = rundir.RunDir(order.root, run_id).sound_result()
        except StoreError as error:
            found.append(f"run {run_id}: its result is damaged ({error}); it is set aside when the sweep is driven")
            continue
        if words := anomaly.told(result or {}):
            told.append(f"{run_id} {words}")
    more = f"; and {len(told) - NAMED} more" if len(told) > NAMED else ""
    return [*found[:NAMED], *([f"trained past anomalies: {'; '.join(told[:NAMED])}{more}"] if told else [])]


def _remarks(order: Order) -> list[str]:
    """What to know of a sweep that may run, whether it is planned or driven."""
    found = [f"{word} changes none of these runs, nor how they are evaluated" for word in order.idle]
    if order.record is not None and (lost := set(order.record.evals.questions) - set(order.grid.evals.questions)):
        tasks = ", ".join(sorted({task for task, *_ in lost}))
        found.append(f"asked before under this name and not so now, so those answers are not shown nor fitted: {tasks}")
    if order.record is not None and order.record.pruned:
        stay, before = _pruned(order), len(set(order.record.pruned) & set(order.run_ids))
        goes = f"; {before - len(stay)} go on" if before > len(stay) else ""
        found.append(f"{len(stay)} of {before} runs pruned before stay pruned{goes} (prune.by_value)")
    found += rules.told(order.recipe.optim.rule, order.grid.runs)  # type: ignore[attr-defined]
    if repeated := texts.repeated(order.text, order.recipe, order.grid.runs):
        found.append(repeated)
    return [*found, *order.answerable[1]]


def _pruned(order: Order) -> list[str]:
    """The runs asked that were pruned before and stay so."""
    before, share = order.record, order.recipe.prune.by_value
    return [] if before is None else [i for i in before.still_pruned(share) if i in set(order.run_ids)]


def _forgotten(order: Order) -> str:
    """What the command would do to runs that its sweep has beside those asked; empty where it has none."""
    missing = asked.forgotten(order.record, order.run_ids)
    if not missing:
        return ""
    said = asked.sentence(missing, order.run_ids)
    if order.recipe.extend:
        return f"{said}: extend=true keeps them in the sweep"
    if order.recipe.replace:
        return f"{said}: replace=true drops them from the sweep"
    return f"{said}: to run this, give it another name (name=...), extend=true or replace=true"


def _drive(order: Order) -> int:
    from sweeps.cluster import head

    try:
        return _driven(order)
    except head.HeadLostError as error:
        head.leave(str(error))


def _driven(order: Order) -> int:
    from sweeps.cluster.launcher import Launcher
    from sweeps.driving import driver, progress, taking

    chosen, root = order.recipe, order.root
    sweep = SweepDir(root, chosen.name)
    with sweep.owned():
        taken = taking.take(chosen, order.grid, sweep)
        store = f"store {places.portable(root)}, one driver by a {sweep.mechanism}"
        count = len(taken.runs)
        print(f"sweep {chosen.name}: {count} run{'s' * (count != 1)}, {store}", flush=True)
        for remark in _remarks(order):
            print(remark, flush=True)
        launcher = Launcher(driver.namespace(root, chosen.name))
        if launcher.local:
            print("no cluster was named by RAY_ADDRESS: started a local Ray for this sweep", flush=True)
        try:
            display = progress.display()
            try:
                driven = driver.Driver(chosen, taken, launcher, display)
                outcome = driven.drive()
            finally:
                display.close()
        finally:
            launcher.close()
    return _conclude(sweep, len(driven.states), outcome)


def _saved(sweep: SweepDir, outcome: Outcome) -> str:
    """How many runs were pruned, and the FLOPs that this saved."""
    record = sweep.record() if outcome.pruned else None
    if record is None:
        return ""
    flops = sum(record.pruned[i].get("saved_flops", 0.0) for i in outcome.pruned if i in record.pruned)
    return f", {len(outcome.pruned)} pruned (which saved {flops:.2g} FLOPs)"


def _conclude(sweep: SweepDir, total: int, outcome: Outcome) -> int:
    held = f", {len(outcome.held)} held" if outcome.held else ""
    held += f", {len(outcome.beyond)} beyond the limit" if outcome.beyond else ""
    without = f", {len(outcome.not_taken)} not needed" if outcome.not_taken else ""
    failed, saved = f"{len(outcome.failed)} failed", _saved(sweep, outcome)
    store = places.portable(sweep.root)
    print(f"{len(outcome.done)} of {total} run{'s' * (total != 1)} done, {failed}{held}{saved}{without}; store {store}")
    for sentence in outcome.told:
        print(f"  {sentence}")
    for run_id, reason in outcome.pruned.items():
        print(f"  pruned {run_id}: {reason}")
    for run_id, reason in {**outcome.failed, **outcome.held}.items():
        print(f"  {run_id}: {reason}")
    if outcome.limited:
        print(outcome.limited)
    if outcome.interrupted:
        print("interrupted: start the same command again to go on where it stopped")
        return INTERRUPTED
    if outcome.failed or outcome.held:
        return FAILED
    if outcome.done:
        print(f"next: python -m analysis.fit runs={store} sweep={sweep.name}")
    for sentence in outcome.damage:
        print(f"  {sentence}")
    if outcome.limited:
        return LIMITED
    return DAMAGED if outcome.damage else DONE
