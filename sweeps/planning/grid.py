"""A recipe becomes runs: from sizes x budgets to specifications, with a reason for every cell left out; pure."""

from __future__ import annotations

from dataclasses import dataclass

from gpt3core import costs
from gpt3core.anomaly import AnomalySpec
from gpt3core.errors import UsageError
from gpt3core.evals.spec import EvalSpec
from gpt3core.model.architecture import ModelSpec
from gpt3core.spec import DataSpec, RunSpec
from sweeps.planning import checks, placing, train_options
from sweeps.planning.ladders import Cell, cells
from sweeps.planning.recipe import Recipe

MOST_RUNS = 100_000


@dataclass(frozen=True, kw_only=True)
class Left:
    """A cell of the grid that is not run, and why."""

    label: str
    at: str  # its budget in words
    reason: str


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The runs of a recipe, each once, and how they are evaluated."""

    runs: list[RunSpec]
    left: list[Left]
    evals: EvalSpec


def build(recipe: Recipe, corpus_sha256: str) -> Grid:
    """The specifications of a recipe's runs, in the order of its cells.

    Raises:
        ValueError: when the recipe describes no run, or an impossible one.
    """
    checks.check(recipe)
    data = DataSpec(
        corpus=recipe.data.corpus,
        corpus_sha256=corpus_sha256,
        tokenizer=recipe.data.tokenizer,
        validation_fraction=recipe.data.validation_fraction,
    )
    runs: dict[str, RunSpec] = {}
    left = []
    for cell in cells(recipe):
        reason = cell.reason or _short(cell, recipe)
        if reason:
            left.append(Left(label=cell.label, at=cell.at, reason=reason))
            continue
        for spec in _runs(recipe, cell, data):
            runs.setdefault(spec.run_id, spec)
        if len(runs) > MOST_RUNS:
            raise UsageError(f"the recipe {recipe.name} describes more than {MOST_RUNS:,} runs: give fewer cells")
    grid = Grid(runs=list(runs.values()), left=left, evals=_evals(recipe))
    if not runs:
        reasons = "; ".join(f"{c.label} at {c.at}: {c.reason}" for c in left[:3])
        raise UsageError(f"the recipe {recipe.name} describes no run ({reasons or 'no sizes or no budgets'})")
    _check_replicas(recipe, grid.runs)
    placing.check_labels(recipe, [*(run.label for run in grid.runs), *(cell.label for cell in left)])
    checks.check_workers(recipe, grid.runs)
    checks.check_spikes(recipe, grid.runs)
    train_options.check_runs(recipe.train, grid.runs)
    return grid


def _short(cell: Cell, recipe: Recipe) -> str:
    if cell.tokens >= recipe.min_tokens:
        return ""
    return f"{cell.tokens:.3g} tokens, fewer than min_tokens={recipe.min_tokens:.3g}"


def _runs(recipe: Recipe, cell: Cell, data: DataSpec) -> list[RunSpec]:
    """A cell's runs: one a seed."""
    assert cell.optim is not None
    replicas = recipe.replicas if _small(recipe, cell.model, cell.budget, cell.tokens) else 1
    try:
        return [
            RunSpec(
                model=cell.model,
                data=data,
                optim=cell.optim,
                tokens=cell.tokens,
                seed=recipe.seed + i,
                precision=recipe.precision,
                kernel=recipe.kernel,
                compile=recipe.compile,
                anomaly=AnomalySpec(**vars(recipe.anomaly)),
                budget_flops=cell.budget,
                options=train_options.options(recipe.train),
                noise_scale_every=recipe.train.noise_scale_every,
            )
            for i in range(replicas)
        ]
    except ValueError as error:
        raise UsageError(f"{cell.label} at {cell.at}: {train_options.named(str(error))}") from error


def _small(recipe: Recipe, model: ModelSpec, budget: float | None, tokens: int) -> bool:
    """Whether a cell is among those that get all replicas."""
    most = recipe.replicas_below_flops
    if most is None:
        return True
    return (budget if budget is not None else costs.train_flops(model, tokens)) <= most


def _check_replicas(recipe: Recipe, runs: list[RunSpec]) -> None:
    """Refuse replicas that no cell gets."""
    if recipe.replicas > 1 and not any(_small(recipe, run.model, run.budget_flops, run.tokens) for run in runs):
        raise UsageError(
            f"replicas={recipe.replicas} has no effect: no cell has at most replicas_below_flops="
            f"{recipe.replicas_below_flops:g} training FLOPs; give more, or null for every cell"
        )


def _evals(recipe: Recipe) -> EvalSpec:
    rules = recipe.evals
    return EvalSpec(
        tasks=tuple(rules.tasks), shots=tuple(rules.shots), items=rules.items, validation_tokens=rules.validation_tokens
    )
