"""What a run has met of anomalies and what it did: judged before an update is applied, kept with every checkpoint.

The loss and the norm are of the global batch, so all ranks judge alike. ``skip`` and ``rollback``, a rule for spikes,
and fp16 need both numbers before the optimizer's step, which waits for the device there; a run without these (the
default) is judged afterwards, by whoever reads its numbers.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from gpt3core.anomaly import AnomalySpec
from gpt3core.spec import RunSpec
from gpt3core.train.loss_scale import LEAST, LossScale

FLOOR = 1e-3  # relative to the median: what a deviation is at least, where values hardly vary
NOT_FINITE = "the loss or the gradient is not finite"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """An update that is not applied, and what happens instead."""

    event: str  # "anomaly" or "overflow"
    step: int  # the update's, counted from one as the metrics do
    reason: str
    action: str  # "skip", "rollback" or "stop"


@dataclass(kw_only=True)
class History:
    """What a checkpoint keeps of it, plain data: so much of the past decides what is trained next."""

    anomalies: int = 0
    roll_backs: int = 0
    overflows: int = 0  # of fp16's loss scale, which are no anomalies
    skipped_steps: int = 0
    skipped_tokens: int = 0  # of steps that count and trained nothing
    passed: list[list[int]] = field(default_factory=list)  # [step, sequences passed over before it], by step
    losses: list[float] = field(default_factory=list)  # of the window, oldest first
    norms: list[float] = field(default_factory=list)


class Guard:
    """Judges the steps of a run, and knows where in the text they lie."""

    def __init__(self, spec: RunSpec, state: Mapping[str, Any]) -> None:
        """Begin, or go on from a checkpoint's state, where it says something of this."""
        self.run, self.rule = spec, spec.anomaly
        self.history = History(**state.get("anomaly") or {})
        self.scale = LossScale(state.get("loss_scale")) if spec.precision == "fp16" else None
        self.floor = spec.first_step

    @property
    def state(self) -> dict[str, Any]:
        """For a checkpoint: plain data, and nothing where nothing was met."""
        found: dict[str, Any] = {} if self.history == History() else {"anomaly": asdict(self.history)}
        return found if self.scale is None else {**found, "loss_scale": self.scale.state}

    @property
    def counts(self) -> dict[str, int]:
        """For a result: what was met, and the tokens that trained nothing."""
        found = self.history
        return {
            "anomalies": found.anomalies,
            "overflows": found.overflows,
            "skipped_steps": found.skipped_steps,
            "skipped_tokens": found.skipped_tokens,
            "roll_backs": found.roll_backs,
            "passed_tokens": self.passed_tokens,
        }

    @property
    def active(self) -> bool:
        """Whether a step's numbers decide about its update."""
        return self.scale is not None or self.rule != AnomalySpec()

    # ------------------------------------------------------------------------------------------------------- judging

    def judge(self, step: int, loss: float, norm: float) -> Verdict | None:
        """Decide about an update from the batch's loss and gradient norm; None where it is to be applied.

        Args:
            step: the number of updates before it, skipped ones among them.
        """
        if self.scale is not None and math.isfinite(loss):
            if not math.isfinite(norm):
                return self._overflow(step)
            self.scale.fits()
        reason = self._wrong(loss, norm)
        self._remember(loss, norm)
        return self.met(step, reason) if reason else None

    def met(self, step: int, reason: str) -> Verdict:
        """Count an anomaly; what happens about it."""
        self.history.anomalies += 1
        action = self.rule.policy
        if action != "stop" and self.history.anomalies > self.rule.limit:
            action = "stop"
            reason += f", and anomaly.limit={self.rule.limit} of them were met before"
        if action == "skip":
            self._leave_out(step)
        if action == "rollback":
            self.history.roll_backs += 1
            self._pass_over(step)
        return Verdict(event="anomaly", step=step + 1, reason=reason, action=action)

    def _overflow(self, step: int) -> Verdict:
        assert self.scale is not None
        was = self.scale.value
        if not self.scale.overflows():
            reason = (
                f"the gradient overflows fp16 at loss scale {LEAST:g}, the least there is: train in bf16 or fp32, or "
                "with a lower learning rate"
            )
            return Verdict(event="anomaly", step=step + 1, reason=reason, action="stop")
        self.history.overflows += 1
        self._leave_out(step)
        reason = f"the gradient overflows fp16 at loss scale {was:g}, which is lowered to {self.scale.value:g}"
        return Verdict(event="overflow", step=step + 1, reason=reason, action="skip")

    def _wrong(self, loss: float, norm: float) -> str:
        """What is wrong with a step's numbers, in words."""
        for name, value, window in (
            ("loss", loss, self.history.losses),
            ("gradient norm", norm, self.history.norms),
        ):
            if not math.isfinite(value):
                return f"the {name} is {value}"
            if self.rule.spike and len(window) == self.rule.window:
                middle, deviation = spread(window)
                if value > middle + self.rule.spike * deviation:
                    return (
                        f"the {name} is {value:.4g}, more than {self.rule.spike:g} deviations of {deviation:.2g} above "
                        f"{middle:.4g}, the median of {len(window)} steps"
                    )
        return ""

    def _remember(self, loss: float, norm: float) -> None:
        """Take a step's numbers into the window, a spike's too: a lasting change of level is none any more in time."""
        if self.rule.spike and math.isfinite(loss) and math.isfinite(norm):
            for window, value in ((self.history.losses, loss), (self.history.norms, norm)):
                window.append(value)
                del window[: -self.rule.window]

    def _leave_out(self, step: int) -> None:
        self.history.skipped_steps += 1
        self.history.skipped_tokens += self.run.tokens_at(step + 1) - self.run.tokens_at(step)

    # ------------------------------------------------------------------------------------------------------ the text

    def sequences(self, step: int) -> tuple[int, int]:
        """The first sequence of a step's batch and the one after its last, in the order of the text."""
        return self._first(step), self._first(step) + self._nominal(step + 1) - self._nominal(step)

    @property
    def passed_tokens(self) -> int:
        """What lies in the text before the next step and was never trained on, beside skipped steps."""
        return self.run.unit_tokens * sum(count for _, count in self.history.passed)

    def _nominal(self, step: int) -> int:
        return self.run.tokens_at(step) // self.run.unit_tokens

    def _first(self, step: int) -> int:
        return self._nominal(step) + sum(count for before, count in self.history.passed if before <= step)

    def _pass_over(self, step: int) -> None:
        """Pass over the batches from ``back`` steps before an update to ``ahead`` after it.

        Steps before ``target`` were trained alike before and keep their batches; what was passed over after it lies
        in the range.
        """
        target = self.target(step)
        count = self.sequences(step + self.rule.ahead)[1] - self._first(target)
        earlier = [[before, some] for before, some in self.history.passed if before < target]
        # what lay before the target already, at the target itself too, is passed over as ever
        at = sum(some for before, some in self.history.passed if before == target)
        self.history.passed = [*earlier, [target, at + count]]

    # --------------------------------------------------------------------------------------------------- going back

    def target(self, step: int) -> int:
        """The last step before an anomaly's range: any checkpoint up to it will do."""
        return max(self.floor, step - self.rule.back)

    def marks(self, step: int) -> Collection[int]:
        """The steps up to this one whose checkpoints a roll back may need."""
        if self.rule.policy != "rollback":
            return ()
        last = step - step % self.rule.back
        return {last, last - self.rule.back} - {0}

    def rewound(self, state: Mapping[str, Any]) -> None:
        """Take from the checkpoint that was gone back to what belongs to its step; what was met since stays known."""
        there = Guard(self.run, state)
        for name in ("anomalies", "roll_backs", "passed"):
            setattr(there.history, name, getattr(self.history, name))
        self.history, self.scale = there.history, there.scale


def spread(values: list[float]) -> tuple[float, float]:
    """The median of numbers, and their median absolute deviation from it, or what is taken for it if that is less."""
    middle = statistics.median(values)
    return middle, max(statistics.median(abs(v - middle) for v in values), FLOOR * abs(middle))
