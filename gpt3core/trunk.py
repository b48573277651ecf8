"""Runs that begin alike: one may start from another's checkpoint and end with the bits it would have had alone.

Under warm-up, stable, decay (Hu et al. 2024, arXiv 2404.06395; Hägele et al. 2024, arXiv 2405.18392) runs of one size
that differ only in their length do the same steps until the decay of the shorter one begins. The longest of them is
the trunk, and the others are a decay each. Who starts from whom is no part of a run's identity: the same run trained
alone has the same weights, so nothing that is fitted knows the difference, and only the cost does. No torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpt3core.spec import RunSpec, canonical_json, hashed

OF_THE_LENGTH = ("stable_tokens", "decay_tokens", "decay_shape", "final_fraction")  # fields of optim


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """The first steps of a run, as another has done them."""

    run_id: str
    step: int

    def __str__(self) -> str:
        return f"{self.run_id}@{self.step}"


def stable_steps(run: RunSpec) -> int:
    """Steps before the decay begins; 0 where a schedule depends on the length from its start."""
    if run.optim.schedule != "wsd":
        return 0
    return min(run.steps, run.optim.ramp.steps_within(run.optim.stable_tokens))


def family(run: RunSpec) -> str:
    """What runs that begin alike have in common, as text; "" for a run that begins like no other."""
    if not stable_steps(run) or run.anomaly.policy == "rollback":
        return ""  # a run that goes back changes steps that another may have begun from
    known = {name: value for name, value in hashed(run).items() if name != "tokens"}
    known["optim"] = {name: value for name, value in known["optim"].items() if name not in OF_THE_LENGTH}
    return canonical_json(known)


def steps_in_common(a: RunSpec, b: RunSpec) -> int:
    """The number of first steps that two runs do alike."""
    name = family(a)
    if not name or name != family(b):
        return 0
    return min(stable_steps(a), stable_steps(b))
