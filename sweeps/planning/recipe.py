"""What a researcher writes: a recipe, as a YAML file over typed defaults, with ``key=value`` on the command line on
top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt3core import cli
from gpt3core.errors import UsageError

FOLDER = Path(__file__).parent.parent / "recipes"
MAX_BYTES = 1_000_000


@dataclass
class Model:
    """The shape that all sizes of a nano ladder share."""

    n_layer: int = 2
    n_head: int | None = None  # by default heads about 32 wide
    n_ctx: int = 128
    attention: str = "alternating"  # alternating (banded, dense, ...) | dense
    band: int = 4


@dataclass
class Data:
    """The text."""

    corpus: str = "starter"  # or the path of .txt / .jsonl files
    tokenizer: str = "gpt2:1024"
    validation_fraction: float = 0.06


@dataclass
class Optim:
    """The rules from which each run's hyperparameters follow."""

    lr_max: float = 0.012
    lr_times_width: float = 0.6  # lr = min(lr_max, lr_times_width / d_model)
    batch_tokens_at_1m: float = 768  # tokens per step = this * sqrt(tokens / 1e6), in whole sequences, clipped:
    batch_tokens_min: int = 256
    batch_tokens_max: int = 2048
    warmup_fraction: float = 0.2  # of the run's tokens
    final_fraction: float = 0.1
    weight_decay: float = 0.1
    clip: float = 1.0


@dataclass
class Evals:
    """What is measured at the end of a run."""

    tasks: list[str] = field(default_factory=list)
    shots: list[int] = field(default_factory=lambda: [0, 1, 4, 16])
    items: int = 200
    validation_tokens: int = 262_144


@dataclass
class Placement:
    """Where runs go. Changes the cost of a run, never its result; not part of its identity."""

    workers: int = 1  # data-parallel ranks a run
    cpus: float = 1.0  # cores a rank
    gpus: float = 0.0  # GPUs a rank
    max_failures: int = 3
    checkpoint_seconds: float = 10.0


@dataclass
class Plan:
    """What --plan assumes about hardware."""

    gpu: str = "H100"
    max_days: float = 30.0
    mfu: float | None = None  # model FLOPs utilisation; the table's figure for the GPU by default
    usd_per_gpu_hour: float | None = None


@dataclass
class Recipe:
    """A sweep: model sizes x compute budgets."""

    name: str = "custom"
    family: str = "nano"  # nano (by width) | gpt3 (Table 2.1)
    widths: list[int] = field(default_factory=list)  # nano: d_model of each size
    sizes: list[str] = field(default_factory=list)  # gpt3: names of Table 2.1
    budgets: list[float] = field(default_factory=list)  # nano: exact training FLOPs of each IsoFLOP budget
    tokens: list[float] = field(default_factory=list)  # gpt3: training tokens of each budget
    min_tokens: float = 4e5  # cells with fewer tokens are left out, and such runs out of the fit
    widths_at: dict[float, list[int]] = field(
        default_factory=dict
    )  # nano: the sizes of a budget, in place of the rule:
    # sizes within a factor `span` of center_params * (budget / center_flops) ** center_exponent
    center_params: float = 9e3
    center_flops: float = 1e11
    center_exponent: float = 0.72
    span: float = 5.0
    seed: int = 0
    replicas: int = 1  # seeds per cell ...
    replicas_below_flops: float = 0.0  # ... of budgets up to this one; above it one
    adaptive: bool = False  # take the runs one by one, each where it tells most about adaptive_target
    adaptive_share: float = 0.5  # of the grid's FLOPs that may be spent so
    adaptive_target: float | None = None  # FLOPs; by default ten times the dearest run's
    precision: str = "auto"
    kernel: str = "auto"
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    optim: Optim = field(default_factory=Optim)
    evals: Evals = field(default_factory=Evals)
    placement: Placement = field(default_factory=Placement)
    plan: Plan = field(default_factory=Plan)


def available() -> list[str]:
    """Names of the recipes that come with isoflop."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(settings: Sequence[str], default: str = "laptop") -> Recipe:
    """The recipe that ``recipe=NAME_OR_FILE`` names, with the other ``key=value`` settings over it.

    Raises:
        UsageError: for an unknown recipe, key or value.
    """
    from omegaconf import OmegaConf
    from yaml import YAMLError

    chosen = [s.split("=", 1)[1] for s in settings if s.startswith("recipe=")]
    name = chosen[-1] if chosen else default
    path = Path(name).expanduser() if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise UsageError(
            f"recipe={name}: no such recipe{cli.nearest(name, available())}; there are {', '.join(available())}, "
            "or give the path of a .yaml file"
        )
    if path.stat().st_size > MAX_BYTES:
        raise UsageError(f"recipe={name}: {path} is larger than {MAX_BYTES} bytes, which no recipe is")
    schema = OmegaConf.structured(Recipe)
    try:
        written = OmegaConf.load(path)
    except (YAMLError, OSError, UnicodeDecodeError) as error:
        raise UsageError(f"recipe={name}: {path} is not readable YAML ({str(error).splitlines()[0]})") from error
    if not OmegaConf.is_dict(written):
        raise UsageError(f"recipe={name}: {path} must hold key: value lines")
    cli.check_keys(schema, cli.known_keys(written))
    config = cli.merge_config(schema, written, str(path))
    if "name" not in written:
        config.name = path.stem
    config = cli.merge(config, [s for s in settings if not s.startswith("recipe=")])
    recipe: Any = OmegaConf.to_object(config)
    assert isinstance(recipe, Recipe)
    return recipe


def to_yaml(recipe: Recipe) -> str:
    """The whole recipe, defaults included, as YAML."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.structured(recipe))
