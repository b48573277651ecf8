"""The specification of a run: frozen dataclasses, canonical JSON, and the run_id that is its hash.

Every field that can change the trained weights is hashed into ``run_id``, and nothing else is: labels and the path of
the text are not, and what is evaluated (``gpt3core.evals.spec``) and where a run is placed are not here at all.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import cached_property
from types import NoneType
from typing import Any, get_args, get_origin

from gpt3core import sizes
from gpt3core.anomaly import AnomalySpec
from gpt3core.checks import as_floats, field_types, require_between, require_positive
from gpt3core.data import tokenizer, weights
from gpt3core.labelled import LabelledSpec
from gpt3core.model import registry
from gpt3core.model.architecture import ADDED as ADDED
from gpt3core.model.architecture import ModelSpec
from gpt3core.numerics import AUTO, BUILT, COMPILED, COMPILES, KERNELS, PRECISIONS, WIDE
from gpt3core.options import Options
from gpt3core.ramp import Ramp

TRAINER_VERSION = 4  # raise when the same specification would train to other weights
PIPELINE_VERSION = 4  # raise when the same text would give other tokens, in another order or split
OBJECTIVES = ("next_token", "labelled")
PRETRAINING = ("cosine", "wsd")  # schedules of a recipe
SCHEDULES = (*PRETRAINING, "linear")
DECAYS = ("linear", "1-sqrt")
RUN_ID = re.compile(r"[0-9A-Za-z.]+-[0-9a-f]{12}")
LABEL = {"hashed": False}  # metadata of a field that cannot change the weights


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """Which text, cut into which tokens, split how."""

    corpus: str = field(metadata=LABEL)  # "starter", the path of text, or of a folder that was prepared
    corpus_sha256: str  # of its content, wherever it lies
    tokenizer: str = "gpt2:1024"  # the first k ranks of the GPT-2 BPE, end-of-text included
    validation_fraction: float = 0.06  # of the text, held out by whole groups of documents
    pipeline_version: int = PIPELINE_VERSION
    weights: tuple[tuple[str, float], ...] = field(default=(), metadata=ADDED)  # of its sources; by default its own
    episodes: float = field(default=0.0, metadata=ADDED)  # share of the training tokens (gpt3core.data.episodes)

    def __post_init__(self) -> None:
        as_floats(self)
        named = {str(name): float(weight) for name, weight in self.weights}
        shares = weights.normalised(named) if named else {}
        object.__setattr__(self, "weights", tuple(sorted(shares.items())))
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"data.validation_fraction={self.validation_fraction}: it must lie between 0 and 1")
        if not 0 <= self.episodes < 1:
            raise ValueError(f"data.episodes={self.episodes}: the share that is generated lies from 0 to below 1")


@dataclass(frozen=True, kw_only=True)
class OptimSpec:
    """AdamW with GPT-3's constants (Brown et al. 2020, appendix B) and a schedule in tokens."""

    lr: float
    batch_tokens: int
    warmup_tokens: int
    schedule: str = "cosine"
    decay_tokens: int  # the decay ends here, and stays at final_fraction
    final_fraction: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1  # on matrices only
    clip: float = 1.0
    stable_tokens: int = field(default=0, metadata=ADDED)  # of wsd: the decay begins here
    decay_shape: str = field(default="linear", metadata=ADDED)  # of wsd: linear | 1-sqrt
    ramp_start: int = field(default=0, metadata=ADDED)  # tokens of the first batches, of which later ones are multiples
    ramp_tokens: int = field(default=0, metadata=ADDED)  # after which a batch has batch_tokens

    def __post_init__(self) -> None:
        as_floats(self)
        require_positive(self, "lr", "batch_tokens", "decay_tokens", "eps", "clip", where="optim.")
        require_between(self, 0, 1, "final_fraction", "weight_decay", where="optim.")
        require_between(self, 0, 1 - 1e-9, "beta1", "beta2", where="optim.")
        for name, value, allowed in (("schedule", self.schedule, SCHEDULES), ("decay_shape", self.decay_shape, DECAYS)):
            if value not in allowed:
                raise ValueError(f"optim.{name}={value!r}: allowed are {', '.join(allowed)}")
        wsd = self.schedule == "wsd"
        if not wsd and (self.stable_tokens, self.decay_shape) != (0, "linear"):
            raise ValueError(f"optim.schedule={self.schedule}: stable_tokens and decay_shape are of wsd only")
        if not 0 <= self.stable_tokens <= self.decay_tokens:
            raise ValueError(f"optim.stable_tokens={self.stable_tokens}: it must lie in 0..{self.decay_tokens}")
        most = self.stable_tokens if wsd else self.decay_tokens
        if not 0 <= self.warmup_tokens <= most:
            raise ValueError(f"optim.warmup_tokens={self.warmup_tokens}: it must lie in 0..{most}")
        if (self.ramp_start == 0) != (self.ramp_tokens == 0):
            raise ValueError(
                f"optim.ramp_start={self.ramp_start}, optim.ramp_tokens={self.ramp_tokens}: a ramp needs both, no ramp "
                "none"
            )
        require_between(self, 0, 10**18, "ramp_start", "ramp_tokens", where="optim.")
        if self.ramp_start and self.batch_tokens % self.ramp_start:
            raise ValueError(
                f"optim.ramp_start={self.ramp_start}: batch_tokens={self.batch_tokens} is no multiple of it, and a "
                "batch grows by whole first batches"
            )

    @cached_property
    def ramp(self) -> Ramp:
        """The batch of every step."""
        return Ramp(batch_tokens=self.batch_tokens, start=self.ramp_start or self.batch_tokens, tokens=self.ramp_tokens)


@dataclass(frozen=True, kw_only=True)
class Parent:
    """The checkpoint that a run goes on from, in place of fresh weights."""

    run_id: str
    step: int

    def __post_init__(self) -> None:
        if not RUN_ID.fullmatch(self.run_id):
            raise ValueError(
                f"parent.run_id={self.run_id[:80]!r}: a run's id is its size and 12 hex digits, like d16-0123456789ab"
            )
        require_positive(self, "step", where="parent.")


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One training run. ``run_id`` is its identity: the same specification is never trained twice."""

    model: ModelSpec
    data: DataSpec
    optim: OptimSpec
    tokens: int
    objective: str = "next_token"
    parent: Parent | None = None
    seed: int = 0
    precision: str = AUTO  # what was asked for: "auto" stays "auto"
    kernel: str = AUTO
    compile: str = field(default=AUTO, metadata=ADDED)  # none | blocks | all
    anomaly: AnomalySpec = field(default=AnomalySpec(), metadata=ADDED)
    trainer_version: int = TRAINER_VERSION
    budget_flops: float | None = field(default=None, metadata=LABEL)
    options: Options = field(default=Options(), metadata=ADDED)  # beside GPT-3's training
    noise_scale_every: int = field(default=0, metadata=LABEL)  # steps between measurements of it; 0 measures nothing
    labelled: LabelledSpec | None = field(default=None, metadata=ADDED)  # examples that the parent is fine-tuned on

    def __post_init__(self) -> None:
        require_positive(self, "tokens")
        require_between(self, 0, 2**63 - 1, "seed")
        require_between(self, 0, 10**9, "noise_scale_every")
        for name, value, allowed in (
            ("precision", self.precision, PRECISIONS),
            ("kernel", self.kernel, KERNELS),
            ("compile", self.compile, COMPILES),
            ("objective", self.objective, OBJECTIVES),
        ):
            if value not in allowed:
                raise ValueError(f"{name}={value!r}: allowed are {', '.join(allowed)}")
        self._check_together()
        for name, batch in (("batch_tokens", self.optim.batch_tokens), ("ramp_start", self.optim.ramp.start)):
            if batch % self.unit_tokens:
                what = f"sequences of n_ctx={self.model.n_ctx}" if self.labelled is None else "examples"
                raise ValueError(f"{name}={batch} is not a whole number of {what}, of {self.unit_tokens} tokens each")
        if (whole := self.tokens_at(self.steps)) != self.tokens:
            raise ValueError(
                f"tokens={self.tokens} is not a whole number of batches of {self.optim.batch_tokens}: {whole} are"
            )

    def _check_compiled(self) -> None:
        """Refuse what is not compiled."""
        if self.kernel in BUILT:
            raise ValueError(f"kernel={self.kernel!r} is compiled already: give compile=none, or another kernel")
        if self.options.drops:
            raise ValueError(
                f"compile={self.compile!r} with dropout: masks are drawn by the numbers of sequences, which every step "
                "would compile anew; leave compile at auto, or dropout out"
            )
        if self.compile == "all" and self.options.label_smoothing:
            raise ValueError(
                f"compile='all' with options.label_smoothing={self.options.label_smoothing}: a smoothed loss is not "
                "compiled; give compile=blocks or auto, or leave the smoothing out"
            )

    def _check_together(self) -> None:
        """Refuse what does not go together."""
        if self.compile in COMPILED:
            self._check_compiled()
        if self.kernel == WIDE and self.precision == "fp16":
            raise ValueError(
                f"kernel={self.kernel} with precision={self.precision}: it knows fp32 and bf16; give precision=fp32, "
                "bf16 or auto, or another kernel"
            )
        if self.noise_scale_every and self.precision == "fp16":
            raise ValueError(
                f"noise_scale_every={self.noise_scale_every} with precision=fp16: its gradients are scaled and some "
                "updates left out; measure the noise scale in bf16 or fp32"
            )
        if self.kernel in self.options.without_kernels:
            raise ValueError(
                f"kernel={self.kernel}, options.attention_dropout={self.options.attention_dropout}: its attention "
                "drops nothing; give kernel=softmax, sdpa or auto, or options.dropout alone"
            )
        if self.model.document_end is not None and (self.options.attention_dropout or self.compile in COMPILED):
            key = f"compile={self.compile!r}" if self.compile in COMPILED else "options.attention_dropout"
            raise ValueError(
                f"model.document_end={self.model.document_end} with {key}: attention that is compiled, or drops "
                "probabilities, does not tell documents apart; leave one of them out"
            )
        if self.options.stop_every and self.optim.schedule == "wsd":
            raise ValueError(
                f"options.stop_every={self.options.stop_every}: a run of optim.schedule=wsd shares its steps with "
                "longer and shorter ones, and must not stop early; give another schedule"
            )
        if (self.objective == "labelled") != (self.labelled is not None) or (self.labelled and self.parent is None):
            raise ValueError(
                f"objective={self.objective}, labelled={self.labelled}, parent={self.parent}: a fine-tuning run has "
                "objective=labelled, its examples and the run that it goes on from; any other has neither"
            )
        if self.labelled is not None:
            self._check_labelled(self.labelled)
        told = self.model.document_end
        if told is not None and told != (end := tokenizer.end_of_text(self.data.tokenizer)):
            raise ValueError(
                f"model.document_end={told}: data.tokenizer={self.data.tokenizer} ends documents with {end}; give "
                "that, or null to mask none"
            )

    def _check_labelled(self, labelled: LabelledSpec) -> None:
        """Refuse what fine-tuning does not do."""
        if labelled.length > self.model.n_ctx:
            raise ValueError(
                f"labelled.length={labelled.length}: the longest example has more tokens than n_ctx={self.model.n_ctx}"
            )
        if self.options.stop_every or self.noise_scale_every:
            raise ValueError(
                f"options.stop_every={self.options.stop_every}, noise_scale_every={self.noise_scale_every}: both "
                "measure the loss of text, which fine-tuning does not train on; leave them out"
            )

    @property
    def unit_tokens(self) -> int:
        """Positions of what a batch has a whole number of: a sequence, or a labelled example in all its sequences."""
        return self.model.n_ctx if self.labelled is None else self.labelled.unit_tokens

    @property
    def first_step(self) -> int:
        """Steps that are its parent's: a branch goes on counting, and fine-tuning begins anew."""
        return 0 if self.parent is None or self.labelled is not None else self.parent.step

    @cached_property
    def steps(self) -> int:
        """Optimizer steps, counted from the first of the parent that it is a branch of, where there is one."""
        return self.optim.ramp.steps_within(self.tokens)

    def tokens_at(self, step: int) -> int:
        """Tokens trained before a step, those of the parent included."""
        return self.optim.ramp.tokens_at(step)

    @property
    def label(self) -> str:
        """The size's name: GPT-3's where the shape is one of Table 2.1, else its width."""
        return sizes.label(self.model)

    @cached_property
    def run_id(self) -> str:
        """``<label>-<12 hex digits of the sha256 of the hashed fields>``."""
        return f"{self.label}-{hashlib.sha256(canonical_json(hashed(self)).encode()).hexdigest()[:12]}"


def hashed(spec: Any) -> dict[str, Any]:
    """The fields of a specification that can change the trained weights, as plain data."""
    found: dict[str, Any] = {}
    for f in fields(spec):
        value = getattr(spec, f.name)
        default = f.default if f.default_factory is MISSING else f.default_factory()
        if f.metadata.get("hashed", True) and not (f.metadata.get("added") and value == default):
            found[f.name] = hashed(value) if is_dataclass(value) else value
    return found


def as_dict(spec: Any) -> dict[str, Any]:
    """All fields of a specification, labels included, as plain data."""
    values = {f.name: getattr(spec, f.name) for f in fields(spec)}
    return {name: as_dict(value) if is_dataclass(value) else value for name, value in values.items()}


def canonical_json(data: Any) -> str:
    """JSON with one spelling: sorted keys, no spaces, shortest floats, no NaN."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


def to_json(spec: Any) -> str:
    """The whole specification, labels included, as readable JSON."""
    return json.dumps(as_dict(spec), indent=1, sort_keys=True, allow_nan=False) + "\n"


AN_OBJECT = "an object with fields"
PLAIN: dict[Any, str] = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}


def from_dict(cls: type[Any], data: Any) -> Any:
    """Rebuild a specification from plain data. Raises ValueError for missing, unknown or mistyped fields."""
    if not isinstance(data, dict):
        raise ValueError(f"{cls.__name__}: an object with fields is needed, not {data!r:.50}")
    kind: Any = registry.named(data.get("architecture")).spec if cls is ModelSpec else cls
    types = field_types(kind)
    known = {f.name: f for f in fields(kind)}
    if unknown := sorted(set(data) - set(known)):
        raise ValueError(f"{kind.__name__}: unknown field {unknown[0]!r}; known are {', '.join(known)}")
    values = {}
    for name, f in known.items():
        if name in data:
            nested = _dataclass_of(types[name])
            if wanted := _wrong(types[name], data[name]):
                raise ValueError(f"{kind.__name__}: field {name!r} is {data[name]!r:.50}: {wanted} is needed")
            values[name] = data[name] if nested is None or data[name] is None else from_dict(nested, data[name])
        elif f.default is MISSING and f.default_factory is MISSING:
            raise ValueError(f"{kind.__name__}: field {name!r} is missing")
    return kind(**values)


def _wrong(annotation: Any, value: Any) -> str:
    """What a field of this type needs and this value is not; empty where nothing is wrong, or its class will tell."""
    if annotation in PLAIN:
        return "" if _plain(annotation, value) else PLAIN[annotation]
    inner, origin = get_args(annotation), get_origin(annotation)
    if NoneType in inner:
        return "" if value is None else _wrong(next(a for a in inner if a is not NoneType), value)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return "a list"
        kinds = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
        if len(kinds) != len(value):
            return f"a list of {len(kinds)}"
        return next(filter(None, map(_wrong, kinds, value)), "")
    if origin is dict:
        if not isinstance(value, dict):
            return AN_OBJECT
        return next(filter(None, (_wrong(inner[1], v) for v in value.values())), "")
    return AN_OBJECT if value is None and is_dataclass(annotation) else ""


def _plain(kind: type[Any], value: Any) -> bool:
    """Whether this is text, a number or a truth; a whole number may be written as 1.0, and true is none."""
    if kind is int and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, (int, float) if kind is float else kind) and (kind is bool or not isinstance(value, bool))


def _dataclass_of(annotation: Any) -> type[Any] | None:
    """The dataclass of a field's type, optional or not; None for plain values."""
    for kind in (annotation, *(a for a in get_args(annotation) if a is not NoneType)):
        if is_dataclass(kind) and isinstance(kind, type):
            return kind
    return None


def explain(a: RunSpec, b: RunSpec) -> list[str]:
    """The hashed fields in which two specifications differ, as ``model.d_model: 64 -> 96``."""
    left, right = flat(as_dict(a)), flat(as_dict(b))
    counted = {*flat(hashed(a)), *flat(hashed(b))}
    names = [name for name in dict.fromkeys([*left, *right]) if name in counted]
    return [f"{n}: {left.get(n)} -> {right.get(n)}" for n in names if left.get(n) != right.get(n)]


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested plain data by dotted names."""
    if isinstance(value, dict):
        return {k: v for name, item in value.items() for k, v in flat(item, f"{prefix}{name}.").items()}
    return {prefix[:-1]: value}
