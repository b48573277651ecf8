"""IsoFLOP profiles that place themselves: which sizes a budget can have, and which of them lie about a centre; pure.

All budgets choose from one ladder of sizes, a factor ``spacing`` apart in N. So where a centre moves, sizes that were
placed about the old one are sizes of the new one too, and runs of one size stand at several budgets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from gpt3core import costs
from gpt3core.checks import require_between, require_positive
from gpt3core.data import tokenizer
from gpt3core.errors import UsageError
from gpt3core.model.gpt_spec import GPTSpec
from gpt3core.spec import DataSpec, RunSpec
from sweeps.planning import checks, estimate, specify
from sweeps.planning.ladders import by_flops, masked, nano_model
from sweeps.planning.recipe import ProfilesRecipe

MOST_WIDTHS = 2000  # that are looked at
MOST_BUDGETS = 200
MOST_POINTS = 100
MARGIN = 1.5  # a profile reaches so many steps beyond its outermost size: wider drops are not worth a word


@dataclass(frozen=True, kw_only=True)
class Size:
    """A size at a budget: its runs, one a seed, or why it has none."""

    index: int  # in the ladder
    label: str
    n: float  # non-embedding parameters
    runs: tuple[RunSpec, ...] = ()
    reason: str = ""


class Profiles:
    """The ladder of sizes of a recipe, at each of its budgets."""

    def __init__(self, recipe: ProfilesRecipe, data: DataSpec, train_tokens: float = math.inf) -> None:
        """Lay the ladder.

        Args:
            train_tokens: of the text; a size that would see it more than ``data.max_epochs`` times is left out.

        Raises:
            UsageError: for settings that have no meaning, or leave no size.
        """
        check(recipe)
        self.recipe, self._data, self._train_tokens = recipe, data, train_tokens
        self.budgets = sorted(set(recipe.budgets))
        self.unusable: list[tuple[str, str]] = []  # widths that make no model, and why
        self.models = self._ladder()
        self._sizes: dict[float, list[Size]] = {}

    def sizes(self, budget: float) -> list[Size]:
        """Every size of the ladder at a budget, smallest first."""
        if budget not in self._sizes:
            self._sizes[budget] = [self._size(i, model, budget) for i, model in enumerate(self.models)]
        return self._sizes[budget]

    def about(self, budget: float, ln_n: float) -> list[Size]:
        """The feasible sizes nearest to a centre, ``points`` of them or all there are, smallest first."""
        able = [size for size in self.sizes(budget) if size.runs]
        nearest = sorted(able, key=lambda size: (abs(math.log(size.n) - ln_n), size.index))
        return sorted(nearest[: self.recipe.points], key=lambda size: size.index)

    def dropped(self, budget: float, ln_n: float) -> list[Size]:
        """The sizes that a profile about a centre would have if they were feasible."""
        reach = (self.recipe.points / 2 + MARGIN - 1) * math.log(self.recipe.spacing)
        return [s for s in self.sizes(budget) if s.reason and abs(math.log(s.n) - ln_n) <= reach]

    def prior(self, budget: float) -> float:
        """ln N* before any run has ended."""
        rule = self.recipe
        return math.log(rule.center_params) + rule.center_exponent * math.log(budget / rule.center_flops)

    @cached_property
    def runs(self) -> dict[str, RunSpec]:
        """Every run that the recipe can ever ask for."""
        return {run.run_id: run for b in self.budgets for size in self.sizes(b) for run in size.runs}

    @cached_property
    def places(self) -> dict[str, tuple[float, int]]:
        """Budget and size of every such run."""
        return {run.run_id: (b, s.index) for b in self.budgets for s in self.sizes(b) for run in s.runs}

    def asked(self, before: Sequence[str]) -> list[RunSpec]:
        """The runs that a sweep has of these profiles, or those that it begins with.

        Args:
            before: ids of the runs that the sweep has.
        """
        return [self.runs[run_id] for run_id in before if run_id in self.runs] or self.opening()

    def opening(self) -> list[RunSpec]:
        """The lowest budget's first profile."""
        lowest = self.budgets[0]
        return [run for size in self.about(lowest, self.prior(lowest)) for run in size.runs]

    def outlook(self) -> list[RunSpec]:
        """The profiles of all budgets about the centres of the recipe."""
        about = [size for budget in self.budgets for size in self.about(budget, self.prior(budget))]
        return [run for size in about for run in size.runs]

    # --------------------------------------------------------------------------------------------------- the ladder

    def _ladder(self) -> list[GPTSpec]:
        """The models to choose from, smallest first."""
        recipe, vocab = self.recipe, tokenizer.vocab_size(self.recipe.data.tokenizer)
        step = recipe.width_step
        widths = sorted(set(recipe.widths)) or [step * k for k in range(1, MOST_WIDTHS + 1)]
        able: list[tuple[float, GPTSpec]] = []
        for width in widths:
            try:
                model = masked(nano_model(recipe, width, vocab), recipe)
            except UsageError as error:
                self.unusable.append((f"d{width}", str(error)))
                continue
            able.append((math.log(costs.params(model).nonembedding), model))
            if not recipe.widths and costs.tokens_for(model, self.budgets[-1]) < recipe.min_tokens:
                break  # no budget carries this one, nor larger ones
        if recipe.widths:
            return [model for _, model in able]
        self.unusable = []  # of widths that nobody named
        return _spaced(able, math.log(recipe.center_params), math.log(recipe.spacing))

    def _size(self, index: int, model: GPTSpec, budget: float) -> Size:
        n = float(costs.params(model).nonembedding)
        label = f"d{model.d_model}"
        try:
            cell = by_flops(label, model, budget, self.recipe.optim)
            assert cell.optim is not None
            reason = specify.short(cell, self.recipe) or _one_batch(model, budget, cell.optim.batch_tokens)
            runs = () if reason else tuple(specify.runs(self.recipe, cell, self._data))
            reason = reason or self._infeasible(runs)
        except ValueError as error:
            reason, runs = str(error), ()
        return Size(index=index, label=label, n=n, runs=() if reason else runs, reason=reason)

    def _infeasible(self, runs: Sequence[RunSpec]) -> str:
        """Why runs must not or cannot be trained: too little text, too little memory, batches that do not divide."""
        epochs, most = runs[0].tokens / self._train_tokens, self.recipe.data.max_epochs
        if epochs > most:
            return f"{epochs:,.1f} epochs of the text, more than data.max_epochs={most:g}"
        checks.check_workers(self.recipe, runs[:1])
        estimate.placed(runs[0], self.recipe)
        return ""


def _one_batch(model: GPTSpec, budget: float, batch_tokens: int) -> str:
    tokens = costs.tokens_for(model, budget)
    if batch_tokens <= tokens:
        return ""
    return f"{tokens:.3g} tokens, less than one batch of {batch_tokens:,}"


def _spaced(able: Sequence[tuple[float, GPTSpec]], anchor: float, step: float) -> list[GPTSpec]:
    """Of models by ln N the nearest to every point of a ladder through the anchor, each once."""
    if not able:
        return []
    low, high = (able[0][0] - anchor) / step, (able[-1][0] - anchor) / step
    chosen: dict[float, GPTSpec] = {}
    at = 0
    for k in range(math.floor(low), math.ceil(high) + 1):
        wanted = anchor + k * step
        while at + 1 < len(able) and abs(able[at + 1][0] - wanted) <= abs(able[at][0] - wanted):
            at += 1
        chosen[able[at][0]] = able[at][1]
    return list(chosen.values())


def check(recipe: ProfilesRecipe) -> None:
    """Refuse profiles that cannot be meant.

    Raises:
        UsageError: in one sentence.
    """
    checks.check_optim(recipe.optim)
    checks.check_numbers("budgets", recipe.budgets, checks.MOST_FLOPS, "training FLOPs, like 1e12")
    checks.check_numbers("widths", recipe.widths, checks.MOST_WIDTH, "d_model of a size")
    if not 0 < len(set(recipe.budgets)) <= MOST_BUDGETS:
        raise UsageError(f"budgets: {len(set(recipe.budgets))} of them; from 1 to {MOST_BUDGETS} are needed")
    require_positive(recipe, "center_params", "center_flops")
    require_between(recipe, 1, 1e18, "center_params")
    require_between(recipe, 1, checks.MOST_FLOPS, "center_flops")
    require_between(recipe, 0, 2, "center_exponent")
    require_between(recipe, 3, MOST_POINTS, "points")
    require_between(recipe, recipe.points, MOST_POINTS, "most_points")
    require_between(recipe, 1, 5, "beside")
    require_between(recipe, 0, MOST_BUDGETS, "ahead")
    require_between(recipe, 1, 1024, "width_step")
    if not 1.05 <= recipe.spacing <= 10:
        raise UsageError(f"spacing={recipe.spacing:g}: a factor in N between neighbouring sizes, from 1.05 to 10")
    if 2 * recipe.beside + 1 > recipe.most_points:
        raise UsageError(
            f"beside={recipe.beside}, most_points={recipe.most_points}: a budget's lowest size with {recipe.beside} on "
            f"either side are {2 * recipe.beside + 1}"
        )
    for name, on in (("adaptive", recipe.adaptive), ("prune.by_value", recipe.prune.by_value is not None)):
        if on:
            raise UsageError(f"{name}: profiles choose their own runs, and need the loss of each; leave it out")
    if recipe.train.stop_every is not None:
        raise UsageError("train.stop_every: a run that stops early has no place on an IsoFLOP profile; leave it out")


def with_label(size: Size) -> str:
    """A size in words."""
    return f"{size.label} ({size.reason})" if size.reason else size.label


def limited(recipe: ProfilesRecipe, data: DataSpec, train_tokens: float) -> Profiles:
    """The profiles of a recipe on a text.

    Raises:
        UsageError: where no size of the lowest budget is feasible.
    """
    found = Profiles(recipe, data, train_tokens)
    if not found.opening():
        reasons = "; ".join(with_label(size) for size in found.sizes(found.budgets[0])[:3])
        nothing = reasons or "; ".join(f"{label}: {why}" for label, why in found.unusable[:3]) or "no sizes"
        raise UsageError(f"the recipe {recipe.name} describes no run at {found.budgets[0]:.3g} FLOPs ({nothing})")
    return found
