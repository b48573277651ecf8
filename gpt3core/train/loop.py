"""One run from specification to result: train, checkpoint, evaluate, and resume to the same bits."""

from __future__ import annotations

import ctypes
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gpt3core import costs
from gpt3core.data import shards as shard_cache
from gpt3core.data.loader import Loader
from gpt3core.data.shards import Shards
from gpt3core.evals import runner
from gpt3core.model.gpt import GPT, loss_per_token
from gpt3core.parallel.data import Group
from gpt3core.spec import RunSpec
from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from gpt3core.train import checkpoint, numerics, optimizer, schedule
from gpt3core.train.numerics import Numerics

MICRO_BATCH_TOKENS = 16_384  # larger batches are accumulated; a constant, so that resume adds in the same order
REPORT_SECONDS = 0.5
COLUMNS = ("step", "tokens", "loss", "lr", "grad_norm")


class StoppedError(Exception):
    """The run was asked to stop; its checkpoint is written."""


class BusyError(Exception):
    """Another live process is training this run."""


class Run:
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
        peak_flops: float | None = None,
        usd_per_hour: float = 0.0,
        report: Callable[[dict[str, Any]], None] = lambda _: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Prepare the data, the model, and the latest sound checkpoint.

        Args:
            suggested: the sweep's choice of numerics; the one recorded with the run, if any, wins over it.
            group: this process's place among the ranks; rank 0 writes.
            peak_flops, usd_per_hour: of one device, for the result's mfu and cost; on CPUs there is no peak to speak
            of.
            report: called about twice a second with live progress.
            stop: asked at every step; true means checkpoint and raise StoppedError.
        """
        settle_process(device)
        self.spec, self.dir, self.device, self.group = spec, RunDir(root, spec.run_id), device, group or Group()
        self.checkpoint_seconds, self.report, self.stop = checkpoint_seconds, report, stop
        self.peak_flops, self.usd_per_hour = peak_flops, usd_per_hour
        self.data: Shards = shard_cache.prepare(spec.data)
        sequences = spec.optim.batch_tokens // spec.model.n_ctx
        self.loader = Loader(self.data.train, n_ctx=spec.model.n_ctx, batch_size=sequences, seed=spec.seed)
        self.writes = self.group.rank == 0
        self.attempt = self.dir.new_attempt() if self.writes else None
        for leftover in self.dir.checkpoints.glob(".*.tmp") if self.writes else ():
            files.remove_folder(leftover)
        self.numerics = self._recorded_numerics(suggested)
        self.model = GPT(spec.model, kernel=self.numerics.kernel).to(device)
        self.optimizer = optimizer.build(self.model, spec.optim)
        self.step, self.train_seconds = 0, 0.0
        folder, self.damage = self.dir.latest_checkpoint() if self.writes else (None, [])
        self.group.barrier()
        if not self.writes:
            folder, _ = self.dir.latest_checkpoint()
        if folder is None:
            self.model.init_weights(spec.seed)
        else:
            state = checkpoint.load(folder, self.model, self.optimizer)
            self.step, self.train_seconds = state["step"], state["train_seconds"]
        self._event("start", step=self.step, damage=self.damage, **vars(self.numerics))

    def _recorded_numerics(self, suggested: Numerics | None) -> Numerics:
        path = self.dir.path / "numerics.json"
        if not path.exists() and self.writes:
            spec = self.spec
            chosen = suggested
            if chosen is None or not chosen.satisfies(spec.precision, spec.kernel):
                chosen = numerics.choose(spec.model, spec.precision, spec.kernel, self.device)
            files.write_json(
                path, {**vars(chosen), "machine": numerics.machine(self.device), "torch": torch.__version__}
            )
        self.group.barrier()
        recorded = files.read_json(path)
        return Numerics(precision=recorded["precision"], kernel=recorded["kernel"])

    def _event(self, what: str, **details: Any) -> None:
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
                self._progress("training", loss)
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
                self._event("stopped", step=self.step)
                raise StoppedError
        if rows["step"] and self.attempt is not None:
            self.dir.write_metrics(self.attempt, rows)
        return status

    def _update(self, lr: float) -> tuple[float, float]:
        """One optimizer step; returns the batch's loss (nats per token) and the gradient's norm before clipping."""
        spec = self.spec
        batch = torch.from_numpy(self.group.rows(self.loader.batch(self.step))).to(self.device)  # (B, T+1)
        micro = max(1, MICRO_BATCH_TOKENS // spec.model.n_ctx)
        total = torch.zeros((), device=self.device)
        for rows in torch.split(batch, micro):
            with self.numerics.autocast(self.device):
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
            checkpoint.save(self.dir, self.step, self.model, self.optimizer, {"train_seconds": self.train_seconds})
        self.group.barrier()

    def _progress(self, phase: str, loss: float | None) -> None:
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

    # -------------------------------------------------------------------------------------------------- evaluation

    def finish(self, status: str) -> dict[str, Any]:
        """Evaluate, write the result, and return it. Only rank 0 calls this."""
        assert self.attempt is not None
        self._progress("evaluating", None)
        started = time.monotonic()
        scores: dict[str, Any] = {"loss": None, "loss_se": None, "bits_per_byte": None}
        table: dict[str, list[Any]] = {}
        if status == "done":
            scores = runner.validation_loss(self.model, self.spec, self.data, self.device)
            table = runner.few_shot(self.model, self.spec, self.data, self.numerics, self.device)
            if table:
                self.dir.write_table(self.attempt / "evals" / "few_shot.parquet", table)
        tokens = self.step * self.spec.optim.batch_tokens
        speed = costs.train_flops(self.spec.model, tokens) / max(self.train_seconds, 1e-9)
        device_hours = self.group.size * self.train_seconds / 3600
        result = {
            "status": status,
            "run_id": self.spec.run_id,
            **scores,
            "steps": self.step,
            "tokens": tokens,
            "epochs": self.loader.epochs(tokens),
            "precision": self.numerics.precision,
            "kernel": self.numerics.kernel,
            "attempt": self.attempt.name,
            "attempts": len(self.dir.attempts()),
            "train_seconds": round(self.train_seconds, 3),
            "eval_seconds": round(time.monotonic() - started, 3),
            "devices": self.group.size,
            "device": numerics.machine(self.device),
            "gpu_hours": device_hours if self.device == "cuda" else 0.0,
            "cost": device_hours * self.usd_per_hour,
            "mfu": speed / (self.group.size * self.peak_flops) if self.peak_flops else None,
            "tokens_per_second": round(tokens / max(self.train_seconds, 1e-9), 1),
            "flops_per_second": round(speed),
            "torch": torch.__version__,
            "damage": self.dir.damage(),
        }
        self.dir.finish(result)
        self._event("done", status=status, loss=scores["loss"])
        return result


def run(spec: RunSpec, root: Path, *, group: Group | None = None, **options: Any) -> dict[str, Any] | None:
    """Train and evaluate one run, once; returns its result on rank 0, None on the others.

    See ``Run`` for the options. Raises BusyError when another live process has the run, StoppedError when asked to
    stop.
    """
    if group is not None and group.rank > 0:
        Run(spec, root, group=group, **options).train()
        return None
    folder = RunDir(root, spec.run_id)
    folder.create(spec)
    with files.locked(folder.path / "lock") as mine:
        if not mine:
            raise BusyError(
                f"run {spec.run_id} is being trained by another process ({(folder.path / 'lock').read_text().strip()})"
            )
        if (result := folder.result()) is not None:
            return result
        here = Run(spec, root, group=group, **options)
        return here.finish(here.train())


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
