"""The loop of a sweep: look at the store and the workers, let the scheduler decide, act; until every run is settled.

The store is the truth: a run is done if and only if it has its result. A driver that starts again therefore trains
only what is missing, adopts the workers that go on, and resumes the rest from their checkpoints.
"""

from __future__ import annotations

import hashlib
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, Protocol

from gpt3core import costs
from gpt3core import spec as specs
from gpt3core.errors import StoreError
from gpt3core.spec import RunSpec
from gpt3core.store import files
from gpt3core.store.rundir import RunDir, open_root
from gpt3core.store.sweepdir import SweepDir, SweepRecord
from sweeps.cluster.launcher import Update
from sweeps.driving import adaptive
from sweeps.driving.progress import Display, Snapshot
from sweeps.planning import estimate as planning
from sweeps.planning import recipe as recipes
from sweeps.planning.grid import Grid
from sweeps.planning.recipe import Recipe
from sweeps.scheduling import scheduler
from sweeps.scheduling.inventory import Allocation, Inventory, Resources
from sweeps.scheduling.scheduler import Hold, Job, Refuse, Running, Start

TICK_SECONDS = 0.25
BUSY_SECONDS = 5.0  # before looking again at a run that another process has
STOP_SECONDS = 60.0  # for checkpoints, after Ctrl-C
TRAIN = "sweeps.cluster.worker:train"
PREPARE = "sweeps.cluster.worker:prepare"
PREPARATION = "preparation"


class Cluster(Protocol):
    """What the driver needs of a launcher."""

    def inventory(self) -> Inventory: ...  # noqa: D102
    def running(self) -> list[Running]: ...  # noqa: D102
    def others(self) -> list[Running]: ...  # noqa: D102
    def poll(self) -> list[Update]: ...  # noqa: D102
    def start(  # noqa: D102
        self, run_id: str, allocation: Allocation, shape: Resources, entry: str, payload: dict[str, Any]
    ) -> None: ...
    def stop(self) -> None: ...  # noqa: D102


@dataclass(kw_only=True)
class Outcome:
    """How a sweep ended."""

    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    not_taken: list[str] = field(default_factory=list)  # runs that an adaptive sweep did without
    damage: list[str] = field(default_factory=list)
    interrupted: bool = False


@contextmanager
def owned(root: Path, name: str) -> Iterator[Path]:
    """The sweep's folder, for one driver at a time.

    Raises:
        StoreError: when another driver has it.
    """
    open_root(root, create=True)
    folder = files.make_folder(root / "sweeps" / name)
    with files.locked(folder / "driver.lock") as mine:
        if not mine:
            holder = (folder / "driver.lock").read_text().strip()
            raise StoreError(
                f"the sweep {name} in {root} has a driver already ({holder}): wait for it, stop it, or give this sweep "
                "another name (name=...) or folder (ISOFLOP_ROOT)"
            )
        yield folder


def namespace(root: Path, name: str) -> str:
    """The Ray namespace of a sweep's workers: the same for every driver of it."""
    return f"isoflop-{hashlib.sha256(f'{root}:{name}'.encode()).hexdigest()[:12]}"


class Driver:
    """Drives one sweep on one cluster."""

    def __init__(
        self,
        recipe: Recipe,
        cells: Grid,
        root: Path,
        folder: Path,
        cluster: Cluster,
        display: Display,
        *,
        entry: str = TRAIN,
    ) -> None:
        """Record the sweep in the store.

        Args:
            entry: ``module:function`` that a worker runs for each run; tests put something quick here.
        """
        self.recipe, self.root, self.folder, self.cluster, self.display = recipe, root, folder, cluster, display
        self.entry = entry
        self.evals, self.sweep = cells.evals, SweepDir(root, recipe.name)
        self.runs = {run.run_id: run for run in cells.runs}
        self.shape = Resources(cpus=recipe.placement.cpus, gpus=recipe.placement.gpus)
        self.outcome = Outcome()
        self.speedups: list[float] = []
        self.failures: dict[str, int] = {}
        self.not_before: dict[str, float] = {}
        self.ends: dict[str, float] = {}
        self.progress: dict[str, dict[str, Any]] = {}
        self.waiting: dict[str, str] = {}
        self.stopping = 0
        self.prepared = False
        self.admitted: set[str] = set() if recipe.adaptive else set(self.runs)
        self.over = ""
        self.record = self._record()
        self.sweep.write_recipe(recipes.to_yaml(recipe))
        for run in cells.runs:
            RunDir(root, run.run_id).create(run)

    def _record(self) -> SweepRecord:
        before = self.sweep.record()
        record = SweepRecord(
            runs=tuple(self.runs),  # the recipe as it is now: runs of an earlier form stay in the store
            evals=self.evals,
            numerics=before.numerics if before else {},
            min_tokens=self.recipe.min_tokens,
        )
        self.sweep.write_record(record)
        return record

    def _event(self, what: str, **details: Any) -> None:
        self.sweep.event(what, **details)

    # ----------------------------------------------------------------------------------------------------- the loop

    def drive(self) -> Outcome:
        """Run until every run is done, refused or failed for good, or until interrupted."""
        with self._signals():
            for run_id in self.runs:
                self._settle_if_done(run_id)
            before = len(self.outcome.done)
            self._event("driver", runs=len(self.runs), done=before)
            if before:
                self.display.say(f"{before} of {len(self.runs)} runs are done already")
            if len(self.outcome.done) < len(self.runs):
                # runs of an earlier driver: when they began is not known here, so they count as just begun
                for run in self.cluster.running():
                    if run.run_id in self.runs:
                        self.ends[run.run_id] = time.time() + self._seconds(self.runs[run.run_id])
                self._prepare()
                if not self.outcome.interrupted:
                    self._loop(self._act)
        self.display.close()
        return self.outcome

    def _loop(self, act: Callable[[], bool]) -> None:
        """Poll and act until ``act`` says that nothing is left, or until stopped."""
        deadline = math.inf
        while True:
            for update in self.cluster.poll():
                self._take(update)
            if self.stopping:
                if deadline == math.inf:
                    deadline = time.monotonic() + STOP_SECONDS
                    self.outcome.interrupted = True
                    self.display.say("stopping: runs write their checkpoints (Ctrl-C again to leave at once)")
                    self.cluster.stop()
                if not self.cluster.running() or self.stopping > 1 or time.monotonic() > deadline:
                    return
            elif not act():
                return
            self.display.show(self._snapshot())
            time.sleep(TICK_SECONDS)

    def _prepare(self) -> None:
        """Text and numerics first, on one worker: what is wrong with them concerns every run."""
        if self.entry != TRAIN or (self._numerics() is not None and self.cluster.running()):
            return
        shape = max(self.runs.values(), key=lambda run: costs.train_flops(run.model, run.tokens))
        payload = {"spec": specs.to_json(shape), "evals": specs.to_json(self.evals), "device": self._device()}

        def act() -> bool:
            if self.prepared:
                return False
            if not any(run.run_id == PREPARATION for run in self.cluster.running()):
                job = Job(run_id=PREPARATION, worker=self.shape, queued=0.0)
                (decision,) = scheduler.decide(
                    time.time(), self.cluster.inventory(), [job], [*self.cluster.running(), *self.cluster.others()]
                )
                if isinstance(decision, Refuse):
                    raise StoreError(f"no run can start: each {decision.reason}")
                if isinstance(decision, Start):
                    with suppress(RuntimeError):  # the cluster changed under the plan: look again
                        self.cluster.start(PREPARATION, decision.allocation, self.shape, PREPARE, payload)
            return True

        self._loop(act)

    def _act(self) -> bool:
        """Start what the scheduler says. False when nothing is left to wait for."""
        now = time.time()
        running = {run.run_id for run in self.cluster.running()}
        settled = {*self.outcome.done, *self.outcome.failed}
        if self.recipe.adaptive:
            self._admit(settled | (running & set(self.runs)))
        open_runs = [self.runs[i] for i in self.runs if i in self.admitted - settled - running]
        if not open_runs and not running & set(self.runs):  # workers on runs of an earlier recipe are not waited for
            return False
        queue = [self._job(run) for run in open_runs if self.not_before.get(run.run_id, 0.0) <= now]
        holding = [replace(run, ends=self.ends.get(run.run_id, math.inf)) for run in self.cluster.running()]
        holding += self.cluster.others()
        reasons: dict[str, str] = {}
        for decision in scheduler.decide(now, self.cluster.inventory(), queue, holding):
            if isinstance(decision, Start):
                self._start(self.runs[decision.run_id], decision.allocation, now)
            elif isinstance(decision, Refuse):
                self._fail(decision.run_id, decision.reason)
            elif isinstance(decision, Hold):
                reasons[decision.run_id] = decision.reason
        delayed = {run.run_id for run in open_runs if self.not_before.get(run.run_id, 0.0) > now}
        self.waiting = {**reasons, **{run_id: self.waiting.get(run_id, "") for run_id in sorted(delayed)}}
        return True

    def _admit(self, taken: set[str]) -> None:
        """Take the next run once none that was taken waits: the choice is made with all that is known by then."""
        self.admitted |= taken
        if self.over or self.admitted - taken:
            return
        losses = {}
        for run_id in self.outcome.done:
            result = RunDir(self.root, run_id).result() or {}
            if result.get("status") == "done" and "loss" in result:
                losses[run_id] = float(result["loss"])
        found = adaptive.next_run(self.recipe, self.runs, losses, taken, self._seconds)
        if found.run_id is not None:
            self.admitted.add(found.run_id)
        elif found.over:
            self.over = found.over
            self.outcome.not_taken = sorted(set(self.runs) - taken)
            self.record = replace(self.record, not_taken=tuple(self.outcome.not_taken))
            self.sweep.write_record(self.record)
            self.display.say(f"no further runs: {found.over}")

    def _job(self, run: RunSpec) -> Job:
        return Job(
            run_id=run.run_id, worker=self.shape, workers=self.recipe.placement.workers, seconds=self._seconds(run)
        )

    def _seconds(self, run: RunSpec) -> float:
        place, speedup = self.recipe.placement, median(self.speedups) if self.speedups else 1.0
        return planning.seconds(run, workers=place.workers, gpus=place.gpus, plan=self.recipe.plan, speedup=speedup)

    def _device(self) -> str:
        return "cuda" if self.recipe.placement.gpus else "cpu"

    def _numerics(self) -> dict[str, str] | None:
        """The sweep's choice on this kind of device, once it is made; a run whose specification wants others gets
        them.
        """
        return self.record.numerics.get(self._device())

    def _start(self, run: RunSpec, allocation: Allocation, now: float) -> None:
        gpu = planning.gpu(self.recipe.plan) if self.recipe.placement.gpus else None
        price = self.recipe.plan.usd_per_gpu_hour
        payload = {
            "spec": specs.to_json(run),
            "evals": specs.to_json(self.evals),
            "root": str(self.root),
            "device": self._device(),
            "peak_flops": gpu.peak_flops if gpu else None,
            "usd_per_hour": (gpu.usd_per_hour if price is None else price) if gpu else 0.0,
            "numerics": self._numerics(),
            "checkpoint_seconds": self.recipe.placement.checkpoint_seconds,
        }
        try:
            self.cluster.start(run.run_id, allocation, self.shape, self.entry, payload)
        except RuntimeError as error:  # the cluster changed under the plan: look again
            self.not_before[run.run_id] = now + BUSY_SECONDS
            self.waiting[run.run_id] = str(error)
            return
        self.ends[run.run_id] = now + self._seconds(run)
        self.progress[run.run_id] = {}
        self._event("start", run_id=run.run_id, allocation=dict(allocation))

    # --------------------------------------------------------------------------------------------------- what happened

    def _take(self, update: Update) -> None:
        run_id = update.run_id
        if update.state == "running":
            self.progress[run_id] = update.progress
            return
        self.progress.pop(run_id, None)
        if run_id == PREPARATION:
            self._take_preparation(update)
        elif run_id not in self.runs:
            return  # of an earlier form of the recipe; its result, if any, is in the store
        elif update.state == "done":
            self._event("done", run_id=run_id)
            if not self._settle_if_done(run_id, fresh=True):
                self._fail(
                    run_id,
                    "its worker says done, but there is no result in the store: is the folder shared by all nodes?",
                )
        elif update.state == "busy":
            self.not_before[run_id] = time.time() + BUSY_SECONDS
            self.waiting[run_id] = update.error
        elif update.state == "stopped":
            self.waiting[run_id] = "stopped, its checkpoint is written"
        else:
            self._take_failure(update)

    def _take_preparation(self, update: Update) -> None:
        if update.state == "done" and update.result is not None:
            if self._numerics() is None:
                settled = {**self.record.numerics, self._device(): update.result["numerics"]}
                self.record = replace(self.record, numerics=settled)
                self.sweep.write_record(self.record)
            numerics, data = self._numerics() or {}, update.result["data"]
            self.display.say(
                f"text: {data['tokens']['train'] / 1e6:.2f}M training and "
                f"{data['tokens']['validation'] / 1e6:.2f}M validation "
                f"tokens; numerics: {numerics['precision']}, {numerics['kernel']} attention"
            )
            for licence in update.result["licences"]:
                self.display.say(f"text licence: {licence}")
            self.prepared = True
        elif update.fatal:
            raise StoreError(update.error)
        else:
            self.failures[PREPARATION] = self.failures.get(PREPARATION, 0) + 1
            if self.failures[PREPARATION] >= self.recipe.placement.max_failures:
                raise StoreError(f"the preparation failed {self.failures[PREPARATION]} times; at last: {update.error}")

    def _take_failure(self, update: Update) -> None:
        run_id = update.run_id
        self.failures[run_id] = self.failures.get(run_id, 0) + 1
        self._event("failed", run_id=run_id, error=update.error, fatal=update.fatal, traceback=update.traceback)
        if self._settle_if_done(run_id, fresh=True):
            return
        if update.fatal or self.failures[run_id] >= self.recipe.placement.max_failures:
            self._fail(run_id, update.error)
        else:
            self.not_before[run_id] = time.time() + 2.0 ** self.failures[run_id] - 1
            self.waiting[run_id] = f"starts again after: {update.error}"
            self.display.say(f"again   {run_id}: {update.error}")

    def _fail(self, run_id: str, reason: str) -> None:
        self.outcome.failed[run_id] = reason
        self.display.say(f"failed  {run_id}: {reason}")

    def _settle_if_done(self, run_id: str, *, fresh: bool = False) -> bool:
        """Whether the run has its result; ``fresh`` reports it as news."""
        run = RunDir(self.root, run_id)
        result = run.result()
        if result is None:
            return False
        if result["status"] == "done" and not run.evaluation_path(self.evals.eval_id).exists():
            return False
        if run_id not in self.outcome.done:
            self.outcome.done.append(run_id)
            if result.get("flops_per_second"):
                per_worker = result["flops_per_second"] / max(1, result.get("devices", 1))
                place = self.recipe.placement
                expected = planning.worker_flops(self.runs[run_id], gpus=place.gpus, plan=self.recipe.plan)
                self.speedups.append(per_worker / expected)
        if fresh:
            self.outcome.damage += result.get("damage", [])
            for sentence in result.get("damage", []):
                self.display.say(f"damage  {sentence}")
            self.display.say(self._summary(run_id, result))
        return True

    def _summary(self, run_id: str, result: dict[str, Any]) -> str:
        run = self.runs[run_id]
        n = costs.params(run.model).nonembedding
        head = (
            f"done    {run_id}  N {n:>11,}  D {run.tokens / 1e6:6.2f}M  C "
            f"{costs.train_flops(run.model, run.tokens):.2e}"
        )
        if result.get("status") == "diverged":
            return f"{head}  DIVERGED"
        if "loss" not in result:
            return head
        speed = result["tokens_per_second"] / 1000
        repeats = f"  {result['epochs']:.2f} epochs" if result["epochs"] > 1 else ""
        return f"{head}  loss {result['loss']:.4f} +- {result['loss_se']:.4f}  {speed:.0f}k tok/s{repeats}"

    # ------------------------------------------------------------------------------------------------------- display

    def _snapshot(self) -> Snapshot:
        now = time.time()
        left = sum(self._seconds(self.runs[run_id]) for run_id in self.waiting if run_id in self.runs)
        for run_id, live in self.progress.items():
            if run_id in self.runs:
                share = live["step"] / live["steps"] if live else 0.0
                left += (1 - share) * self._seconds(self.runs[run_id])
        slots = max(1, len(self.cluster.running()))
        longest = max((self.ends.get(run_id, now) - now for run_id in self.progress), default=0.0)
        return Snapshot(
            name=self.recipe.name,
            total=len(self.runs),
            done=len(self.outcome.done),
            eta_seconds=max(left / slots, min(longest, left)),
            running=dict(self.progress),
            waiting=dict(self.waiting),
            failed=dict(self.outcome.failed),
        )

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def asked(*_: Any) -> None:
            self.stopping += 1

        before = {number: signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
