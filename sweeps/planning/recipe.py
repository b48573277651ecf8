"""What a researcher writes: a recipe, a YAML file over typed defaults, with ``key=value`` of the command line on top.

``family`` selects the ladder of model sizes and with it the dataclass: a key that a ladder does not use is one that it
does not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from gpt3core import cli, hints
from gpt3core.errors import UsageError
from gpt3core.rule import Rule
from sweeps.planning import precedence, rules
from sweeps.planning.models import Gpt3Model, NanoModel, ShapesModel
from sweeps.planning.sections import Anomaly as Anomaly
from sweeps.planning.sections import Limit as Limit
from sweeps.planning.train_options import Train

FOLDER = Path(__file__).parent.parent / "recipes"
KEYS = "python sweeps/sizes.py --keys"
SEARCH = "search"
COMMANDS = ("replace", "extend")  # what this one command does to a sweep's name; never kept


@dataclass
class Data:
    """The text."""

    corpus: str = "starter"  # or the path of .txt / .jsonl files, or of a folder that was prepared
    weights: dict[str, float] = field(default_factory=dict)  # of each source of the corpus; by default its own
    episodes: float = 0.0  # share of the training tokens that are generated, to teach learning from examples
    tokenizer: str = "gpt2:1024"
    validation_fraction: float = 0.06
    max_epochs: float = 40.0  # a run that would see its text, or one source of it, more often is refused
    mask_documents: bool = False  # documents of one sequence do not see each other (in GPT-3 they do)


@dataclass
class Optim:
    """The rules from which each run's hyperparameters follow."""

    rule: Rule | None = None  # of each run's learning rate and batch, by N and D: a published one's name, or a file
    lr: float | None = None  # of all sizes, with model.mup_base_width; by default the rule's at that width
    lr_max: float = 0.012
    lr_times_width: float = 0.6  # lr = min(lr_max, lr_times_width / d_model)
    # tokens per step = this * sqrt(tokens / 1e6), in whole sequences, clipped; under wsd of 20 tokens a parameter
    batch_tokens_at_1m: float = 768
    batch_tokens_min: int = 256
    batch_tokens_max: int = 2048
    warmup_fraction: float = 0.2  # of the run's tokens; under wsd of 20 a parameter
    schedule: str = "cosine"  # cosine | wsd: runs of one size share all steps before their decay
    decay_fraction: float = 0.2  # of the run's tokens, under wsd
    decay_shape: str = "linear"  # linear | 1-sqrt, under wsd
    final_fraction: float = 0.1
    weight_decay: float = 0.1
    clip: float = 1.0


@dataclass
class Gpt3Optim:
    """Around Table 2.1's learning rates and batches: appendix B of the paper, in proportion where tokens are fewer."""

    rule: Rule | None = None  # in place of the table's learning rates and batches
    lr: float | None = None  # of all sizes, with model.mup_base_width; by default the table's of that width
    lr_factor: float = 1.0  # times the table's learning rate
    ramp_start: float = 0.0  # tokens of the first batches (the paper's are 32k), in whole sequences; 0 for no ramp
    ramp_tokens: float | None = None  # until a batch is the table's; by default 4e9 for 125M to 12e9 for 175B
    warmup_tokens: float = 375e6  # of a run of 300e9 tokens
    cosine_tokens: float = 260e9  # of a run of 300e9 tokens; constant after
    schedule: str = "cosine"  # cosine | wsd: runs of one size share all steps before their decay
    decay_fraction: float = 0.2  # of the run's tokens, under wsd
    decay_shape: str = "linear"  # linear | 1-sqrt, under wsd
    final_fraction: float = 0.1
    weight_decay: float = 0.1
    clip: float = 1.0


@dataclass
class Evals:
    """What is measured at the end of a run."""

    tasks: list[str] = field(default_factory=list)
    shots: list[int] = field(default_factory=lambda: [0, 1, 4, 16])
    items: int = 200
    files: dict[str, list[str]] = field(default_factory=dict)  # a task's items: {hellaswag: val.jsonl}, or [val, train]
    validation_tokens: int = 262_144
    run_programs: bool = False  # whether tasks that run what a model writes may do so: no sandbox (docs/evaluation.md)


@dataclass
class Prune:
    """Whether runs under way are stopped that can no longer change the law, each with its checkpoint and its reason."""

    by_value: float | None = None  # share of the law's own 95% intervals that all of them together may move it by
    target: float | None = None  # FLOPs at which the law is asked; by default ten times the largest run's


@dataclass
class Placement:
    """Where runs go. Changes the cost of a run, never its result; not part of its identity."""

    workers: int = 1  # ranks a run; plans of recipe=gpt3 take 1 for the fewest GPUs that do in plan.max_days
    tensor: int | None = None  # of these, ranks that share every matrix; chosen where runs are large, else 1
    pipeline: int | None = None  # ranks that share the blocks
    context: int | None = None  # ranks that share the positions of a sequence
    cpus: float = 1.0  # cores a rank: as many threads, where it trains on them
    gpus: float = 0.0  # GPUs a rank; below one, so many runs share a GPU
    accelerator: str | None = None  # the GPU of its nodes, as Ray labels them (H100, A100, ...); by default any
    rack: str | None = None  # a label of nodes (ray.io/gpu-domain, ...) of which a gang's nodes must share the value
    preempt: bool = False  # runs of lower priority write their checkpoint and make room
    patience_hours: float = 24.0  # of waiting that a step of priority is worth: nobody is overtaken for longer
    min_workers: int | None = None  # ranks that do, of data-parallel replicas, where nodes are missing; default: all
    shrink_seconds: float = 60.0  # that a run waits for all of its workers where fewer do
    max_failures: int = 3  # crashes without a newer checkpoint in between; lost nodes count for nothing
    stall_seconds: float = 600.0  # without a new step (or 20 of its steps) a run is ended, and resumed
    hang_seconds: float = 45.0  # a rank that does not come to a collective for so long is named, and its gang resumed
    checkpoint_seconds: float = 10.0


@dataclass
class Own:
    """What runs of one size have of their own, in place of ``placement``; null for the same."""

    workers: int | None = None
    tensor: int | None = None
    pipeline: int | None = None
    context: int | None = None
    cpus: float | None = None
    gpus: float | None = None
    accelerator: str | None = None
    rack: str | None = None
    priority: int = 0  # higher goes first, until others have waited for placement.patience_hours longer


@dataclass
class Hardware:
    """What is assumed about GPUs, for --plan and for estimates of time."""

    gpu: str = "H100"
    max_days: float = 30.0
    gpus: int | None = None  # of a cluster: the most that a run may take, and the whole sweep's wall-clock on it
    gpus_of: dict[str, int] = field(default_factory=dict)  # of these, the ones of other kinds: {A100: 64}
    rack_nodes: int | None = None  # of that cluster, in each rack; by default all are one
    node_hours: float | None = None  # between two losses of one of its nodes, on average; by default none is lost
    mfu: float | None = None  # share of the peak that a working GPU reaches; recomputation and bubbles come on top
    usd_per_gpu_hour: float | None = None  # of every kind but for those of ...
    usd_per_gpu_hour_of: dict[str, float] = field(default_factory=dict)  # ... which have their own: {A100: 1.2}


@dataclass(kw_only=True)
class Recipe:
    """A sweep: model sizes x budgets. What every ladder has; each adds its own fields."""

    name: str = "custom"
    family: str = "nano"
    min_tokens: float = 4e5  # cells with fewer tokens are left out, and such runs out of the fit
    seed: int = 0
    replicas: int = 1  # seeds per cell: seed, seed + 1, ...
    replicas_below_flops: float | None = None  # only for cells of at most so many training FLOPs
    adaptive: bool = False  # take the runs one by one, each where it tells most about adaptive_target
    adaptive_share: float = 0.5  # of the grid's FLOPs that may be spent so
    adaptive_target: float | None = None  # FLOPs; by default ten times the largest run's
    prune: Prune = field(default_factory=Prune)
    precision: str = "auto"  # auto | fp32 | bf16 | fp16 (with a loss scale; never by auto)
    kernel: str = "auto"  # auto | softmax | sdpa | native | wide
    compile: str = "auto"  # auto | none | blocks | all (blocks and loss): torch.compile, where it pays within the run
    anomaly: Anomaly = field(default_factory=Anomaly)
    train: Train = field(default_factory=Train)
    data: Data = field(default_factory=Data)
    evals: Evals = field(default_factory=Evals)
    placement: Placement = field(default_factory=Placement)
    placement_of: dict[str, Own] = field(default_factory=dict)  # by size: {175B: {workers: 1024, priority: 1}}
    limit: Limit = field(default_factory=Limit)
    plan: Hardware = field(default_factory=Hardware)
    replace: bool = False  # drop the runs that this name has and this command does not ask for
    extend: bool = False  # keep them too


@dataclass(kw_only=True)
class NanoRecipe(Recipe):
    """GPT-3's shape at small widths, each budget with the widths around its minimum."""

    widths: list[int] = field(default_factory=list)  # d_model of each size
    budgets: list[float] = field(default_factory=list)  # exact training FLOPs of each IsoFLOP budget
    # of these, a budget's sizes are those within a factor span of
    # center_params * (budget / center_flops) ** center_exponent non-embedding parameters
    center_params: float = 9e3
    center_flops: float = 1e11
    center_exponent: float = 0.72
    span: float = 5.0
    widths_at: dict[float, list[int]] = field(default_factory=dict)  # a budget's sizes, in place of the rule
    model: NanoModel = field(default_factory=NanoModel)
    optim: Optim = field(default_factory=Optim)


@dataclass(kw_only=True)
class ProfilesRecipe(Recipe):
    """GPT-3's shape at small widths, each budget with sizes that follow from the budgets below until they bracket."""

    family: str = "profiles"
    budgets: list[float] = field(default_factory=list)  # exact training FLOPs of each IsoFLOP budget
    points: int = 5  # sizes of a budget to begin with
    spacing: float = 1.5  # factor in N between neighbouring sizes
    beside: int = 1  # sizes that must have ended on either side of a budget's lowest
    most_points: int = 12  # sizes of a budget at most
    ahead: int = 1  # budgets that may begin where workers are free, while those below are not settled
    widths: list[int] = field(default_factory=list)  # d_model to choose from; by default every multiple of width_step
    width_step: int = 4
    # where the lowest budget begins, and how N* grows until two budgets tell
    center_params: float = 9e3
    center_flops: float = 1e11
    center_exponent: float = 0.72
    model: NanoModel = field(default_factory=NanoModel)
    optim: Optim = field(default_factory=Optim)


@dataclass(kw_only=True)
class Gpt3Recipe(Recipe):
    """Sizes of GPT-3's Table 2.1, each at every number of tokens."""

    family: str = "gpt3"
    sizes: list[str] = field(default_factory=list)  # names of Table 2.1
    tokens: list[float] = field(default_factory=list)
    model: Gpt3Model = field(default_factory=Gpt3Model)
    optim: Gpt3Optim = field(default_factory=Gpt3Optim)


@dataclass
class Shape:
    """One size of a list of explicit shapes."""

    n_layer: int = 0
    d_model: int = 0
    n_head: int = 0
    d_head: int | None = None  # d_model / n_head by default


@dataclass(kw_only=True)
class ShapesRecipe(Recipe):
    """A list of explicit shapes, each at every budget and at every number of tokens."""

    family: str = "shapes"
    shapes: list[Shape] = field(default_factory=list)
    budgets: list[float] = field(default_factory=list)  # exact training FLOPs
    tokens: list[float] = field(default_factory=list)
    model: ShapesModel = field(default_factory=ShapesModel)
    optim: Optim = field(default_factory=Optim)


FAMILIES: dict[str, type[Recipe]] = {
    "nano": NanoRecipe,
    "gpt3": Gpt3Recipe,
    "shapes": ShapesRecipe,
    "profiles": ProfilesRecipe,
}


def available(*, search: bool = False) -> list[str]:
    """Names of the recipes that come with isoflop: of sweeps of sizes, or of searches of hyperparameters."""
    files = FOLDER.glob("*.yaml")
    return sorted(path.stem for path in files if (f"\n{SEARCH}:" in path.read_text(encoding="utf-8")) == search)


def load(
    settings: Sequence[str],
    default: str = "laptop",
    *,
    beside: dict[str, Any] | None = None,
    own: Sequence[str] = (),
) -> Recipe:
    """The recipe that ``recipe=NAME_OR_FILE`` names, with the other ``key=value`` settings over it.

    Args:
        beside: takes a file's section ``search``, of which a sweep of sizes has no use.
        own: keys of the command itself, which a wrong one may have meant.

    Raises:
        UsageError: for an unknown recipe, key or value.
    """
    chosen = [s.split("=", 1)[1] for s in settings if s.startswith("recipe=")]
    typed = [s for s in settings if not s.startswith("recipe=")]
    if len(chosen) > 1:
        raise UsageError(f"recipe={chosen[0]} and recipe={chosen[1]}: one command drives one recipe; leave one out")
    path = cli.recipe_file(chosen[0] if chosen else default, FOLDER, available)
    written = cli.read_yaml(path)
    if SEARCH in written:
        if beside is None:
            raise UsageError(
                f"{path} describes a search of hyperparameters (its section {SEARCH}), not a sweep of sizes: "
                f"python sweeps/hparams.py recipe={chosen[0] if chosen else default}"
            )
        beside[SEARCH] = written.pop(SEARCH)
    keys = f"{KEYS} recipe={chosen[0]}" if chosen else KEYS
    family = _family(written.get("family", "nano"), typed, path)
    _check_ladder([*cli.dotted(written), *(s.split("=", 1)[0] for s in typed)], family)
    named, plain = rules.named(written, typed, path)
    base = cli.merge_config(FAMILIES[family], {"name": path.stem, **written}, str(path), command=keys)
    recipe: Any = cli.to_object(cli.merge(base, plain, command=keys, beside=own), str(path))
    assert isinstance(recipe, Recipe)
    getattr(recipe, "optim").rule = named  # noqa: B009 (each ladder has an optim of its own)
    precedence.settle(recipe, {s.split("=", 1)[0] for s in typed})
    return recipe


def _family(written: Any, typed: Sequence[str], path: Path) -> str:
    """The ladder's name, from the recipe: its other keys are that ladder's."""
    asked = [s.split("=", 1)[1] for s in typed if s.startswith("family=")]
    for name in (written, *asked):
        if not isinstance(name, str) or name not in FAMILIES:
            near = hints.nearest(str(name), tuple(FAMILIES))
            raise UsageError(f"family={name!r:.80}{near}: allowed are {', '.join(FAMILIES)}")
        if name != written:
            raise UsageError(
                f"family={name}: the recipe {path.stem} is of the family {written}; name a recipe of that family by "
                f"recipe=..., or write a file with family: {name}"
            )
    return str(written)


def _check_ladder(keys: Sequence[str], family: str) -> None:
    """Refuse a key that only another ladder has, by saying whose it is."""
    known = {name: keys_of(kind) for name, kind in FAMILIES.items()}
    for key in keys:
        owners = [name for name in FAMILIES if key in known[name]]
        if owners and family not in owners:
            near = hints.nearest_keys(key, known[family], 1)
            meant = f", did you mean {near[0]}?" if near else ""
            raise UsageError(
                f"{key}: the family {family} does not have it, only {' and '.join(owners)} (an unknown key here{meant})"
            )


def keys_of(kind: type[Any], prefix: str = "") -> tuple[str, ...]:
    """All dotted keys of a recipe's dataclass, leaves only."""
    found: list[str] = []
    for f in fields(kind):
        section = f.default_factory if isinstance(f.default_factory, type) and is_dataclass(f.default_factory) else None
        found += keys_of(section, f"{prefix}{f.name}.") if section else [f"{prefix}{f.name}"]
    return tuple(found)


def to_yaml(recipe: Recipe, *, commands: bool = False) -> str:
    """The whole recipe, defaults included, as YAML that ``recipe=PATH`` reads back.

    Args:
        commands: with the keys that say what one command does (``replace``, ``extend``), which no file keeps.
    """
    from omegaconf import OmegaConf

    config = OmegaConf.to_container(OmegaConf.structured(recipe))
    assert isinstance(config, dict)
    return OmegaConf.to_yaml({key: value for key, value in config.items() if commands or key not in COMMANDS})
