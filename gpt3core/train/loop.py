"""The training of one run: update, checkpoint, and resume to the same bits."""

from __future__ import annotations

import functools
import math
import os
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from gpt3core import pulse, schedule, trunk
from gpt3core.data import loader as loaders
from gpt3core.data import shards as shard_cache
from gpt3core.data.shards import Shards
from gpt3core.errors import StoppedError
from gpt3core.numerics import Numerics
from gpt3core.options import rate_factor
from gpt3core.parallel import gradients
from gpt3core.parallel.mesh import Mesh
from gpt3core.parallel.parallelize import Held, parallelize
from gpt3core.parallel.parts import local
from gpt3core.parallel.whole import Whole
from gpt3core.spec import RunSpec
from gpt3core.store import files
from gpt3core.store.rundir import STOPPED_EARLY, RunDir
from gpt3core.train import noise_scale, optimizer, resume, spent, timing
from gpt3core.train.anomaly import NOT_FINITE, Guard, Verdict
from gpt3core.train.batches import Batches, Loader
from gpt3core.train.early_stop import EarlyStop
from gpt3core.train.noise_scale import NoiseScale
from gpt3core.train.process import settle_process
from gpt3core.train.readback import Readback
from gpt3core.train.saving import Saves
from gpt3core.train.snapshot import finite
from gpt3core.train.spent import Devices, Spent
from gpt3core.trunk import Prefix

REPORT_SECONDS = 0.5
BEGUN = ("step", "trunk", "damage", "threads", "micro_batch", "compile")  # what an attempt's log says of its start
COLUMNS = ("step", "tokens", "loss", "lr", "grad_norm")
SKIPPED = "skipped"  # column of a run that may leave updates out: whether the step's was
VALIDATION = "validation_loss"  # column of a run that may stop early


def _process() -> dict[str, Any]:
    """Where this rank runs, for whoever looks for what it printed."""
    return {"host": os.uname().nodename, "pid": os.getpid()}


def of_text(spec: RunSpec, data: Shards) -> Loader:
    """The loader of a run that trains on text."""
    return loaders.Loader(data.train, n_ctx=spec.model.n_ctx, seed=spec.seed)


class Trainer:
    """The state of a run in this process."""

    verdict: Verdict | None = None  # on the last update, where it was not applied

    def __init__(
        self,
        spec: RunSpec,
        root: Path,
        *,
        suggested: Numerics | None = None,
        device: str = "cpu",
        threads: int = 1,
        mesh: Mesh | None = None,
        checkpoint_seconds: float = 10.0,
        report: Callable[[dict[str, Any]], None] = lambda _: None,
        stop: Callable[[], bool] = lambda: False,
        damage: Sequence[str] = (),
        prefix: Prefix | None = None,
        keep: Collection[int] = (),
        halvings: int = 0,
        devices: Devices | None = None,
        folder: RunDir | None = None,
        deal: Callable[[RunSpec, Shards], Loader] = of_text,
    ) -> None:
        """Prepare the data, the model, and the latest sound checkpoint.

        Args:
            suggested: the sweep's choice of numerics; the one recorded with the run, if any, wins over it.
            threads: of one operation on the CPU; the number recorded with the run, if any, wins over it.
            mesh: this process's place among the ranks; rank 0 writes the logs.
            report: called about twice a second with live progress.
            stop: asked at every step; true means checkpoint and raise StoppedError (on a GPU a step later).
            damage: what was found damaged in the run's folder before.
            prefix: where another run has done the first steps, for a run that has no checkpoint of its own.
            keep: steps whose checkpoints stay, for others to start from; that before the decay does in any case.
            halvings: of the micro-batch, for want of memory.
            devices: of all ranks, for what the training cost; by default without a price or a known peak.
            folder: the run's, claimed by this process; by default nobody is kept from writing it too.
            deal: makes the loader of its batches.
        """
        settle_process(device, threads)
        self.spec, self.dir, self.device, self.mesh = spec, folder or RunDir(root, spec.run_id), device, mesh or Mesh()
        self.devices = devices or Devices(count=self.mesh.world_size)
        self.report, self.stop, self.keep = report, stop, frozenset({*keep, trunk.stable_steps(spec)} - {0})
        self.data, self.loader = self._prepared(deal)
        self.attempt_name = self.mesh.first(lambda: self.dir.new_attempt().name)
        self.attempt = self.dir.path / self.attempt_name if self.mesh.rank == 0 else None
        unreadable = self._choose_arithmetic(suggested, threads, prefix, halvings)
        self.held = self._built()
        self.model = self.held.model
        self.optimizer = optimizer.build(self.model, spec.optim)
        self.damage = [*damage, *unreadable, *self._restored(prefix)]
        self.batches, self.saves = self._dealt(), self._saves(checkpoint_seconds)
        self._log_start()

    @pulse.busy("preparing the text")
    def _prepared(self, deal: Callable[[RunSpec, Shards], Loader]) -> tuple[Shards, Loader]:
        data = self.mesh.together(lambda: shard_cache.prepare(self.spec.data))
        return data, self.mesh.together(lambda: deal(self.spec, data))

    def _saves(self, least: float) -> Saves:
        trained = self.model, self.optimizer, self.mesh
        return Saves(self.dir, self.attempt_name, *trained, device=self.device, least=least)

    def _log_start(self) -> None:
        begun = {name: getattr(self, name) for name in BEGUN} | vars(self.numerics)
        self.event("start", **begun, layout=vars(self.mesh.layout), **_process())

    @pulse.busy("choosing its arithmetic")
    def _choose_arithmetic(
        self, suggested: Numerics | None, threads: int, prefix: Prefix | None, halvings: int
    ) -> list[str]:
        """Settle precision, kernel, threads, micro-batch and compilation; what was unreadable of a former choice."""
        asked = self.spec, suggested, threads, self.device, prefix, self.mesh, halvings
        chosen, unreadable = self.mesh.first(lambda: resume.arithmetic(self.dir, *asked))
        self.threads, self.micro_batch, self.compile = (chosen.pop(n) for n in ("threads", "micro_batch", "compile"))
        chosen.pop("halvings", None)
        self.numerics = Numerics(**chosen)
        settle_process(self.device, self.threads)
        return unreadable

    def _begin(self, state: dict[str, Any]) -> None:
        """Take up what a checkpoint says beside its tensors."""
        self.step, self.first_step = state["step"], state["first_step"]
        self._before = spent.before(state, self.devices)  # this attempt
        self.train_seconds = self._before.train_seconds
        self.trunk: str | None = state["trunk"]  # whose checkpoint the run began from
        self.guard = Guard(self.spec, state)
        self._observe(state)

    def _observe(self, state: dict[str, Any]) -> None:
        """Take up what a checkpoint says that the run had observed of itself."""
        observed = state["observed"]
        self.early = EarlyStop(self.spec.options, observed.get("early_stop"))
        self.noise = NoiseScale(self.spec.noise_scale_every, self.mesh, observed.get("noise_scale"))

    @pulse.busy("building the model")
    def _built(self) -> Held:
        """What this rank holds of the model, its weights not yet drawn."""
        autocast = functools.partial(timing.autocast, self.numerics, self.device)
        how: dict[str, Any] = {"kernel": self.numerics.kernel, "compiled": self.compile}
        how |= {"options": self.spec.options, "seed": self.spec.seed, "labelled": self.spec.labelled}
        return parallelize(self.spec.model, self.mesh, device=self.device, autocast=autocast, **how)

    @pulse.busy("reading its checkpoint")
    def _restored(self, prefix: Prefix | None) -> list[str]:
        """Begin where the run stands; what was found damaged."""
        state, damaged = resume.restore(self.dir, self.spec, self.model, self.optimizer, self.mesh, prefix)
        self._begin(state)
        return damaged

    def _dealt(self) -> Batches:
        """This rank's part of the batches."""
        return Batches(
            loader=self.loader,
            objective=self.spec.objective,
            mesh=self.mesh,
            device=self.device,
            micro_batch=self.micro_batch,
            document_end=self.spec.model.document_end,
        )

    def event(self, what: str, **details: Any) -> None:
        """Note something in the attempt's log (rank 0)."""
        if self.attempt is not None:
            self.dir.event(self.attempt, what, **details)

    # ---------------------------------------------------------------------------------------------------- training

    def train(self, held_out: Callable[[], float] | None = None) -> str:
        """Train to the last step. Returns "done", "diverged" or STOPPED_EARLY; raises StoppedError.

        Args:
            held_out: measures the validation loss, of a run that may stop early.
        """
        with self.saves:  # however it ends, nothing is written after it
            return self._train(held_out)

    def _train(self, held_out: Callable[[], float] | None) -> str:
        rows: dict[str, list[Any]] = {name: [] for name in self.columns}
        readback, started = Readback(self.device), time.monotonic()
        reported, before = started, self.train_seconds
        while self.step < self.spec.steps and not self.early.stopped:
            lr = schedule.learning_rate(self.spec.optim, self.step)
            lr *= rate_factor(self.spec.options, self.spec.seed, self.step)
            with pulse.busy("in its first step", computes=True) if readback.fresh else pulse.beating():
                said = self._update(lr)
            self.step += 1
            known = {"tokens": self.spec.tokens_at(self.step), "lr": lr, "beside": self._observed(held_out)}
            readback.add(said, step=self.step, **known)
            last = self.step == self.spec.steps or self.early.stopped
            save = last or self.step in self._kept()
            told = readback.read(everything=save or self.guard.active)
            if any(step.stop or step.due for step in told):
                told, save = [*told, *readback.read(everything=True)], True
            stopping = any(step.stop for step in told)
            now = time.monotonic()
            self.train_seconds = before + now - started
            for step in told:
                for name, column in rows.items():
                    column.append(step[name])
                if not (step.finite or self.guard.active):
                    self.step = step.step
                    return self._diverged(NOT_FINITE, rows)
            if told and now - reported >= REPORT_SECONDS:
                reported = now
                self.progress("training", told[-1].loss)
            if ended := self._heed(self.verdict, rows):
                return self._diverged(ended, rows)
            if self.verdict is not None and self.verdict.action == "rollback":
                continue  # the checkpoint there does not know of it: a stop or a save waits for a step that was gained
            if save:
                if self.mesh.agree(not self._finite()):  # the last update has no next loss to show it
                    if ended := self._lost(rows):
                        return self._diverged(ended, rows)
                    continue
                self._save(rows, waited=time.monotonic() - now)
                rows = {name: [] for name in self.columns}
                if stopping or last or self.step in self.keep:
                    self.saves.wait()
            if stopping and not last:
                self.event("stopped", step=self.step)
                raise StoppedError
        return STOPPED_EARLY if self.early.stopped else "done"

    @property
    def columns(self) -> tuple[str, ...]:
        """Of the metrics: those that every run has, and what this one is asked to observe."""
        skipped = (SKIPPED,) if self.guard.active else ()
        scale = noise_scale.COLUMNS if self.spec.noise_scale_every else ()
        return (*COLUMNS, *skipped, *scale, *((VALIDATION,) if self.early.on else ()))

    def _observed(self, held_out: Callable[[], float] | None) -> dict[str, Any]:
        """The values of the columns that not every run has; NaN where nothing was measured at this step."""
        values = {SKIPPED: self.verdict is not None, **self.noise.row, VALIDATION: math.nan}
        goes_on = self.verdict is None or self.verdict.action == "skip"
        if goes_on and self.early.due(*(self.spec.tokens_at(step) for step in (self.step - 1, self.step))):
            assert held_out is not None, "a run that may stop early is told how to measure"
            values[VALIDATION] = loss = held_out()
            self.held.reshard()
            self.early.look(loss)
            if self.early.stopped:
                self.event("stopped early", step=self.step, lowest=self.early.lowest)
        return values

    def _update(self, lr: float) -> Tensor:
        """One optimizer step, without waiting for the device.

        Returns:
            Where the device is: the batch's loss (nats per token), the gradient's norm before clipping, and the number
            of ranks that were asked to stop and that find a checkpoint due. The loss is the mean over the targets that
            count in the global batch, however they fall on micro-batches and ranks.
        """
        step = self.batches.take(*self.guard.sequences(self.step))
        share = self.mesh.terms / max(1.0, step.counted)  # the ranks' means are averaged
        scale = self.guard.scale
        loss = self.noise.backward(
            self.held, step.examples, share if scale is None else share * scale.value, self.step + 1
        )
        if scale is not None:
            loss = scale.undo(self.model, loss)
        before_mean = self.noise.of_ranks(step.counted, self.step + 1)
        wishes = self.stop(), self.saves.due()
        clip, averaged = self.spec.optim.clip, self.held.averaged
        said = gradients.finish(self.model, self.mesh, loss, clip, wishes, before_mean, averaged=averaged)
        # the device is waited for here only where the numbers decide about the update, or are measured
        self.verdict = self.guard.judge(self.step, *said[:2].tolist()) if self.guard.active else None
        norm = said[1].item() if self.noise.due(self.step + 1) else math.nan
        self.noise.take(norm, step.counted, self.step + 1)
        optimizer.set_rate(self.optimizer, lr)
        self.saves.release()
        if self.verdict is None:
            self.optimizer.step()
        self.optimizer.zero_grad()
        return said

    @property
    def spent(self) -> Spent:
        """In all attempts."""
        return self._before.plus(self.train_seconds - self._before.train_seconds, self.devices)

    @functools.cached_property  # one of which the first answers alone are the first
    def answers(self) -> Any:
        """The model as an evaluation asks it, all of it on every rank."""
        cut = self.mesh.layout.model_parallel * self.mesh.layout.shard > 1
        return Whole(self.held, self.spec.model, self.mesh) if cut else self.model

    def _finite(self) -> bool:
        """Whether every weight is a number."""
        return finite(local(p) for p in self.model.parameters())

    def _heed(self, verdict: Verdict | None, rows: dict[str, list[Any]]) -> str:
        """Do what was decided about an update that was not applied; why the run ends, if it does."""
        if verdict is None:
            return ""
        details = dict(vars(verdict))
        self.event(details.pop("event"), **details)
        if verdict.action == "stop":
            return verdict.reason
        if verdict.action == "rollback":
            self._roll_back(verdict.step - 1, rows)
        return ""

    @pulse.busy("going back to a checkpoint")
    def _roll_back(self, step: int, rows: dict[str, list[Any]]) -> None:
        """Go back to before what is passed over around an update, and take the rows since from the curve."""
        self.saves.wait()  # its checkpoint may be the one that is wanted, or one that goes
        at_most = self.guard.target(step)
        state, damaged = resume.restore(self.dir, self.spec, self.model, self.optimizer, self.mesh, at_most=at_most)
        self.step, number = state["step"], self.guard.history.anomalies
        self.guard.rewound(state)
        self._observe(state)
        self.mesh.first(lambda: self.dir.forget_after(self.step, self.attempt_name, number, rows))
        for column in rows.values():
            column.clear()
        self.event("rolled back", step=self.step, passed_tokens=self.guard.passed_tokens, damage=damaged)

    def _lost(self, rows: dict[str, list[Any]]) -> str:
        """What to do about weights that are not finite, which are not saved; why the run ends, if it does."""
        reason = "the weights are not finite"
        if self.spec.anomaly.policy != "rollback":
            return reason
        if self.step < self.spec.steps and not self.early.stopped:
            return ""  # the next loss shows it, whenever a checkpoint was due
        return self._heed(self.guard.met(self.step - 1, reason), rows)

    def _kept(self) -> frozenset[int]:
        """The steps whose checkpoints stay, as far as they are known now."""
        return self.keep.union(self.guard.marks(self.step))

    def _diverged(self, reason: str, rows: dict[str, list[Any]]) -> str:
        """Note the end of a run that diverged, and keep its curve."""
        self.saves.wait()
        self.event("diverged", step=self.step, reason=reason)
        self.mesh.first(lambda: self._write_metrics(rows))
        return "diverged"

    def _write_metrics(self, rows: dict[str, list[Any]]) -> None:
        assert self.attempt is not None
        self.dir.write_metrics(self.attempt, rows)

    def _save(self, rows: dict[str, list[Any]], *, waited: float = 0.0) -> None:
        """Begin to write the curve so far and a checkpoint, of all ranks or of none."""
        observed = {"early_stop": self.early.state(), "noise_scale": self.noise.state()}
        state = {**vars(self.spent), "first_step": self.first_step, "trunk": self.trunk}
        state |= {"observed": observed, **self.guard.state}
        self.saves.begin(self.step, state, rows, keep=self._kept(), waited=waited)

    def progress(self, phase: str, loss: float | None) -> None:
        """Tell the driver and the attempt's tail how far the run is (rank 0)."""
        if self.attempt is None:
            return
        tokens = self.spec.tokens_at(self.step) - self.spec.tokens_at(self.first_step)
        live = {
            "phase": phase,
            "step": self.step,
            "steps": self.spec.steps,
            "loss": loss if loss is not None and math.isfinite(loss) else None,
            "tokens_per_second": tokens / max(self.train_seconds, 1e-9),
        }
        files.append_bounded(self.attempt / "tail.jsonl", live)
        self.report(live)
