"""The training of one run: update, checkpoint, and resume to the same bits."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpt3core import schedule, trunk
from gpt3core.data import shards as shard_cache
from gpt3core.data.loader import Loader
from gpt3core.data.shards import Shards
from gpt3core.errors import StoppedError
from gpt3core.numerics import Numerics
from gpt3core.parallel import gradients
from gpt3core.parallel.mesh import Mesh
from gpt3core.parallel.parallelize import Held, parallelize
from gpt3core.parallel.parts import local
from gpt3core.parallel.whole import Whole
from gpt3core.spec import RunSpec
from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from gpt3core.train import optimizer, resume, timing
from gpt3core.train.anomaly import NOT_FINITE, Guard, Verdict
from gpt3core.train.objective import OBJECTIVES, Examples
from gpt3core.train.process import settle_process
from gpt3core.train.readback import Readback
from gpt3core.train.saving import Saves
from gpt3core.train.snapshot import finite
from gpt3core.trunk import Prefix

REPORT_SECONDS = 0.5
BEGUN = ("step", "trunk", "damage", "threads", "micro_batch", "compile")  # what an attempt's log says of its start
COLUMNS = ("step", "tokens", "loss", "lr", "grad_norm")
SKIPPED = "skipped"  # column of a run that may leave updates out: whether the step's was


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
        """
        settle_process(device, threads)
        self.spec, self.dir, self.device, self.mesh = spec, RunDir(root, spec.run_id), device, mesh or Mesh()
        self.report, self.stop, self.keep = report, stop, frozenset({*keep, trunk.stable_steps(spec)} - {0})
        self.data: Shards = self.mesh.together(lambda: shard_cache.prepare(spec.data))
        self.loader = Loader(self.data.train, n_ctx=spec.model.n_ctx, seed=spec.seed)
        self.attempt_name = self.mesh.first(lambda: self.dir.new_attempt().name)
        self.attempt = self.dir.path / self.attempt_name if self.mesh.rank == 0 else None
        asked = spec, suggested, threads, device, prefix, self.mesh
        chosen, unreadable = self.mesh.first(lambda: resume.arithmetic(self.dir, *asked))
        self.threads, self.micro_batch, self.compile = (chosen.pop(n) for n in ("threads", "micro_batch", "compile"))
        self.numerics = Numerics(**chosen)
        settle_process(device, self.threads)
        self.held = self._built()
        self.model = self.held.model
        self.optimizer = optimizer.build(self.model, spec.optim)
        state, damaged = resume.restore(self.dir, spec, self.model, self.optimizer, self.mesh, prefix)
        self.step, self.train_seconds, self.first_step = state["step"], state["train_seconds"], state["first_step"]
        self.trunk: str | None = state["trunk"]  # whose checkpoint the run began from
        self.guard, self.damage = Guard(spec, state), [*damage, *unreadable, *damaged]
        self.saves = self._saving(checkpoint_seconds)
        begun = {name: getattr(self, name) for name in BEGUN}
        self.event("start", **begun, **vars(self.numerics), layout=vars(self.mesh.layout))

    def _built(self) -> Held:
        """What this rank holds of the model, its weights not yet drawn."""
        autocast = functools.partial(timing.autocast, self.numerics, self.device)
        how = {"kernel": self.numerics.kernel, "compiled": self.compile == "blocks"}
        return parallelize(self.spec.model, self.mesh, device=self.device, autocast=autocast, **how)

    def _saving(self, seconds: float) -> Saves:
        """What writes this run's checkpoints."""
        held = self.model, self.optimizer, self.mesh
        return Saves(self.dir, self.attempt_name, *held, device=self.device, least=seconds)

    def event(self, what: str, **details: Any) -> None:
        """Note something in the attempt's log (rank 0)."""
        if self.attempt is not None:
            self.dir.event(self.attempt, what, **details)

    # ---------------------------------------------------------------------------------------------------- training

    def train(self) -> str:
        """Train to the last step. Returns "done" or "diverged"; raises StoppedError."""
        with self.saves:  # however it ends, nothing is written after it
            return self._train()

    def _train(self) -> str:
        rows: dict[str, list[Any]] = self._no_rows()
        readback, started = Readback(self.device), time.monotonic()
        reported, before = started, self.train_seconds
        while self.step < self.spec.steps:
            lr = schedule.learning_rate(self.spec.optim, self.step)
            said = self._update(lr)
            self.step += 1
            beside = {SKIPPED: self.verdict is not None}
            readback.add(said, step=self.step, tokens=self.spec.tokens_at(self.step), lr=lr, beside=beside)
            save = self.step == self.spec.steps or self.step in self._kept()
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
            if save:
                if self.mesh.agree(not self._finite()):  # the last update has no next loss to show it
                    if ended := self._lost(rows):
                        return self._diverged(ended, rows)
                    continue
                self._save(rows, waited=time.monotonic() - now)
                rows = self._no_rows()
                if stopping or self.step == self.spec.steps or self.step in self.keep:
                    self.saves.wait()
            if stopping and self.step < self.spec.steps:
                self.event("stopped", step=self.step)
                raise StoppedError
        return "done"

    def _update(self, lr: float) -> Tensor:
        """One optimizer step, without waiting for the device.

        Returns:
            Where the device is: the batch's loss (nats per token), the gradient's norm before clipping, and the number
            of ranks that were asked to stop and that find a checkpoint due. The loss is the mean over the targets that
            count in the global batch, however they fall on micro-batches and ranks.
        """
        batch = self.loader.batch(*self.guard.sequences(self.step))
        counted = float(batch.mask.sum())
        share = self.mesh.terms / max(1.0, counted)  # the ranks' means are averaged
        tokens = torch.split(self._sent(batch.tokens), self.micro_batch)  # (B, T+1) each
        masks: Sequence[Tensor | None] = [None] * len(tokens)  # nothing to multiply by
        if counted != batch.mask.size:
            masks = torch.split(self._sent(batch.mask.astype(np.float32, copy=False)), self.micro_batch)  # (B, T) each
        ask = OBJECTIVES[self.spec.objective]
        examples = [self._own(ask(rows, mask)) for rows, mask in zip(tokens, masks, strict=True)]
        scale = self.guard.scale
        loss = self.held.backward(examples, share if scale is None else share * scale.value)
        if scale is not None:
            loss = scale.undo(self.model, loss)
        wishes = self.stop(), self.saves.due()
        said = gradients.finish(self.model, self.mesh, loss, self.spec.optim.clip, wishes)
        # the device is waited for here only where the numbers decide about the update
        self.verdict = self.guard.judge(self.step, *said[:2].tolist()) if self.guard.active else None
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.saves.release()
        if self.verdict is None:
            self.optimizer.step()
        self.optimizer.zero_grad()
        return said

    def _sent(self, batch: np.ndarray) -> Tensor:
        """This rank's rows of a batch on their way to its device, which the host does not wait for."""
        rows = torch.from_numpy(self.mesh.rows(batch))
        return rows.pin_memory().to(self.device, non_blocking=True) if self.device == "cuda" else rows

    def _own(self, examples: Examples) -> Examples:
        """This rank's positions of its rows."""
        degree, place = self.mesh.layout.context, self.mesh.place("context")
        if degree == 1:
            return examples
        inputs, targets = (whole.chunk(degree, dim=1)[place] for whole in (examples.inputs, examples.targets))
        mask = None if examples.mask is None else examples.mask.chunk(degree, dim=1)[place]
        return Examples(inputs=inputs, targets=targets, mask=mask)

    @property
    def answers(self) -> Any:
        """The model as an evaluation asks it, all of it on every rank."""
        cut = self.mesh.layout.model_parallel * self.mesh.layout.shard > 1
        return Whole(self.held, self.spec.model, self.mesh) if cut else self.model

    def _finite(self) -> bool:
        """Whether every weight is a number."""
        return finite(local(p) for p in self.model.parameters())

    def _no_rows(self) -> dict[str, list[Any]]:
        return {name: [] for name in (*COLUMNS, SKIPPED)[: len(COLUMNS) + self.guard.active]}

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

    def _roll_back(self, step: int, rows: dict[str, list[Any]]) -> None:
        """Go back to before what is passed over around an update, and take the rows since from the curve."""
        self.saves.wait()  # its checkpoint may be the one that is wanted, or one that goes
        at_most = self.guard.target(step)
        state, damaged = resume.restore(self.dir, self.spec, self.model, self.optimizer, self.mesh, at_most=at_most)
        self.step, number = state["step"], self.guard.history.anomalies
        self.guard.rewound(state)
        self.mesh.first(lambda: self.dir.forget_after(self.step, self.attempt_name, number, rows))
        for column in rows.values():
            column.clear()
        self.event("rolled back", step=self.step, passed_tokens=self.guard.passed_tokens, damage=damaged)

    def _lost(self, rows: dict[str, list[Any]]) -> str:
        """What to do about weights that are not finite, which are not saved; why the run ends, if it does."""
        reason = "the weights are not finite"
        if self.spec.anomaly.policy != "rollback":
            return reason
        if self.step < self.spec.steps:
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
        state = {"train_seconds": self.train_seconds, "first_step": self.first_step, "trunk": self.trunk}
        state |= self.guard.state
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
