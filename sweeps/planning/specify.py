"""A cell of a ladder becomes runs: specifications, one a seed; pure."""

from __future__ import annotations

from gpt3core import costs
from gpt3core.anomaly import AnomalySpec
from gpt3core.errors import UsageError
from gpt3core.model.architecture import ModelSpec
from gpt3core.spec import DataSpec, RunSpec
from sweeps.planning import train_options
from sweeps.planning.ladders import Cell
from sweeps.planning.recipe import Recipe


def short(cell: Cell, recipe: Recipe) -> str:
    """Why a cell has too few tokens; empty where it has enough."""
    if cell.tokens >= recipe.min_tokens:
        return ""
    return f"{cell.tokens:.3g} tokens, fewer than min_tokens={recipe.min_tokens:.3g}"


def runs(recipe: Recipe, cell: Cell, data: DataSpec) -> list[RunSpec]:
    """A cell's runs: one a seed.

    Raises:
        UsageError: for a run that is impossible.
    """
    assert cell.optim is not None
    replicas = recipe.replicas if small(recipe, cell.model, cell.budget, cell.tokens) else 1
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


def small(recipe: Recipe, model: ModelSpec, budget: float | None, tokens: int) -> bool:
    """Whether a cell is among those that get all replicas."""
    most = recipe.replicas_below_flops
    if most is None:
        return True
    return (budget if budget is not None else costs.train_flops(model, tokens)) <= most
