"""The loop of a sweep: look at the store and the workers, let the scheduler decide, act; until every run is settled.

The store is the truth: a run is done if and only if it has its result and this sweep's evaluation. A driver that
starts again therefore trains only what is missing, adopts the workers that go on, and resumes the rest from their
checkpoints. Whatever is decided by time is decided by the monotonic clock.
"""

from __future__ import annotations

import hashlib
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpt3core import costs
from gpt3core.numerics import Numerics
from gpt3core.spec import RunSpec
from gpt3core.store import places
from gpt3core.store.rundir import RunDir
from sweeps.cluster.job import Job, StartError
from sweeps.driving import preparation, results, taking, view, yielding
from sweeps.driving.deciding import Deciding
from sweeps.driving.estimates import Estimates
from sweeps.driving.hands import Cluster
from sweeps.driving.happenings import Happenings
from sweeps.driving.limiting import Limits
from sweeps.driving.nodes import Nodes
from sweeps.driving.outlook import Outlook
from sweeps.driving.preparation import Preparation
from sweeps.driving.profiling import SelfPlacing
from sweeps.driving.progress import Display, Sturdy
from sweeps.driving.proposed import Proposed
from sweeps.driving.proposers import Adaptive, Proposer, WholeGrid
from sweeps.driving.pruning import Pruning
from sweeps.driving.requests import Requests
from sweeps.driving.run_state import OPEN, Phase, RunState
from sweeps.driving.sharing import Among
from sweeps.driving.slots import Slots
from sweeps.driving.spending import Spending
from sweeps.driving.status import ENDED, INTERRUPTED, Status
from sweeps.driving.survival import Survival
from sweeps.driving.taking import Taken
from sweeps.driving.trunks import Trunks
from sweeps.driving.view import Outcome
from sweeps.planning.recipe import Recipe
from sweeps.scheduling.inventory import Allocation
from sweeps.scheduling.scheduler import Preempt, Start

TICK_SECONDS = 0.25  # between two turns while no run ends
DECIDE_SECONDS = 1.0  # the scheduler is asked that often while nothing changes but the time
DECIDE_SHARE = 50.0  # and no more often than this makes of the seconds that it takes
STOP_SECONDS = 60.0  # for checkpoints, after Ctrl-C
TRAIN = "sweeps.cluster.worker:train"
EVALUATE = "sweeps.cluster.worker:evaluate"  # runs that are trained, on more questions


def namespace(root: Path, name: str) -> str:
    """The Ray namespace of a sweep's workers: the same for every driver of it."""
    return f"isoflop-{hashlib.sha256(f'{places.portable(root)}:{name}'.encode()).hexdigest()[:12]}"


class Driver:
    """Drives one sweep on one cluster."""

    def __init__(
        self,
        recipe: Recipe,
        taken: Taken,
        cluster: Cluster,
        display: Display,
        *,
        entry: str = TRAIN,
        patience_seconds: float = 0.0,
    ) -> None:
        """Drive.

        Args:
            taken: of ``taking.take``.
            entry: ``module:function`` that a worker runs for each run; tests put something quick here.
            patience_seconds: for which it waits, without work, to be asked for more runs (``proposed``).
        """
        self.place, self.cluster, self.entry = recipe.placement, cluster, entry
        self.display = display if isinstance(display, Sturdy) else Sturdy(display)
        self.sweep, self.root, self.evals, self.record = taken.sweep, taken.sweep.root, taken.evals, taken.record
        self.estimates, self.status = Estimates(recipe), Status(self.sweep)
        self.states = {run.run_id: RunState(spec=run) for run in taken.runs}
        self.profiles = taken.profiles
        self.proposer = self._proposer(recipe)
        self.requests = Requests(self.sweep, cluster, self.display.say)
        self.proposed = Proposed(self.sweep, self.evals.eval_id, self.display.say, patience_seconds=patience_seconds)
        self.pruning = Pruning(recipe, self.sweep, self.evals, cluster, self._record, self.display.say)
        self.trunks = Trunks(self.root, self.states.values())
        self.nodes = Nodes(lambda state: self.estimates.least(state.spec), self.display.say)
        self.preparation: Preparation | None = None
        self.happenings = Happenings(
            self.sweep,
            self.evals,
            self.states,
            cluster,
            self.estimates,
            self.display.say,
            max_failures=self.place.max_failures,
        )
        self.happenings.damage += taken.damage
        self.survival = Survival(self.place, self.estimates, cluster, self.display.say)
        self.spending = Spending(self.sweep, self._price, self.happenings.note)
        self.among = Among(cluster, namespace(self.root, self.sweep.name), self.sweep.name, self.display.say)
        self.limits = self._limits(recipe)
        self.deciding = Deciding(self.limits, self.nodes, self.among)
        self.outlook = Outlook(estimates=self.estimates, spending=self.spending, limits=self.limits, cluster=cluster)
        self._seen: object = None  # what the scheduler was shown last, and when
        self._decided, self._shown, self._passed = -math.inf, -math.inf, 0.0
        self.told, self.over = list[str](), ""  # what the proposer has to say at the end; why it proposes no more
        self.begun, self.interrupts, self.interrupted = False, 0, False  # begun: whether any run has ever started

    def _limits(self, recipe: Recipe) -> Limits:
        return Limits(
            recipe=recipe,
            estimates=self.estimates,
            spending=self.spending,
            cluster=self.cluster,
            slots=Slots(cluster=self.cluster, estimates=self.estimates, among=self.among, devices=recipe.limit.devices),
            say=self.display.say,
            loss=self._loss,
            began=self.record.deadline_began,
            now=time.monotonic(),
            wall=time.time(),
        )

    def _proposer(self, recipe: Recipe) -> Proposer:
        if self.profiles is not None:
            return SelfPlacing(self.profiles, self._loss)
        return Adaptive(recipe, self._loss, self.estimates) if recipe.adaptive else WholeGrid()

    # ----------------------------------------------------------------------------------------------------- the loop

    def drive(self) -> Outcome:
        """Run until every run is done, failed for good or held, or until interrupted."""
        for sentence in self.happenings.damage:
            self.display.say(f"damage  {sentence}")
        with self.status.to_its_end(), self._signals():
            for state in self.states.values():
                self.happenings.settle_if_done(state)
            done = view.count(self.states, Phase.DONE)
            self.begun = done > 0 or self.happenings.resumes()
            self.happenings.note("driver", runs=len(self.states), done=done)
            if done:
                self.display.say(f"{done} of {len(self.states)} runs are done already")
            self.happenings.recall()
            self._adopt()
            self.pruning.look(self.states, self.record.pruned, time.monotonic())
            if self.profiles is not None and done == len(self.states):
                self._propose()
            unfinished = view.count(self.states, Phase.DONE) + view.count(self.states, Phase.PRUNED) < len(self.states)
            if unfinished:
                results.preload()
                self._prepare()
            if not self.interrupted and (unfinished or self.proposed.patience_seconds):
                self._loop(self._act)
        self._show(INTERRUPTED if self.interrupted else ENDED)
        self.display.close()
        return view.outcome(
            self.states,
            not_taken=list(self.record.not_taken) if self.over else [],
            damage=self.happenings.damage,
            interrupted=self.interrupted,
            told=self.told,
            beyond=self.limits.beyond(self.states),
            limited=self.limits.outcome(self.states, time.monotonic()),
        )

    def _loop(self, act: Callable[[float], bool]) -> None:
        """Poll and act until ``act`` says that nothing is left, or until stopped."""
        deadline = math.inf
        while True:
            now = time.monotonic()
            for update in (*self.cluster.poll(), *self.survival.look(self.states, now)):
                self.survival.heard(update, now, self.states.get(update.run_id))
                if update.run_id == preparation.NAME and self.preparation is not None:
                    self.preparation.take(update, now)
                self.happenings.take(update, now)
            self.outlook.account(self.states, now)
            if self.interrupts:
                if deadline == math.inf:
                    deadline, self.interrupted = now + STOP_SECONDS, True
                    self.display.say("stopping: runs write their checkpoints (Ctrl-C again to leave at once)")
                    self.cluster.stop()
                view.interrupt(self.states)  # again, for those that have stopped wait too
                self.among.stay(now, [replace(run, ends=deadline) for run in self.cluster.running()])
                if not self.cluster.running() or self.interrupts > 1 or now > deadline:
                    return
            elif not act(now):
                return
            self.among.renew(now)
            self.outlook.account(self.states, now)
            if now >= self._shown + TICK_SECONDS:  # a turn at an end is short: the next run waits for it
                self._show()
            self.cluster.wait(TICK_SECONDS)

    def _adopt(self) -> None:
        """Runs that an earlier driver started go on: those that are no longer asked for write a checkpoint and end."""
        now = time.monotonic()
        for run in self.cluster.running():
            if run.run_id in self.states:  # when it began is not known here, so it counts as just begun
                state = self.states[run.run_id]
                if state.phase != Phase.DONE:
                    state.queued, state.workers = now, self.survival.adopted(state, run)
                    state.started(now + self.estimates.left(state))
            elif run.run_id != preparation.NAME:
                self.cluster.stop(run.run_id)

    def _prepare(self) -> None:
        if self.entry not in (TRAIN, EVALUATE) or (self._numerics() is not None and self.cluster.running()):
            return
        if self.limits.reached(time.monotonic()):
            return  # nothing is to start
        known = [state.spec for state in self.states.values()]
        known += self.profiles.outlook() if self.profiles is not None else []
        largest = max(known, key=lambda run: costs.train_flops(run.model, run.tokens))
        self.preparation = Preparation(
            self.cluster,
            self.estimates.kind(largest),
            self._job(largest),
            self.place.max_failures,
            self.display.say,
            self.among,
            begun=self.begun,
        )
        self._loop(self.preparation.act)
        if self.preparation.result is not None and self._numerics() is None:
            self._record(numerics={**self.record.numerics, self._device(): self.preparation.result["numerics"]})
        if (numerics := self._numerics()) is not None:
            self.display.say(f"numerics: {numerics.precision}, kernel {numerics.kernel}")

    def _act(self, now: float) -> bool:
        """Start what the scheduler says. False when nothing is left to wait for."""
        self.happenings.look_again(now)
        self._admit(now)
        self._propose()
        self.requests.look(self.states, now)
        self.pruning.look(self.states, self.record.pruned, now)
        self.limits.look(self.states, now)
        open_runs = [state for state in self.states.values() if state.phase in OPEN]
        if not open_runs:
            self.among.stay(now, self.cluster.running())
            return self.proposed.waits(now)
        alive = self.cluster.inventory()
        usable = self.survival.usable(alive, open_runs, now)
        self.begun |= any(state.phase != Phase.WAITING for state in open_runs)
        if self.nodes.look(usable, open_runs, begun=self.begun, now=now):
            return True
        waiting = [s for s in open_runs if s.phase == Phase.WAITING and s.not_before <= now]
        for state in waiting:
            state.queued = state.queued or now
        queue = self.limits.queue(self.trunks.ready(waiting, now), self.states, now)
        running, others = self.cluster.running(), self.cluster.others()
        cut = self.limits.slots.cut(usable, running, others)
        self.survival.fit(self.states, queue, cut, [*running, *others], now, shared=self.among.waited_for)
        seen = (cut, queue, [run.run_id for run in running], others)
        if seen == self._seen and now < self._decided + max(DECIDE_SECONDS, self._passed * DECIDE_SHARE):
            return True
        self._seen, self._decided, began = seen, now, time.monotonic()
        holding = yielding.seen(running, self.states, self.estimates.priority, self.estimates.left, now)
        jobs = [self.estimates.job(state) for state in queue]
        decisions = self.deciding.decide(now, jobs, holding, others, cut=cut, usable=usable, alive=alive)
        self._passed = time.monotonic() - began
        for decision in decisions:
            state = self.states[decision.run_id]
            if isinstance(decision, Start):
                self._start(state, decision.allocation, now)
            elif isinstance(decision, Preempt):
                yielding.make_room(state, decision, self.cluster, self.display.say, self.happenings.note)
            else:
                state.reason = decision.reason + self.nodes.remark(state)
                state.expects = getattr(decision, "eta", None)
        return True

    def _admit(self, now: float) -> None:
        """Take the runs that others ask for."""
        if new := self.proposed.look(self.states, now):
            self._record(runs=(*self.record.runs, *new))
            for run_id in new:
                if not self.happenings.settle_if_done(self.states[run_id]):
                    self.states[run_id].wait("")  # whatever the proposer thinks of it
            self.trunks = Trunks(self.root, self.states.values())
        self.proposed.taken()

    def _propose(self) -> None:
        if self.over:
            return
        proposal = self.proposer.propose(self.states, lambda: self.limits.slots.more(self.states))
        if proposal.over:
            self.told += proposal.told
        else:
            for sentence in proposal.told:
                self.display.say(sentence)
        self._add(proposal.new)
        for run_id in proposal.take:
            self.states[run_id].wait("")
        if proposal.over:
            self.over = proposal.over
            spare = tuple(i for i, state in self.states.items() if state.phase == Phase.SPARE)
            self._record(not_taken=spare)
            self.display.say(f"no further runs: {proposal.over}")

    def _add(self, runs: Sequence[RunSpec]) -> None:
        """Runs that the sweep did not have; one that another sweep has trained is done."""
        if not runs:
            return
        self.record, damage = taking.add(self.sweep, self.record, runs)
        self.happenings.damaged(damage)
        for run in runs:
            self.states[run.run_id] = state = RunState(spec=run)
            if not self.happenings.settle_if_done(state, fresh=True):
                state.wait("")
        self.happenings.note("added", runs=[run.run_id for run in runs])
        self.trunks = Trunks(self.root, self.states.values())

    def _start(self, state: RunState, allocation: Allocation, now: float) -> None:
        try:
            job = replace(
                self._job(state.spec, state.workers),
                prefix=state.prefix,
                keep=self.trunks.keep(state),
                peak_flops=self.estimates.peak_flops(state.spec, self.spending.accelerators(allocation)),
                usd_per_hour=self.spending.price(state.run_id, allocation),
                halvings=state.tally.halvings,
            )
            self.cluster.start(state.run_id, allocation, self.estimates.kind(state.spec).worker, self.entry, job)
        except StartError as error:
            self.happenings.misstarted(state, str(error), now)
            return
        state.begun(now + (left := self.estimates.begun(state)))
        self.happenings.note("start", run_id=state.run_id, allocation=dict(allocation), expected_seconds=round(left, 1))

    def _job(self, run: RunSpec, workers: int | None = None) -> Job:
        return Job(
            spec=run,
            evals=self.evals,
            root=places.portable(self.root),
            device=self._device(),
            threads=max(1, int(self.estimates.own(run).placement.cpus)),
            numerics=self._numerics(),
            checkpoint_seconds=self.place.checkpoint_seconds,
            layout=self.estimates.layout(run, workers),
            hang_seconds=self.place.hang_seconds,
        )

    def _device(self) -> str:
        return "cuda" if self.place.gpus else "cpu"

    def _numerics(self) -> Numerics | None:
        """What "auto" means in this sweep on this kind of device, once that is settled."""
        chosen = self.record.numerics.get(self._device())
        return Numerics(**chosen) if chosen else None

    def _record(self, **changes: Any) -> None:
        self.record = replace(self.record, **changes)
        self.sweep.write_record(self.record)

    def _price(self, run_id: str, accelerator: str) -> float:
        state = self.states.get(run_id)
        return self.estimates.price(None if state is None else state.spec, accelerator)

    def _loss(self, run_id: str) -> float | None:
        measured = results.held_out_loss(RunDir(self.root, run_id), self.evals)
        return measured[0] if measured is not None else None

    def _show(self, how: str = "driving") -> None:
        self._shown = now = time.monotonic()
        eta = None if self.interrupted else self.outlook.eta(self.states, now)
        snapshot = view.snapshot(self.sweep.name, self.states, self.preparation, eta, self.survival.avoided.told)
        self.display.show(snapshot)
        self.status.tell(
            snapshot,
            self.happenings.damage,
            nodes=len(self.cluster.inventory()),
            state=how,
            more=lambda: self.outlook.plain(self.states, now, time.time()),
        )

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def asked(*_: Any) -> None:
            self.interrupts += 1

        before = {number: signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
