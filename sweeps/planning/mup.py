"""The maximal-update parametrisation of a ladder (``gpt3core.model.mup``): its base and its one learning rate; pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpt3core import sizes
from gpt3core.errors import UsageError
from gpt3core.spec import RunSpec
from sweeps.planning.recipe import Gpt3Recipe, NanoRecipe, ProfilesRecipe, Recipe, ShapesRecipe

KEYS = ("mup_base_width", "mup_base_d_head")


def shape(model: Any) -> dict[str, Any]:
    """The keys of a recipe's model that say a shape."""
    return {key: value for key, value in vars(model).items() if key not in KEYS}


def base(recipe: Recipe) -> dict[str, Any]:
    """The fields of a specification that name the base; none in the standard parametrisation.

    Raises:
        UsageError: where the ladder does not say how wide the base's heads are.
    """
    model: Any = getattr(recipe, "model")  # noqa: B009 (each ladder has one of its own)
    if not model.mup_base_width:
        return {}
    d_head = model.mup_base_d_head or _d_head(recipe, model.mup_base_width)
    return {"mup_base_width": model.mup_base_width, "mup_base_d_head": d_head}


def _d_head(recipe: Recipe, width: int) -> int:
    """The heads of a ladder's size of that width."""
    found: set[int] = set()
    if isinstance(recipe, NanoRecipe | ProfilesRecipe):
        try:
            return sizes.nano(width, vocab_size=1, **shape(recipe.model)).d_head
        except ValueError as error:
            raise UsageError(f"model.mup_base_width={width}: {error}; or give model.mup_base_d_head") from error
    if isinstance(recipe, ShapesRecipe):
        found = {s.d_head or s.d_model // s.n_head for s in recipe.shapes if s.d_model == width}
    elif (row := _row(width)) is not None:
        found = {row.d_head}
    if len(found) != 1:
        why = f"sizes with heads of {sorted(found)}" if found else "no size of this ladder"
        raise UsageError(
            f"model.mup_base_width={width} is the width of {why}: give model.mup_base_d_head, the d_head of the base"
        )
    return found.pop()


def _row(width: int) -> sizes.Gpt3Size | None:
    """The row of Table 2.1 that is built with that width."""
    return next((row for row in sizes.GPT3.values() if row.model().d_model == width), None)


def rate_of_table(recipe: Gpt3Recipe, row: sizes.Gpt3Size) -> float:
    """The learning rate of a size of Table 2.1: its own, or the base's.

    The table's rates fall with the size, as a standard parametrisation needs; with muP all sizes have the base's.

    Raises:
        UsageError: where the base is none of the table's.
    """
    width, rules = recipe.model.mup_base_width, recipe.optim
    if rules.lr is not None:
        return rules.lr
    found = _row(width) if width else row
    if found is None:
        raise UsageError(
            f"model.mup_base_width={width} is the width of no size of Table 2.1, whose learning rate all sizes would "
            "have: give optim.lr, found with that base"
        )
    return found.lr * rules.lr_factor


def told(recipe: Recipe, runs: Sequence[RunSpec]) -> str:
    """What a plan says of the parametrisation; nothing of the standard one."""
    fields = base(recipe)
    if not fields:
        return ""
    width, d_head = fields["mup_base_width"], fields["mup_base_d_head"]
    rates = sorted({run.optim.lr for run in runs})
    optim: Any = getattr(recipe, "optim")  # noqa: B009
    rate, row = f"{', '.join(f'{lr:g}' for lr in rates)}", _row(width)
    if recipe.family == "gpt3" and optim.lr is None and row is not None:
        rate += f" ({row.name}'s of Table 2.1; the others fall with the size, as muP does by itself, and are not used)"
    depths = sorted({run.model.n_layer for run in runs})  # type: ignore[attr-defined]
    deep = f"; depths of {depths[0]} to {depths[-1]} layers: muP says nothing of depth" if len(depths) > 1 else ""
    return (
        f"muP (Yang et al. 2022, table 8), base width {width} with heads of {d_head}: at every width the learning rate "
        f"{rate}, in the blocks' matrices times {width} / width; decay a step as at the base{deep}"
    )
