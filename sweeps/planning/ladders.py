"""Ladders of model sizes: each turns its recipe into cells, a shape at a budget with its hyperparameters; pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from gpt3core import costs, sizes
from gpt3core.checks import require_between, require_positive
from gpt3core.data import tokenizer
from gpt3core.errors import UsageError
from gpt3core.hints import nearest
from gpt3core.model.gpt_spec import GPTSpec
from gpt3core.parallel.layout import largest_divisor
from gpt3core.ramp import Ramp
from gpt3core.spec import OptimSpec
from sweeps.planning import checks, mup
from sweeps.planning import rules as hyper
from sweeps.planning.recipe import Gpt3Optim, Gpt3Recipe, NanoRecipe, Optim, ProfilesRecipe, Recipe, Shape, ShapesRecipe

GPT3_TOKENS = 300e9  # Brown et al. 2020, appendix B: what warm-up and cosine of optim are printed for
GPT3_BATCH_SEQUENCES = 256
OWN_TOKENS_PER_PARAM = 20.0  # Hoffmann et al. 2022: batch and warm-up follow from them where lengths share a trunk


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A size at a budget: what its runs share, or why it is left out."""

    label: str
    at: str  # the budget in words
    model: GPTSpec
    tokens: int = 0
    budget: float | None = None  # exact training FLOPs that were asked
    optim: OptimSpec | None = None
    reason: str = ""  # why it is left out, if it is


def cells(recipe: Recipe) -> Iterator[Cell]:
    """All cells of a recipe's ladder, by budget and then by size.

    Raises:
        ValueError: for a size, a budget or a rule that makes no run.
    """
    return (replace(cell, model=masked(cell.model, recipe)) for cell in _cells(recipe))


def masked(model: GPTSpec, recipe: Recipe) -> GPTSpec:
    """The model with the recipe's word on whether documents see each other."""
    end = tokenizer.end_of_text(recipe.data.tokenizer) if recipe.data.mask_documents else None
    return replace(model, document_end=end)


def _cells(recipe: Recipe) -> Iterator[Cell]:
    if isinstance(recipe, NanoRecipe):
        return _nano(recipe)
    if isinstance(recipe, Gpt3Recipe):
        return _gpt3(recipe)
    assert isinstance(recipe, ShapesRecipe)
    return _shapes(recipe)


def _nano(recipe: NanoRecipe) -> Iterator[Cell]:
    vocab = tokenizer.vocab_size(recipe.data.tokenizer)
    require_positive(recipe, "center_params", "center_flops", "span")
    require_between(recipe, 1, checks.MOST_FLOPS, "center_flops")
    require_between(recipe, 0, 2, "center_exponent")
    checks.check_optim(recipe.optim)
    checks.check_numbers("budgets", recipe.budgets, checks.MOST_FLOPS, "training FLOPs, like 1e12")
    every = [*recipe.widths, *(width for widths in recipe.widths_at.values() for width in widths)]
    checks.check_numbers("widths", every, checks.MOST_WIDTH, "d_model of a size")
    models = {width: nano_model(recipe, width, vocab) for width in sorted(set(every))}
    for budget in sorted(set(recipe.budgets)):
        center = recipe.center_params * (budget / recipe.center_flops) ** recipe.center_exponent
        chosen = recipe.widths_at.get(budget)
        for width in sorted(set(recipe.widths if chosen is None else chosen)):
            n = costs.params(models[width]).nonembedding
            if chosen is None and not center / recipe.span <= n <= center * recipe.span:
                reason = f"N={n:.3g} is more than {recipe.span:g}x from {center:.3g}"
                yield Cell(label=f"d{width}", at=_flops(budget), model=models[width], reason=reason)
            else:
                yield by_flops(f"d{width}", models[width], budget, recipe.optim)


def nano_model(recipe: NanoRecipe | ProfilesRecipe, width: int, vocab: int) -> GPTSpec:
    """GPT-3's shape at a width.

    Raises:
        UsageError: for a width that its heads do not divide.
    """
    try:
        return replace(sizes.nano(width, vocab_size=vocab, **mup.shape(recipe.model)), **mup.base(recipe))
    except ValueError as error:
        raise UsageError(f"model: {error}") from error


def _shapes(recipe: ShapesRecipe) -> Iterator[Cell]:
    checks.check_optim(recipe.optim)
    checks.check_numbers("budgets", recipe.budgets, checks.MOST_FLOPS, "training FLOPs, like 1e12")
    checks.check_numbers("tokens", recipe.tokens, checks.MOST_TOKENS, "training tokens, like 1e9")
    models = list(dict.fromkeys(_shape_model(recipe, shape) for shape in recipe.shapes))
    for budget in sorted(set(recipe.budgets)):
        for model in models:
            yield by_flops(_name(model), model, budget, recipe.optim)
    for tokens in sorted(set(recipe.tokens)):
        for model in models:
            yield _by_tokens(_name(model), _tokens(tokens), model, tokens, recipe.optim)


def _name(model: GPTSpec) -> str:
    return f"{model.n_layer}x{model.d_model}"


def _shape_model(recipe: ShapesRecipe, shape: Shape) -> GPTSpec:
    require_between(shape, 1, checks.MOST_LAYERS, "n_layer", where="shapes: ")
    require_between(shape, 1, checks.MOST_WIDTH, "d_model", "n_head", where="shapes: ")
    if shape.d_head is not None:
        require_between(shape, 1, checks.MOST_WIDTH, "d_head", where="shapes: ")
    elif shape.d_model % shape.n_head:
        raise UsageError(
            f"shapes: n_head={shape.n_head} does not divide d_model={shape.d_model}: give d_head, or another n_head"
        )
    return GPTSpec(
        n_layer=shape.n_layer,
        d_model=shape.d_model,
        n_head=shape.n_head,
        d_head=shape.d_head or shape.d_model // shape.n_head,
        vocab_size=tokenizer.vocab_size(recipe.data.tokenizer),
        **mup.shape(recipe.model),
        **mup.base(recipe),
    )


def by_flops(label: str, model: GPTSpec, budget: float, rules: Optim) -> Cell:
    """A size at a budget of training FLOPs, its hyperparameters by the recipe's rules.

    Raises:
        UsageError: where the rules give none.
    """
    cell = _by_tokens(label, _flops(budget), model, costs.tokens_for(model, budget), rules)
    return replace(cell, budget=budget)


def _by_tokens(label: str, at: str, model: GPTSpec, tokens: float, rules: Optim) -> Cell:
    """Hyperparameters by the recipe's rules; the tokens rounded up to whole steps."""
    basis = _own_tokens(model) if rules.schedule == "wsd" else tokens
    batch = _batch(rules, model, basis)
    whole = batch * math.ceil(tokens / batch)
    if whole > checks.MOST_TOKENS:
        raise UsageError(f"{label} at {at}: {whole:.3g} tokens, and at most {checks.MOST_TOKENS:g} are possible")
    warmup = round(hyper.warmup_fraction(rules) * (basis if rules.schedule == "wsd" else whole) / batch) * batch
    try:
        optim = OptimSpec(
            lr=_learning_rate(rules, model, basis),
            batch_tokens=batch,
            **_schedule(rules, warmup=warmup, whole=whole, cosine=whole, batch=batch),
            final_fraction=hyper.final_fraction(rules),
            weight_decay=rules.weight_decay,
            clip=rules.clip,
        )
    except ValueError as error:
        raise UsageError(f"{label} at {at}: {error}") from error
    return Cell(label=label, at=at, model=model, tokens=whole, optim=optim)


def _batch(rules: Optim, model: GPTSpec, tokens: float) -> int:
    """Tokens of a step, in whole sequences."""
    if rules.rule is not None:
        return hyper.batch(rules.rule, model, tokens)
    wanted = rules.batch_tokens_at_1m * math.sqrt(tokens / 1e6)
    clipped = min(max(wanted, rules.batch_tokens_min), rules.batch_tokens_max)
    return model.n_ctx * max(1, round(clipped / model.n_ctx))


def _learning_rate(rules: Optim, model: GPTSpec, tokens: float) -> float:
    """By the law of N and D; else the rule's at the model's width, or with muP at the base's, for all."""
    if rules.rule is not None:
        return hyper.rate(rules.rule, model, tokens)
    if rules.lr is not None:
        return rules.lr
    return min(rules.lr_max, rules.lr_times_width / (model.mup_base_width or model.d_model))


def _own_tokens(model: GPTSpec) -> float:
    """The tokens that suit a size, whatever a run of it has."""
    return OWN_TOKENS_PER_PARAM * costs.params(model).total


def _schedule(rules: Optim | Gpt3Optim, *, warmup: int, whole: int, cosine: int, batch: int) -> dict[str, Any]:
    """The fields of a schedule, in tokens.

    Args:
        warmup: of the size; a run of which it would leave nothing before the decay has a shorter one, of its own.
        whole: of the run.
        cosine: at the end of the cosine.
    """
    if rules.schedule != "wsd":
        return {"schedule": rules.schedule, "warmup_tokens": warmup, "decay_tokens": cosine}
    stable = whole - checks.decay_steps(rules, whole, batch) * batch
    return {
        "schedule": "wsd",
        "warmup_tokens": min(warmup, stable),
        "stable_tokens": stable,
        "decay_tokens": whole,
        "decay_shape": rules.decay_shape,
    }


def _gpt3(recipe: Gpt3Recipe) -> Iterator[Cell]:
    rules, vocab = recipe.optim, tokenizer.vocab_size(recipe.data.tokenizer)
    require_positive(rules, "lr_factor", "cosine_tokens", where="optim.")
    require_between(rules, 0, rules.cosine_tokens, "warmup_tokens", where="optim.")
    checks.check_schedule(rules)
    require_between(rules, 0, checks.MOST_TOKENS, "ramp_start", where="optim.")
    if rules.ramp_tokens is not None:
        require_positive(rules, "ramp_tokens", where="optim.")
    checks.check_numbers("tokens", recipe.tokens, checks.MOST_TOKENS, "training tokens, like 300e9")
    for name in dict.fromkeys(recipe.sizes):
        if name not in sizes.GPT3:
            raise UsageError(
                f"sizes: unknown size {name[:80]!r}{nearest(name, list(sizes.GPT3))}; "
                f"allowed are {', '.join(sizes.GPT3)}"
            )
        row = sizes.GPT3[name]
        model = replace(row.model(vocab_size=vocab), **mup.shape(recipe.model), **mup.base(recipe))
        for tokens in dict.fromkeys(recipe.tokens):
            own = _own_tokens(model) if rules.schedule == "wsd" else tokens
            batch = _gpt3_batch(rules, model, row, own)
            if tokens < batch / 2:
                raise UsageError(
                    f"tokens={tokens:g}: less than half of one batch of {name}, {batch:,} tokens; give more"
                )
            shrink = min(1.0, own / GPT3_TOKENS)  # smaller budgets keep the schedule's proportions
            ramp = _ramp(rules, model, batch, shrink)
            whole = _whole(tokens, batch, **ramp)
            warmup, cosine = _gpt3_warmup(rules, own, shrink), max(1, round(rules.cosine_tokens * shrink))
            rate = hyper.rate(rules.rule, model, own) if rules.rule is not None else mup.rate_of_table(recipe, row)
            optim = OptimSpec(
                lr=rate,
                batch_tokens=batch,
                **_schedule(rules, warmup=warmup, whole=whole, cosine=cosine, batch=batch),
                **ramp,
                final_fraction=hyper.final_fraction(rules),
                weight_decay=rules.weight_decay,
                clip=rules.clip,
            )
            yield Cell(label=name, at=_tokens(tokens), model=model, tokens=whole, optim=optim)


def _gpt3_batch(rules: Gpt3Optim, model: GPTSpec, row: sizes.Gpt3Size, tokens: float) -> int:
    """Tokens of a step: by the rule, else the table's."""
    if rules.rule is not None:
        return hyper.batch(rules.rule, model, tokens, GPT3_BATCH_SEQUENCES // hyper.GPT3_PART)
    # 0.5M is 2^19 tokens, 3.2M is 1,536 sequences: the nearest multiple of 256 sequences
    unit = GPT3_BATCH_SEQUENCES * model.n_ctx
    return unit * max(1, round(row.batch_tokens / unit))


def _gpt3_warmup(rules: Gpt3Optim, tokens: float, shrink: float) -> int:
    """Tokens of the warm-up."""
    searched = rules.rule.warmup_fraction if rules.rule is not None else None
    return round(rules.warmup_tokens * shrink if searched is None else searched * tokens)


def _ramp(rules: Gpt3Optim, model: GPTSpec, batch: int, shrink: float) -> dict[str, Any]:
    """The fields of a ramp: from the divisor of the batch's sequences that is next below what was asked."""
    if not rules.ramp_start:
        return {}
    sequences = batch // model.n_ctx
    asked = min(sequences, int(rules.ramp_start // model.n_ctx))
    start = largest_divisor(sequences, asked)
    if start == sequences:  # the first batches are whole: the same run as without a ramp, by the same id
        return {}
    tokens = rules.ramp_tokens if rules.ramp_tokens is not None else _ramp_tokens(costs.params(model).total)
    return {"ramp_start": start * model.n_ctx, "ramp_tokens": max(1, round(tokens * shrink))}


def _ramp_tokens(params: float) -> float:
    """Tokens until the batch is full, "4-12 billion [...] depending on the model size": as a power of the size."""
    small, large = (sizes.GPT3[name].params_printed for name in ("125M", "175B"))
    share = math.log(params / small) / math.log(large / small)
    return 4e9 * math.pow(3.0, min(1.0, max(0.0, share)))


def _whole(tokens: float, batch: int, ramp_start: int = 0, ramp_tokens: int = 0) -> int:
    """About so many tokens, in whole steps."""
    ramp = Ramp(batch_tokens=batch, start=ramp_start or batch, tokens=ramp_tokens)
    before = ramp.tokens_at(steps := ramp.steps_within(round(tokens)))
    after = ramp.tokens_at(steps + 1)
    return after if steps == 0 or after - tokens < tokens - before else before


def _flops(budget: float) -> str:
    return f"{budget:.3g} FLOPs"


def _tokens(tokens: float) -> str:
    return f"{tokens:.3g} tokens"
