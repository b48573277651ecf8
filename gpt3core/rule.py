"""A rule of hyperparameters: learning rate and batch as power laws of N and D, with what it was fitted on. No torch.

``lr*(N, D) = c N^a D^b`` and ``batch*(N, D)`` in tokens, the form of Li et al. 2025 (arXiv 2503.04715). A rule is a
YAML file that ``analysis.hparams`` writes and ``optim.rule`` of a recipe names; two published ones have names of their
own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt3core import cli, hints
from gpt3core.checks import as_floats, require_between, require_positive
from gpt3core.errors import UsageError

DIGITS = 4  # of a learning rate: two fits that agree so far give the same runs
MOST_EXPONENT = 5.0
COUNTS = ("nonembedding", "total", "given")  # "given": whatever the column N of a table counted
BEYOND = 1.05  # times a range: less is rounding


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """``constant N^N D^D``."""

    constant: float
    N: float = 0.0
    D: float = 0.0

    def __post_init__(self) -> None:
        as_floats(self)
        require_positive(self, "constant")
        require_between(self, -MOST_EXPONENT, MOST_EXPONENT, "N", "D")

    def at(self, n: float, d: float) -> float:
        """Its value for so many parameters and tokens."""
        return math.exp(math.log(self.constant) + self.N * math.log(n) + self.D * math.log(d))

    @property
    def words(self) -> str:
        """As a formula."""
        powers = [f" {name}^{power:.3g}" for name, power in (("N", self.N), ("D", self.D)) if power]
        return f"{self.constant:.4g}{''.join(powers)}"


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What a rule rests on: the ranges of the runs, and how well it foresaw pairs of N and D that were left out."""

    source: str = ""
    runs: int = 0
    pairs: int = 0  # of N and D
    N: tuple[float, ...] = ()  # smallest and largest; empty where that is not known
    D: tuple[float, ...] = ()
    left_out_loss: float | None = None  # mean share of the loss given away on a pair that was left out
    left_out_worst: float | None = None
    lr_n_95: tuple[float, ...] = ()  # 95% intervals of the exponents
    lr_d_95: tuple[float, ...] = ()
    batch_n_95: tuple[float, ...] = ()
    batch_d_95: tuple[float, ...] = ()
    schedule: str = ""  # of the runs
    mup_base_width: int = 0

    def __post_init__(self) -> None:
        for name in ("N", "D", "lr_n_95", "lr_d_95", "batch_n_95", "batch_d_95"):
            values = getattr(self, name)
            if not isinstance(values, Sequence) or len(values) not in (0, 2):
                raise ValueError(f"fitted.{name}={values!r:.60}: two numbers, the smallest and the largest")
            object.__setattr__(self, name, tuple(map(float, values)))


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Learning rate and batch of every size and length; warm-up and decay where they were searched too."""

    name: str
    lr: PowerLaw
    batch_tokens: PowerLaw
    counts: str = "nonembedding"  # what N counts
    warmup_fraction: float | None = None  # of the run's tokens
    final_fraction: float | None = None  # of the learning rate, at the end of the decay
    fitted: Fitted = field(default_factory=Fitted)

    def __post_init__(self) -> None:
        if self.counts not in COUNTS:
            raise ValueError(f"counts={self.counts!r:.40}: allowed are {', '.join(COUNTS)}")
        for name in ("warmup_fraction", "final_fraction"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and 0 <= value <= 1):
                raise ValueError(f"{name}={value!r:.40}: a share, from 0 to 1")

    def __str__(self) -> str:
        return self.name

    def learning_rate(self, n: float, d: float) -> float:
        """The learning rate of a run, to DIGITS digits."""
        return float(f"{self.lr.at(n, d):.{DIGITS}g}")

    def batch(self, n: float, d: float, unit: int) -> int:
        """The batch in tokens, in whole units (of a sequence, or of several)."""
        return unit * max(1, round(self.batch_tokens.at(n, d) / unit))

    def beyond(self, n: float, d: float) -> dict[str, float]:
        """By what factor N and D lie outside of what it was fitted on: none where they lie inside, or none is known."""
        found = {}
        for name, value, known in (("N", n, self.fitted.N), ("D", d, self.fitted.D)):
            if known and (factor := max(value / known[1], known[0] / value)) > BEYOND:
                found[name] = factor
        return found

    @property
    def words(self) -> str:
        """In a sentence."""
        return f"lr = {self.lr.words}, batch = {self.batch_tokens.words} tokens (N {self.counts})"


# lr and batch of Li et al. 2025, equation 1: N non-embedding parameters, D tokens, 59M to 1.07B dense and sparse
STEP_LAW = Rule(
    name="steplaw",
    lr=PowerLaw(constant=1.79, N=-0.713, D=0.307),
    batch_tokens=PowerLaw(constant=0.58, D=0.571),
    fitted=Fitted(
        source="Li et al. 2025, arXiv 2503.04715", pairs=18, N=(6e7, 1.1e9), D=(2e9, 1e11), schedule="cosine"
    ),
)
# DeepSeek LLM (Bi et al. 2024, arXiv 2401.02954), equation 1: lr = 0.3118 C^-0.1250, batch = 0.2920 C^0.3271, C = M D
# with M the non-embedding FLOPs of a token, here 6N: without those of attention
DEEPSEEK = Rule(
    name="deepseek",
    lr=PowerLaw(constant=0.3118 * 6**-0.1250, N=-0.1250, D=-0.1250),
    batch_tokens=PowerLaw(constant=0.2920 * 6**0.3271, N=0.3271, D=0.3271),
    fitted=Fitted(source="Bi et al. 2024, arXiv 2401.02954"),
)
PUBLISHED = {rule.name: rule for rule in (STEP_LAW, DEEPSEEK)}


def of(written: Any, where: str) -> Rule:
    """A rule from plain data, as a file holds it.

    Raises:
        UsageError: naming what is missing or wrong, and where.
    """
    from gpt3core.spec import from_dict

    try:
        found: Rule = from_dict(Rule, written)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{where} is no rule of hyperparameters: {error}; analysis.hparams writes one") from error
    return found


def read(name: str) -> Rule:
    """A published rule by its name, or the one in a YAML file.

    Raises:
        UsageError: where there is no such rule.
    """
    if name in PUBLISHED:
        return PUBLISHED[name]
    path = Path(name).expanduser()
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        near = hints.nearest(name, tuple(PUBLISHED))
        raise UsageError(
            f"optim.rule={name:.200}: no such rule{near}; give {' or '.join(PUBLISHED)}, or the path of a .yaml file "
            "that python -m analysis.hparams wrote"
        )
    return of(cli.read_yaml(path), str(path))


def to_yaml(rule: Rule) -> str:
    """The rule as the file that ``read`` reads back."""
    from omegaconf import OmegaConf

    from gpt3core.spec import as_dict

    plain = as_dict(rule)
    plain["fitted"] = {k: list(v) if isinstance(v, tuple) else v for k, v in plain["fitted"].items()}
    head = f"# {rule.words}\n# name it in a recipe: optim: {{rule: THIS_FILE}}\n"
    return head + OmegaConf.to_yaml(OmegaConf.create(plain))
