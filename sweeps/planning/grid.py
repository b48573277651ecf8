"""A recipe becomes runs: from sizes x budgets to specifications, with a reason for every cell left out; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gpt3core.errors import UsageError
from gpt3core.evals.spec import EvalSpec
from gpt3core.spec import DataSpec, RunSpec
from sweeps.planning import checks, placing, profiles, specify, train_options
from sweeps.planning.ladders import cells
from sweeps.planning.profiles import Profiles
from sweeps.planning.recipe import Evals, ProfilesRecipe, Recipe

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

    runs: list[RunSpec]  # of profiles that place themselves: as far as can be said before the first has ended
    left: list[Left]
    evals: EvalSpec
    profiles: Profiles | None = None

    def asked(self, before: Sequence[str]) -> list[RunSpec]:
        """The runs that a sweep is asked for now.

        Args:
            before: ids of the runs that it was asked for earlier: profiles go on from those of their own.
        """
        return self.runs if self.profiles is None else self.profiles.asked(before)


def build(recipe: Recipe, corpus_sha256: str, train_tokens: float = math.inf) -> Grid:
    """The specifications of a recipe's runs, in the order of its cells.

    Args:
        train_tokens: of the text until a part of it is repeated, for profiles that place themselves: they leave out
            what would repeat it too often.

    Raises:
        ValueError: when the recipe describes no run, or an impossible one.
    """
    checks.check(recipe)
    data = DataSpec(
        corpus=recipe.data.corpus,
        corpus_sha256=corpus_sha256,
        tokenizer=recipe.data.tokenizer,
        validation_fraction=recipe.data.validation_fraction,
        weights=tuple(recipe.data.weights.items()),
        episodes=recipe.data.episodes,
    )
    grid = _profiles(recipe, data, train_tokens) if isinstance(recipe, ProfilesRecipe) else _cells(recipe, data)
    _check_replicas(recipe, grid.runs)
    placing.check_labels(recipe, [*(run.label for run in grid.runs), *(cell.label for cell in grid.left)])
    checks.check_workers(recipe, grid.runs)
    checks.check_spikes(recipe, grid.runs)
    train_options.check_runs(recipe.train, grid.runs)
    return grid


def _cells(recipe: Recipe, data: DataSpec) -> Grid:
    """Every cell of a ladder."""
    runs: dict[str, RunSpec] = {}
    left = []
    for cell in cells(recipe):
        reason = cell.reason or specify.short(cell, recipe)
        if reason:
            left.append(Left(label=cell.label, at=cell.at, reason=reason))
            continue
        for spec in specify.runs(recipe, cell, data):
            runs.setdefault(spec.run_id, spec)
        if len(runs) > MOST_RUNS:
            raise UsageError(f"the recipe {recipe.name} describes more than {MOST_RUNS:,} runs: give fewer cells")
    if not runs:
        reasons = "; ".join(f"{c.label} at {c.at}: {c.reason}" for c in left[:3])
        raise UsageError(f"the recipe {recipe.name} describes no run ({reasons or 'no sizes or no budgets'})")
    return Grid(runs=list(runs.values()), left=left, evals=evaluation(recipe))


def _profiles(recipe: ProfilesRecipe, data: DataSpec, train_tokens: float) -> Grid:
    """The profiles about the centres of the recipe."""
    found = profiles.limited(recipe, data, train_tokens)
    left = [Left(label=label, at="every budget", reason=reason) for label, reason in found.unusable]
    left += [
        Left(label=size.label, at=f"{budget:.3g} FLOPs", reason=size.reason)
        for budget in found.budgets
        for size in found.dropped(budget, found.prior(budget))
    ]
    runs = {run.run_id: run for run in found.outlook()}
    return Grid(runs=list(runs.values()), left=left, evals=evaluation(recipe), profiles=found)


def _check_replicas(recipe: Recipe, runs: list[RunSpec]) -> None:
    """Refuse replicas that no cell gets."""
    if recipe.replicas > 1 and not any(specify.small(recipe, run.model, run.budget_flops, run.tokens) for run in runs):
        raise UsageError(
            f"replicas={recipe.replicas} has no effect: no cell has at most replicas_below_flops="
            f"{recipe.replicas_below_flops:g} training FLOPs; give more, or null for every cell"
        )


def evaluation(recipe: Recipe) -> EvalSpec:
    """How every run of a recipe is evaluated."""
    return asked(recipe.evals)


def asked(rules: Evals, seeds: int = 1) -> EvalSpec:
    """What settings ask of a finished run; of files their content counts, wherever they lie.

    Raises:
        ValueError: for a file that cannot be read.
    """
    from gpt3core.evals.tasks import files

    paths = {task: list(files.located(given)) for task, given in rules.files.items()}
    return EvalSpec(
        tasks=tuple(rules.tasks),
        shots=tuple(rules.shots),
        items=rules.items,
        validation_tokens=rules.validation_tokens,
        seeds=seeds,
        run_programs=rules.run_programs,
        files=paths,
        contents={task: files.fingerprint(found) for task, found in paths.items()},
    )
