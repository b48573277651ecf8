"""What a user may set as key=value: which runs, how they are counted, and what is fitted to them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from gpt3core.errors import UsageError
from gpt3core.hints import nearest

COUNTS = ("nonembedding", "total", "given")
COMPUTES = ("exact", "6nd", "kaplan")
RHO = "huber"
LOSS_FUNCTIONS = ("huber", "least_squares", "soft_l1", "cauchy")  # those of estimation.robust
DELTA = 1e-3  # of ln L; Hoffmann et al. 2022
RULES = (
    *("duplicate", "diverged", "stopped-early", "repeated-data", "not-best-tuned", "worse-than-smaller", "short-run"),
    *("under-trained", "near"),
)
OF_TUNING = ("not-best-tuned", "worse-than-smaller")  # they take out what shows where the best settings lie
EVERY, NO = "all", "none"  # words of rules=


@dataclass(kw_only=True)
class Fix:
    """Exponents that a user holds fixed: of L = E + A/N^alpha + B/D^beta, and a of N* ~ C^a."""

    a: float | None = None
    alpha: float | None = None
    beta: float | None = None
    alpha_equals_beta: bool = False

    def check(self) -> None:
        """Refuse what cannot be meant, or would be fixed twice; see RunSettings."""
        for name in ("alpha", "beta"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 3:
                raise UsageError(f"fix.{name}={value}: an exponent lies between 0 and 3 (like 0.34)")
        if self.a is not None and not 0 < self.a < 1:
            raise UsageError(f"fix.a={self.a}: the exponent of N* ~ C^a lies between 0 and 1 (like 0.5)")
        fixed = [name for name in ("a", "alpha_equals_beta") if getattr(self, name)]
        if len(fixed) > 1:
            raise UsageError("fix.a and fix.alpha_equals_beta both tie alpha to beta (a = 0.5 where they are equal)")
        if self.alpha is not None and self.beta is not None and fixed:
            raise UsageError(
                f"fix.alpha, fix.beta and fix.{fixed[0]}: two exponents are fixed three times; leave one out"
            )

    @property
    def words(self) -> str:
        """As a user would write it; empty where nothing is fixed."""
        given = [
            f"{name} = {getattr(self, name):g}" for name in ("a", "alpha", "beta") if getattr(self, name) is not None
        ]
        return ", ".join(given + (["alpha = beta"] if self.alpha_equals_beta else []))


@dataclass(kw_only=True)
class RunSettings:
    """Which runs, and what their N and C mean; the same for every command."""

    runs: str | None = None
    sweep: str | None = None
    domain: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    N: str | None = None
    C: str | None = None
    exclude: list[str] = field(default_factory=list)
    rules: list[str] = field(default_factory=lambda: [EVERY])
    min_tokens: float | None = None
    min_compute: float | None = None
    max_compute: float | None = None
    precision: str | None = None

    @property
    def rules_off(self) -> tuple[str, ...]:
        """The rules that take no run out."""
        if self.rules == [EVERY]:
            return ()
        return tuple(name for name in RULES if self.rules == [NO] or name not in self.rules)

    def check(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            UsageError: in one sentence.
        """
        _check_empty(self)
        self._check_rules()
        for name, allowed in (("N", COUNTS), ("C", COMPUTES)):
            value = getattr(self, name)
            if value is not None and value not in allowed:
                raise UsageError(f"{name}={value}: allowed are {', '.join(allowed)}")
        if self.min_tokens is not None and not self.min_tokens >= 0:
            raise UsageError(f"min_tokens={self.min_tokens}: tokens, zero or more (like 4e5)")
        self._check_window()

    def _check_window(self) -> None:
        for name in ("min_compute", "max_compute"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise UsageError(f"{name}={value}: FLOPs, positive (like 1e18)")
        if self.min_compute is not None and self.max_compute is not None and self.min_compute > self.max_compute:
            raise UsageError(f"min_compute={self.min_compute:g} lies above max_compute={self.max_compute:g}: swap them")

    def _check_rules(self) -> None:
        written = f"rules=[{', '.join(self.rules)}]"
        for name in self.rules:
            if name in (EVERY, NO) and len(self.rules) > 1:
                raise UsageError(f"{written}: {name} stands alone")
            if name not in (EVERY, NO, *RULES):
                raise UsageError(
                    f"rules={name}{nearest(name, (*RULES, EVERY, NO))}: allowed are {EVERY}, {NO}, or a list of "
                    f"{', '.join(RULES)}; what exclude= and precision= take out stays out"
                )
        if self.min_tokens is not None and "short-run" in self.rules_off:
            raise UsageError(
                f"min_tokens={self.min_tokens:g} is the rule short-run, which {written} turns off: leave one out"
            )


@dataclass(kw_only=True)
class ScoredSettings(RunSettings):
    """The same with the columns of a table that are accuracies; see runs.scores."""

    scores: list[str] = field(default_factory=list)
    chance: dict[str, float] = field(default_factory=dict)
    items: dict[str, int] = field(default_factory=dict)
    shots: dict[str, int] = field(default_factory=dict)


@dataclass(kw_only=True)
class StudySettings(ScoredSettings):
    """What is fitted to them and predicted; the same for whatever shows a study."""

    law: str = "all"
    loss_function: str = RHO
    delta: float = DELTA
    target_compute: list[float] = field(default_factory=list)
    target: str | None = None
    predict: str | None = None
    fix: Fix = field(default_factory=Fix)
    bootstrap: int = 1000
    seed: int = 0

    def check(self) -> None:
        """Refuse what cannot be meant; see RunSettings."""
        super().check()
        self.fix.check()
        if self.fix.words and self.law not in ("all", "chinchilla", "hoffmann"):
            raise UsageError(
                f"fix.: {self.fix.words} concerns law=chinchilla (or all), not law={self.law}: leave it out"
            )
        if self.bootstrap < 1 or not 0 < self.delta < float("inf"):
            raise UsageError(f"bootstrap={self.bootstrap}, delta={self.delta}: both must be positive and finite")
        if self.seed < 0:
            raise UsageError(f"seed={self.seed}: zero or more")
        if self.loss_function == "least_squares" and self.delta != DELTA:
            raise UsageError(f"delta={self.delta}: least squares turn nowhere; leave it out, or name another function")
        if self.loss_function not in LOSS_FUNCTIONS:
            near = nearest(self.loss_function, LOSS_FUNCTIONS)
            raise UsageError(f"loss_function={self.loss_function}{near}: allowed are {', '.join(LOSS_FUNCTIONS)}")
        _check_targets(self.target_compute)


@dataclass(kw_only=True)
class ReportSettings(StudySettings):
    """What ``dashboards.report`` takes."""

    out: str | None = None

    def check(self) -> None:
        """Refuse what cannot be meant; see RunSettings."""
        super().check()
        _check_folder(self.out)

    def folder(self, default: Path) -> Path:
        """Where files go: what the user said, or a default."""
        return _folder(self.out, default)


@dataclass(kw_only=True)
class FitSettings(ReportSettings):
    """What ``analysis.fit`` takes."""

    figures: bool = True
    tables: str = NO

    def check(self) -> None:
        """Refuse what cannot be meant; see RunSettings."""
        super().check()
        if self.tables not in (NO, EVERY):
            raise UsageError(f"tables={self.tables}: allowed are {NO} (the answer alone) and {EVERY}")


@dataclass(kw_only=True)
class DesignSettings(ScoredSettings):
    """What ``analysis.design`` takes."""

    candidates: str | None = None
    running: str | None = None
    target: str = "loss"
    target_compute: float | None = None
    largest: float | None = None
    batch: int = 4
    stop: float = 0.9
    worth: float | None = None
    usd_per_hour: float | None = None
    out: str | None = None

    def check(self) -> None:
        """Refuse what cannot be meant; see RunSettings."""
        super().check()
        if self.batch < 1 or not 0 < self.stop < 1:
            raise UsageError(f"batch={self.batch}, stop={self.stop}: batch is at least 1, stop lies between 0 and 1")
        for name, what in (
            ("target_compute", "FLOPs, positive (like 1e24)"),
            ("largest", "FLOPs of the largest run that may be proposed, positive (like 1e23)"),
            ("worth", "the most that a tenth off the interval may cost, positive"),
            ("usd_per_hour", "the price of an hour of a run, positive"),
        ):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise UsageError(f"{name}={value}: {what}")
        _check_folder(self.out)
        if self.scores and not self.target.startswith("accuracy"):
            raise UsageError(f"scores=[{self.scores[0]}] has no effect with target={self.target}: leave it out")
        if self.largest is not None and self.candidates is not None:
            raise UsageError(
                f"largest={self.largest:g} has no effect with candidates=: leave it out, or shorten the file"
            )


@dataclass(kw_only=True)
class CompareSettings:
    """What ``analysis.compare`` takes: two ladders, A first, and what is the same for both."""

    runs: list[str] = field(default_factory=list)
    sweep: list[str] = field(default_factory=list)
    by: str | None = None
    arms: list[str] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)
    domains: dict[str, str] = field(default_factory=dict)
    N: str | None = None
    C: str | None = None
    exclude: list[str] = field(default_factory=list)
    min_tokens: float | None = None
    min_compute: float | None = None
    max_compute: float | None = None
    rules: list[str] = field(default_factory=lambda: [EVERY])
    precision: str | None = None
    fix: Fix = field(default_factory=Fix)
    paired: bool | None = None
    target_compute: list[float] = field(default_factory=list)
    out: str | None = None
    figures: bool = True

    def check(self) -> None:
        """Refuse what cannot be meant; see RunSettings."""
        _check_empty(self)
        self.of("").check()
        self.fix.check()
        _check_targets(self.target_compute)
        if self.arms and self.by is None:
            raise UsageError(f"arms=[{', '.join(self.arms)}]: by=COLUMN says which column of the table they are of")
        _check_folder(self.out)

    def folder(self, default: Path) -> Path:
        """Where files go: what the user said, or a default."""
        return _folder(self.out, default)

    def of(self, runs: str, sweep: str | None = None, loss: str | None = None) -> RunSettings:
        """The settings of one ladder.

        Args:
            loss: the column of one held-out domain, in the place of ``columns.loss``.
        """
        return RunSettings(
            runs=runs,
            sweep=sweep,
            columns=self.columns | ({"loss": loss} if loss else {}),
            N=self.N,
            C=self.C,
            exclude=self.exclude,
            min_tokens=self.min_tokens,
            min_compute=self.min_compute,
            max_compute=self.max_compute,
            rules=self.rules,
            precision=self.precision,
        )


BATCH_ON = ("D", "ND")


@dataclass(kw_only=True)
class HparamSettings(RunSettings):
    """What ``analysis.hparams`` takes: runs that differ in learning rate and batch, and where their rule goes."""

    rules: list[str] = field(default_factory=lambda: [name for name in RULES if name not in OF_TUNING])
    batch_on: str = BATCH_ON[0]
    target_n: list[float] = field(default_factory=list)
    target_d: list[float] = field(default_factory=list)
    bootstrap: int = 200
    seed: int = 0
    name: str | None = None
    out: str | None = None
    figures: bool = True

    def check(self) -> None:
        """Refuse what cannot be meant; see RunSettings."""
        super().check()
        if self.batch_on not in BATCH_ON:
            raise UsageError(f"batch_on={self.batch_on}: allowed are D (batch*(D)) and ND (batch*(N, D))")
        for name in ("target_n", "target_d"):
            if any(not 0 < value < float("inf") for value in getattr(self, name)):
                raise UsageError(f"{name}={getattr(self, name)}: positive numbers (like 1e9)")
        if bool(self.target_n) != bool(self.target_d):
            raise UsageError("target_n and target_d go together: parameters and tokens, each with each")
        if self.bootstrap < 0:
            raise UsageError(f"bootstrap={self.bootstrap}: resamples, zero or more")
        if self.out and Path(self.out).suffix not in (".yaml", ".yml"):
            raise UsageError(f"out={self.out}: the rule's file, a .yaml")


def _check_empty(settings: Any) -> None:
    for f in fields(settings):
        value = getattr(settings, f.name)
        if f.name != "runs" and (value == "" or (isinstance(value, list) and "" in value)):
            raise UsageError(f"{f.name}='': an empty text names nothing; leave it out")


def _check_targets(compute: list[float]) -> None:
    if any(not 0 < c < float("inf") for c in compute):
        raise UsageError(f"target_compute={compute}: FLOPs, positive (like 1e14)")


def _check_folder(out: str | None) -> None:
    try:
        taken = out is not None and Path(out).expanduser().is_file()
    except OSError as error:
        raise UsageError(f"out={out:.200}: {error.strerror}; name a folder") from error
    if taken:
        raise UsageError(f"out={out}: a file is there; name a folder")


def _folder(out: str | None, default: Path) -> Path:
    return Path(out).expanduser().absolute() if out else default
