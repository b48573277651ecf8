"""A recipe becomes runs: pure arithmetic from sizes x budgets to specifications, and a reason for every cell left
out.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from gpt3core import costs, sizes
from gpt3core.checks import require_positive
from gpt3core.cli import nearest
from gpt3core.data import tokenizer
from gpt3core.errors import UsageError
from gpt3core.evals import tasks
from gpt3core.evals.spec import EvalSpec
from gpt3core.model.gpt_spec import GPTSpec
from gpt3core.spec import DataSpec, OptimSpec, RunSpec
from sweeps.planning.recipe import Recipe

GPT3_COSINE_TOKENS = 260e9  # Brown et al. 2020, appendix B: cosine over 260B tokens, warm-up over 375M
GPT3_WARMUP_TOKENS = 375e6
GPT3_TOKENS = 300e9


@dataclass(frozen=True, kw_only=True)
class Left:
    """A cell of the grid that is not run, and why."""

    size: str
    budget: float
    reason: str


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The runs of a recipe."""

    runs: list[RunSpec]
    left: list[Left]
    evals: EvalSpec


def build(recipe: Recipe, corpus_sha256: str) -> Grid:
    """The specifications of a recipe's runs, in the order of budgets and sizes.

    Raises:
        ValueError: when the recipe describes no run, or an impossible one.
    """
    _check(recipe)
    if recipe.family == "nano":
        grid = _nano(recipe, corpus_sha256)
    elif recipe.family == "gpt3":
        grid = _gpt3(recipe, corpus_sha256)
    else:
        raise UsageError(f"family={recipe.family!r}: allowed are nano, gpt3")
    _check_placement(recipe, grid.runs)
    if not grid.runs:
        reasons = "; ".join(f"{c.size} at {c.budget:.3g}: {c.reason}" for c in grid.left[:3])
        raise UsageError(f"the recipe {recipe.name} describes no run ({reasons or 'no sizes or no budgets'})")
    return grid


def _check(recipe: Recipe) -> None:
    """What can be wrong with any recipe."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", recipe.name):
        raise UsageError(f"name={recipe.name!r}: letters, digits, '.', '_' and '-', for it names a folder")
    place = recipe.placement
    require_positive(place, "workers", "max_failures", "checkpoint_seconds", where="placement.")
    if place.cpus < 0 or place.gpus < 0 or place.cpus + place.gpus == 0:
        raise UsageError(f"placement.cpus={place.cpus:g}, placement.gpus={place.gpus:g}: a worker needs some of either")
    if not 0 < recipe.adaptive_share <= 1:
        raise UsageError(f"adaptive_share={recipe.adaptive_share}: a share of the grid's FLOPs, above 0 and at most 1")
    if recipe.adaptive_target is not None and not recipe.adaptive_target > 0:
        raise UsageError(f"adaptive_target={recipe.adaptive_target}: FLOPs, positive (like 1e14)")
    unused = {"nano": ("sizes", "tokens"), "gpt3": ("widths", "budgets", "widths_at")}.get(recipe.family, ())
    for name in unused:
        if getattr(recipe, name):
            raise UsageError(f"{name}: the family {recipe.family} does not use it; remove it or choose another family")


def _check_placement(recipe: Recipe, runs: list[RunSpec]) -> None:
    """Data-parallel ranks must divide every run's batch."""
    for run in runs:
        sequences = run.optim.batch_tokens // run.model.n_ctx
        if sequences % recipe.placement.workers and recipe.family == "nano":
            raise UsageError(
                f"placement.workers={recipe.placement.workers}: the batch of {run.run_id} has {sequences} "
                f"sequences, which "
                "do not divide over them; take a divisor, or set optim.batch_tokens_min and _max to one batch for all"
            )


def _nano(recipe: Recipe, corpus_sha256: str) -> Grid:
    runs, left = [], []
    vocab = tokenizer.vocab_size(recipe.data.tokenizer)
    require_positive(recipe, "min_tokens", "center_params", "center_flops", "span", "replicas")
    for budget in sorted(set(recipe.budgets)):
        if not 0 < budget < math.inf:
            raise UsageError(f"budgets={recipe.budgets}: every budget must be positive (training FLOPs, like 1e12)")
        center = recipe.center_params * (budget / recipe.center_flops) ** recipe.center_exponent
        chosen = recipe.widths_at.get(budget)
        for width in sorted(set(recipe.widths if chosen is None else chosen)):
            if width < 1:
                raise UsageError(f"widths={recipe.widths}: every width must be positive")
            model = _model(recipe, width, vocab)
            size = f"d{width}"
            n = costs.params(model).nonembedding
            batch, tokens = _batch(recipe, model, costs.tokens_for(model, budget))
            if chosen is None and not center / recipe.span <= n <= center * recipe.span:
                left.append(
                    Left(size=size, budget=budget, reason=f"N={n:.3g} is more than {recipe.span:g}x from {center:.3g}")
                )
            elif tokens < recipe.min_tokens:
                reason = f"{tokens:.3g} tokens, fewer than min_tokens={recipe.min_tokens:.3g}"
                left.append(Left(size=size, budget=budget, reason=reason))
            else:
                replicas = recipe.replicas if budget <= recipe.replicas_below_flops else 1
                runs += [
                    _run(recipe, model, size, budget, batch, tokens, recipe.seed + i, corpus_sha256)
                    for i in range(replicas)
                ]
    return Grid(runs=runs, left=left, evals=_evals(recipe))


def _model(recipe: Recipe, width: int, vocab: int) -> GPTSpec:
    shape = recipe.model
    try:
        return sizes.nano(width, vocab_size=vocab, **vars(shape))
    except ValueError as error:
        raise UsageError(f"model: {error}") from error


def _batch(recipe: Recipe, model: GPTSpec, tokens: float) -> tuple[int, int]:
    """Tokens per step by the recipe's rule, and the run's tokens, rounded up to whole steps."""
    rules = recipe.optim
    wanted = rules.batch_tokens_at_1m * math.sqrt(tokens / 1e6)
    clipped = min(max(wanted, rules.batch_tokens_min), rules.batch_tokens_max)
    batch = model.n_ctx * max(1, round(clipped / model.n_ctx))
    return batch, batch * math.ceil(tokens / batch)


def _run(
    recipe: Recipe, model: GPTSpec, size: str, budget: float, batch: int, tokens: int, seed: int, corpus_sha256: str
) -> RunSpec:
    rules = recipe.optim
    try:
        return RunSpec(
            model=model,
            data=_data(recipe, corpus_sha256),
            optim=OptimSpec(
                lr=min(rules.lr_max, rules.lr_times_width / model.d_model),
                batch_tokens=batch,
                warmup_tokens=round(rules.warmup_fraction * tokens / batch) * batch,
                decay_tokens=tokens,
                final_fraction=rules.final_fraction,
                weight_decay=rules.weight_decay,
                clip=rules.clip,
            ),
            tokens=tokens,
            seed=seed,
            precision=recipe.precision,
            kernel=recipe.kernel,
            budget_flops=budget,
        )
    except ValueError as error:
        raise UsageError(f"{size} at {budget:.3g} FLOPs: {error}") from error


def _gpt3(recipe: Recipe, corpus_sha256: str) -> Grid:
    runs = []
    for name in recipe.sizes:
        if name not in sizes.GPT3:
            raise UsageError(
                f"sizes: unknown size {name!r}{nearest(name, list(sizes.GPT3))}; allowed are {', '.join(sizes.GPT3)}"
            )
        row = sizes.GPT3[name]
        model = row.model(recipe.model.n_ctx, tokenizer.vocab_size(recipe.data.tokenizer), recipe.model.band)
        # 0.5M is 2^19 tokens, 3.2M is 1,536 sequences: the nearest multiple of 256 sequences
        batch = 256 * model.n_ctx * max(1, round(row.batch_tokens / (256 * model.n_ctx)))
        for tokens in recipe.tokens:
            if not 0 < tokens < math.inf:
                raise UsageError(
                    f"tokens={recipe.tokens}: every number of training tokens must be positive (like 300e9)"
                )
            steps = max(1, round(tokens / batch))
            shrink = min(1.0, tokens / GPT3_TOKENS)  # smaller budgets keep the schedule's proportions
            optim = OptimSpec(
                lr=row.lr,
                batch_tokens=batch,
                warmup_tokens=round(GPT3_WARMUP_TOKENS * shrink),
                decay_tokens=round(GPT3_COSINE_TOKENS * shrink),
            )
            spec = RunSpec(
                model=model,
                data=_data(recipe, corpus_sha256),
                optim=optim,
                tokens=steps * batch,
                seed=recipe.seed,
                precision=recipe.precision,
                kernel=recipe.kernel,
            )
            runs.append(spec)
    return Grid(runs=runs, left=[], evals=_evals(recipe))


def _data(recipe: Recipe, corpus_sha256: str) -> DataSpec:
    return DataSpec(
        corpus=recipe.data.corpus,
        corpus_sha256=corpus_sha256,
        tokenizer=recipe.data.tokenizer,
        validation_fraction=recipe.data.validation_fraction,
    )


def _evals(recipe: Recipe) -> EvalSpec:
    rules = recipe.evals
    for task in rules.tasks:
        if task not in tasks.names() and not task.startswith("cloze_"):
            raise UsageError(
                f"evals.tasks: unknown task {task!r}{nearest(task, tasks.names())}; allowed are "
                f"{', '.join(tasks.names())} and cloze_<domain of the corpus>"
            )
    return EvalSpec(
        tasks=tuple(rules.tasks), shots=tuple(rules.shots), items=rules.items, validation_tokens=rules.validation_tokens
    )
