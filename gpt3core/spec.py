"""The specification of a run: frozen dataclasses, canonical JSON, and the run_id that is its hash.

Every field that can change the result is hashed into ``run_id``; labels (``size``, ``budget_flops``) are not, and
placement (devices, retries, checkpoint interval) is not here at all: it changes the cost of a point, never the point.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from typing import Any, get_type_hints

ATTENTION_PATTERNS = ("dense", "alternating")
PRECISIONS = ("auto", "fp32", "bf16")
KERNELS = ("auto", "softmax", "sdpa")
TRAINER_VERSION = 1  # raise when the same specification would train to another loss


def _as_floats(instance: Any) -> None:
    """Store integers given for float fields as floats, so that 1 and 1.0 are the same specification."""
    for f in fields(instance):
        value = getattr(instance, f.name)
        if f.type in ("float", float) and isinstance(value, int) and not isinstance(value, bool):
            object.__setattr__(instance, f.name, float(value))


def require_positive(instance: Any, *names: str, where: str = "") -> None:
    """Refuse fields that are not above zero.

    Raises:
        ValueError: naming the first of them, after ``where``.
    """
    for name in names:
        value = getattr(instance, name)
        if not value > 0:
            raise ValueError(f"{where}{name}={value}: it must be positive")


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Shape of a GPT-3 decoder (Brown et al. 2020, section 2.1): pre-LayerNorm, learned positions, GELU, tied head."""

    n_layer: int
    d_model: int
    n_head: int
    d_head: int
    n_ctx: int
    vocab_size: int
    attention: str = "alternating"  # dense | alternating: layer 0 locally banded, layer 1 dense, layer 2 banded, ...
    band: int = 128  # keys that a banded layer sees, itself included (the paper does not print GPT-3's)
    init_std: float = 0.02  # GPT-2; residual projections get init_std / sqrt(2 n_layer)

    def __post_init__(self) -> None:
        _as_floats(self)
        require_positive(self, "n_layer", "d_model", "n_head", "d_head", "n_ctx", "vocab_size", "band", "init_std")
        if self.attention not in ATTENTION_PATTERNS:
            raise ValueError(f"model.attention={self.attention!r}: allowed are {', '.join(ATTENTION_PATTERNS)}")

    def window(self, layer: int) -> int:
        """Keys that a query of this layer can see at most (itself included)."""
        banded = self.attention == "alternating" and layer % 2 == 0
        return min(self.band, self.n_ctx) if banded else self.n_ctx


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """Which text, cut into which tokens, split how."""

    corpus: str  # "starter", or the path of a text file, a JSONL file or a folder of them
    corpus_sha256: str  # of the raw text's packages or files: the same text is the same data
    tokenizer: str = "gpt2:1024"  # the first k ranks of the GPT-2 BPE, end-of-text included
    validation_fraction: float = 0.06  # of the document groups, by hash

    def __post_init__(self) -> None:
        _as_floats(self)
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"data.validation_fraction={self.validation_fraction}: it must lie between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class OptimSpec:
    """AdamW with GPT-3's constants (Brown et al. 2020, appendix B) and a schedule in tokens."""

    lr: float
    batch_tokens: int
    warmup_tokens: int
    schedule: str = "cosine"
    decay_tokens: int  # the cosine ends here, and stays at final_fraction
    final_fraction: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1  # on matrices only
    clip: float = 1.0

    def __post_init__(self) -> None:
        _as_floats(self)
        require_positive(self, "lr", "batch_tokens", "decay_tokens", "eps", "clip")
        if self.schedule != "cosine":
            raise ValueError(f"optim.schedule={self.schedule!r}: allowed is cosine")
        if not 0 <= self.warmup_tokens <= self.decay_tokens:
            raise ValueError(f"optim.warmup_tokens={self.warmup_tokens}: it must lie in 0..{self.decay_tokens}")


@dataclass(frozen=True, kw_only=True)
class EvalSpec:
    """What is measured at the end of the run."""

    tasks: tuple[str, ...] = ()
    shots: tuple[int, ...] = (0, 1, 4, 16)
    items: int = 128  # per task and number of shots
    validation_tokens: int = 262_144

    def __post_init__(self) -> None:
        object.__setattr__(self, "tasks", tuple(self.tasks))
        object.__setattr__(self, "shots", tuple(int(k) for k in self.shots))
        require_positive(self, "items", "validation_tokens")
        if any(k < 0 for k in self.shots):
            raise ValueError(f"evals.shots={list(self.shots)}: numbers of examples, 0 or more")


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One training run. ``run_id`` is its identity: the same specification is never trained twice."""

    model: ModelSpec
    data: DataSpec
    optim: OptimSpec
    evals: EvalSpec
    tokens: int
    seed: int = 0
    precision: str = "auto"  # auto: timed once on the machine, recorded with the run, kept on resume
    kernel: str = "auto"
    trainer_version: int = TRAINER_VERSION
    size: str = field(default="model", metadata={"hashed": False})
    budget_flops: float | None = field(default=None, metadata={"hashed": False})

    def __post_init__(self) -> None:
        require_positive(self, "tokens")
        for name, value, allowed in (("precision", self.precision, PRECISIONS), ("kernel", self.kernel, KERNELS)):
            if value not in allowed:
                raise ValueError(f"{name}={value!r}: allowed are {', '.join(allowed)}")
        if self.tokens % self.optim.batch_tokens:
            raise ValueError(f"tokens={self.tokens} is not a whole number of batches of {self.optim.batch_tokens}")
        if self.optim.batch_tokens % self.model.n_ctx:
            raise ValueError(
                f"batch_tokens={self.optim.batch_tokens} is not a whole number of sequences of n_ctx={self.model.n_ctx}"
            )

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return self.tokens // self.optim.batch_tokens

    @property
    def run_id(self) -> str:
        """``<size>-<12 hex digits of the sha256 of the hashed fields>``."""
        return f"{self.size}-{hashlib.sha256(canonical_json(self.hashed()).encode()).hexdigest()[:12]}"

    def hashed(self) -> dict[str, Any]:
        """The fields that can change the result, as plain data."""
        labels = {f.name for f in fields(self) if not f.metadata.get("hashed", True)}
        return {name: value for name, value in asdict(self).items() if name not in labels}


def canonical_json(data: Any) -> str:
    """JSON with one spelling: sorted keys, no spaces, shortest floats, no NaN."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


def to_json(spec: RunSpec) -> str:
    """The whole specification, labels included, as readable JSON."""
    return json.dumps(asdict(spec), indent=1, sort_keys=True, allow_nan=False) + "\n"


def from_dict(cls: type[Any], data: dict[str, Any]) -> Any:
    """Rebuild a specification from plain data. Raises ValueError for missing or unknown fields."""
    types = get_type_hints(cls)
    known = {f.name: f for f in fields(cls)}
    if unknown := sorted(set(data) - set(known)):
        raise ValueError(f"{cls.__name__}: unknown field {unknown[0]!r}; known are {', '.join(known)}")
    values = {}
    for name, f in known.items():
        if name in data:
            nested = is_dataclass(types[name])
            values[name] = from_dict(types[name], data[name]) if nested else data[name]
        elif f.default is MISSING and f.default_factory is MISSING:
            raise ValueError(f"{cls.__name__}: field {name!r} is missing")
    return cls(**values)


def from_json(text: str) -> RunSpec:
    """Rebuild a RunSpec from ``to_json``."""
    spec: RunSpec = from_dict(RunSpec, json.loads(text))
    return spec


def explain(a: RunSpec, b: RunSpec) -> list[str]:
    """The hashed fields in which two specifications differ, as ``model.d_model: 64 -> 96``."""

    def flat(prefix: str, value: Any) -> dict[str, Any]:
        if isinstance(value, dict):
            return {k: v for name, item in value.items() for k, v in flat(f"{prefix}{name}.", item).items()}
        return {prefix[:-1]: value}

    left, right = flat("", a.hashed()), flat("", b.hashed())
    return [f"{name}: {left[name]} -> {right[name]}" for name in left if left[name] != right[name]]
