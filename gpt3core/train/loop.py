"""The training of one run: update, checkpoint, and resume to the same bits."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import torch

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
from gpt3core.train import checkpoint, interval, optimizer, resume, timing
from gpt3core.train.objective import OBJECTIVES, Examples
from gpt3core.train.process import settle_process
from gpt3core.trunk import Prefix

REPORT_SECONDS = 0.5
COLUMNS = ("step", "tokens", "loss", "lr", "grad_norm")


class Trainer:
    """The state of a run in this process."""

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
            stop: asked at every step; true means checkpoint and raise StoppedError.
            damage: what was found damaged in the run's folder before.
            prefix: where another run has done the first steps, for a run that has no checkpoint of its own.
            keep: steps whose checkpoints stay, for others to start from; that before the decay does in any case.
        """
        settle_process(device, threads)
        self.spec, self.dir, self.device, self.mesh = spec, RunDir(root, spec.run_id), device, mesh or Mesh()
        self.checkpoint_seconds, self.report, self.stop = checkpoint_seconds, report, stop
        self.keep = frozenset({*keep, trunk.stable_steps(spec)} - {0})
        self.data: Shards = self.mesh.together(lambda: shard_cache.prepare(spec.data))
        self.loader = Loader(self.data.train, n_ctx=spec.model.n_ctx, seed=spec.seed)
        self.attempt_name = self.mesh.first(lambda: self.dir.new_attempt().name)
        self.attempt = self.dir.path / self.attempt_name if self.mesh.rank == 0 else None
        asked = spec, suggested, threads, device, prefix, self.mesh
        chosen, unreadable = self.mesh.first(lambda: resume.arithmetic(self.dir, *asked))
        self.threads, self.micro_batch = chosen.pop("threads"), chosen.pop("micro_batch")
        self.numerics = Numerics(**chosen)
        settle_process(device, self.threads)
        self.held = self._built()
        self.model = self.held.model
        self.optimizer = optimizer.build(self.model, spec.optim)
        state, damaged = resume.restore(self.dir, spec, self.model, self.optimizer, self.mesh, prefix)
        self.step, self.train_seconds, self.first_step = state["step"], state["train_seconds"], state["first_step"]
        self.trunk: str | None = state["trunk"]  # whose checkpoint the run began from
        self.damage = [*damage, *unreadable, *damaged]
        begun = {name: getattr(self, name) for name in ("step", "trunk", "damage", "threads", "micro_batch")}
        self.event("start", **begun, **vars(self.numerics), layout=vars(self.mesh.layout))

    def _built(self) -> Held:
        """What this rank holds of the model, its weights not yet drawn."""
        autocast = functools.partial(timing.autocast, self.numerics, self.device)
        return parallelize(
            self.spec.model, self.mesh, kernel=self.numerics.kernel, device=self.device, autocast=autocast
        )

    def event(self, what: str, **details: Any) -> None:
        """Note something in the attempt's log (rank 0)."""
        if self.attempt is not None:
            self.dir.event(self.attempt, what, **details)

    # ---------------------------------------------------------------------------------------------------- training

    def train(self) -> str:
        """Train to the last step. Returns "done" or "diverged"; raises StoppedError."""
        rows: dict[str, list[Any]] = {name: [] for name in COLUMNS}
        started = saved = reported = time.monotonic()
        before, every = self.train_seconds, self.checkpoint_seconds
        while self.step < self.spec.steps:
            lr = schedule.learning_rate(self.spec.optim, self.step)
            loss, norm = self._update(lr)
            self.step += 1
            now = time.monotonic()
            self.train_seconds = before + now - started
            values = (self.step, self.spec.tokens_at(self.step), loss, lr, norm)
            for name, value in zip(COLUMNS, values, strict=True):
                rows[name].append(value)
            if now - reported >= REPORT_SECONDS:
                reported = now
                self.progress("training", loss)
            if not (math.isfinite(loss) and math.isfinite(norm)):
                return self._diverged("the loss or the gradient is not finite", rows)
            stopping = self.mesh.agree(self.stop())
            due = self.mesh.agree(now - saved >= every)
            if stopping or due or self.step == self.spec.steps or self.step in self.keep:
                if self.mesh.agree(not self._finite()):  # the last update has no next loss to show it
                    return self._diverged("the weights are not finite", rows)
                self._save(rows)
                rows = {name: [] for name in COLUMNS}
                saved = time.monotonic()
                every = interval.seconds_between(saved - now, least=self.checkpoint_seconds)
            if stopping and self.step < self.spec.steps:
                self.event("stopped", step=self.step)
                raise StoppedError
        return "done"

    def _update(self, lr: float) -> tuple[float, float]:
        """One optimizer step; returns the batch's loss (nats per token) and the gradient's norm before clipping.

        The loss is the mean over the targets that count in the global batch, however they fall on micro-batches and
        ranks.
        """
        n_ctx, first, last = self.spec.model.n_ctx, *(self.spec.tokens_at(self.step + i) for i in (0, 1))
        batch = self.loader.batch(first // n_ctx, last // n_ctx)
        counted = float(batch.mask.sum())
        share = self.mesh.terms / max(1.0, counted)  # the ranks' means are averaged
        tokens = torch.from_numpy(self.mesh.rows(batch.tokens)).to(self.device)  # (B, T+1)
        mask = torch.from_numpy(self.mesh.rows(batch.mask)).to(self.device)  # (B, T)
        whole = counted == batch.mask.size  # nothing to multiply by
        examples = [
            self._own(OBJECTIVES[self.spec.objective](rows, None if whole else counts))
            for rows, counts in zip(
                torch.split(tokens, self.micro_batch), torch.split(mask, self.micro_batch), strict=True
            )
        ]
        loss = self.held.backward(examples, share)
        loss, norm = gradients.finish(self.model, self.mesh, loss, self.spec.optim.clip)
        optimizer.set_rate(self.optimizer, lr)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item(), norm.item()

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
        return all(bool(local(p).isfinite().all()) for p in self.model.parameters())

    def _diverged(self, reason: str, rows: dict[str, list[Any]]) -> str:
        """Note the end of a run that diverged, and keep its curve."""
        self.event("diverged", step=self.step, reason=reason)
        self.mesh.first(lambda: self._write_metrics(rows))
        return "diverged"

    def _write_metrics(self, rows: dict[str, list[Any]]) -> None:
        assert self.attempt is not None
        self.dir.write_metrics(self.attempt, rows)

    def _save(self, rows: dict[str, list[Any]]) -> None:
        """Write the curve so far and a checkpoint, on all ranks or on none."""
        self.mesh.first(lambda: self._write_metrics(rows))
        state = {"train_seconds": self.train_seconds, "first_step": self.first_step, "trunk": self.trunk}
        where = self.dir, self.step, self.attempt_name
        checkpoint.save(*where, self.model, self.optimizer, state, self.mesh, self.keep)

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
        files.append_line(self.attempt / "tail.jsonl", live)
        self.report(live)
