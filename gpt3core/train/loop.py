"""The training of one run: update, checkpoint, and resume to the same bits."""

from __future__ import annotations

import ctypes
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gpt3core import schedule
from gpt3core.data import shards as shard_cache
from gpt3core.data.loader import Loader
from gpt3core.data.shards import Shards
from gpt3core.errors import StoppedError
from gpt3core.model import registry
from gpt3core.numerics import Numerics
from gpt3core.parallel.mesh import Group
from gpt3core.spec import RunSpec
from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from gpt3core.train import checkpoint, optimizer, timing
from gpt3core.train.objective import loss_per_token

MICRO_BATCH_TOKENS = 16_384  # larger batches are accumulated; a constant, so that resume adds in the same order
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
        group: Group | None = None,
        checkpoint_seconds: float = 10.0,
        report: Callable[[dict[str, Any]], None] = lambda _: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Prepare the data, the model, and the latest sound checkpoint.

        Args:
            suggested: the sweep's choice of numerics; the one recorded with the run, if any, wins over it.
            group: this process's place among the ranks; rank 0 writes.
            report: called about twice a second with live progress.
            stop: asked at every step; true means checkpoint and raise StoppedError.
        """
        settle_process(device)
        self.spec, self.dir, self.device, self.group = spec, RunDir(root, spec.run_id), device, group or Group()
        self.checkpoint_seconds, self.report, self.stop = checkpoint_seconds, report, stop
        self.data: Shards = shard_cache.prepare(spec.data)
        sequences = spec.optim.batch_tokens // spec.model.n_ctx
        self.loader = Loader(self.data.train, n_ctx=spec.model.n_ctx, batch_size=sequences, seed=spec.seed)
        self.writes = self.group.rank == 0
        self.attempt = self.dir.new_attempt() if self.writes else None
        if self.writes:
            files.remove_leftovers(self.dir.checkpoints)
        self.numerics = self._recorded_numerics(suggested)
        self.model = registry.of(spec.model).build(spec.model, kernel=self.numerics.kernel).to(device)
        self.optimizer = optimizer.build(self.model, spec.optim)
        self.step, self.train_seconds = 0, 0.0
        latest, self.damage = self.dir.latest_checkpoint() if self.writes else (None, [])
        self.group.barrier()
        if not self.writes:
            latest, _ = self.dir.latest_checkpoint()
        if latest is None:
            self.model.init_weights(spec.seed)
        else:
            state = checkpoint.load(self.dir.checkpoint(latest), self.model, self.optimizer)
            self.step, self.train_seconds = state["step"], state["train_seconds"]
        self.event("start", step=self.step, damage=self.damage, **vars(self.numerics))

    def _recorded_numerics(self, suggested: Numerics | None) -> Numerics:
        path = self.dir.path / "numerics.json"
        if not path.exists() and self.writes:
            spec = self.spec
            chosen = suggested
            if chosen is None or not chosen.satisfies(spec.precision, spec.kernel):
                chosen = timing.choose(spec.model, spec.precision, spec.kernel, self.device)
            files.write_json(path, {**vars(chosen), "machine": timing.machine(self.device), "torch": torch.__version__})
        self.group.barrier()
        recorded = files.read_json(path)
        return Numerics(precision=recorded["precision"], kernel=recorded["kernel"])

    def event(self, what: str, **details: Any) -> None:
        """Note something in the attempt's log (rank 0)."""
        if self.attempt is not None:
            self.dir.event(self.attempt, what, **details)

    # ---------------------------------------------------------------------------------------------------- training

    def train(self) -> str:
        """Train to the last step. Returns "done" or "diverged"; raises StoppedError."""
        rows: dict[str, list[Any]] = {name: [] for name in COLUMNS}
        started = saved = reported = time.monotonic()
        before = self.train_seconds
        status = "done"
        while self.step < self.spec.steps:
            lr = schedule.learning_rate(self.spec.optim, self.step * self.spec.optim.batch_tokens)
            loss, norm = self._update(lr)
            self.step += 1
            now = time.monotonic()
            self.train_seconds = before + now - started
            values = (self.step, self.step * self.spec.optim.batch_tokens, loss, lr, norm)
            for name, value in zip(COLUMNS, values, strict=True):
                rows[name].append(value)
            if now - reported >= REPORT_SECONDS:
                reported = now
                self.progress("training", loss)
            if not (math.isfinite(loss) and math.isfinite(norm)):
                status = "diverged"
                break
            stopping = self.group.agree(self.stop())
            due = self.group.agree(now - saved >= self.checkpoint_seconds)
            if stopping or due or self.step == self.spec.steps:
                self._save(rows)
                rows = {name: [] for name in COLUMNS}
                saved = time.monotonic()
            if stopping and self.step < self.spec.steps:
                self.event("stopped", step=self.step)
                raise StoppedError
        if rows["step"] and self.attempt is not None:
            self.dir.write_metrics(self.attempt, rows)
        return status

    def _update(self, lr: float) -> tuple[float, float]:
        """One optimizer step; returns the batch's loss (nats per token) and the gradient's norm before clipping."""
        spec = self.spec
        batch = torch.from_numpy(self.group.rows(self.loader.batch(self.step).tokens)).to(self.device)  # (B, T+1)
        micro = max(1, MICRO_BATCH_TOKENS // spec.model.n_ctx)
        total = torch.zeros((), device=self.device)
        for rows in torch.split(batch, micro):
            with timing.autocast(self.numerics, self.device):
                logits = self.model(rows[:, :-1])
            loss = loss_per_token(logits, rows[:, 1:]).sum() / (len(batch) * spec.model.n_ctx)
            torch.autograd.backward(loss)
            total += loss.detach()
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        self.group.mean_([*gradients, total])
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), spec.optim.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total.item(), norm.item()

    def _save(self, rows: dict[str, list[Any]]) -> None:
        if self.attempt is not None:
            self.dir.write_metrics(self.attempt, rows)
            state = {"train_seconds": self.train_seconds}
            checkpoint.save(self.dir, self.step, self.attempt.name, self.model, self.optimizer, state)
        self.group.barrier()

    def progress(self, phase: str, loss: float | None) -> None:
        """Tell the driver and the attempt's tail how far the run is (rank 0)."""
        if self.attempt is None:
            return
        tokens = self.step * self.spec.optim.batch_tokens
        live = {
            "phase": phase,
            "step": self.step,
            "steps": self.spec.steps,
            "loss": loss,
            "tokens_per_second": tokens / max(self.train_seconds, 1e-9),
        }
        files.append_line(self.attempt / "tail.jsonl", live)
        self.report(live)


def settle_process(device: str) -> None:
    """Settings of a training process: one thread, determinism, and an allocator that keeps its memory.

    glibc returns large blocks to the system at every free and takes page faults at every step. In a process of one
    thread, keeping them made a step 1.75 times faster at width 16 and 1.25 times at width 64 (2,000 to 3,700 faults
    a step became none).
    """
    if device == "cpu":
        torch.set_num_threads(1)
        try:
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
            libc.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD
        except (OSError, AttributeError):
            pass  # not glibc
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # a debugging aid that writes every new tensor twice
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
