"""A search of hyperparameters at proxy sizes: what a recipe's section ``search`` says, its proxies, its trials; pure.

Every cell of the recipe's grid is a proxy, a pair of N and D. A trial is that cell's run with another learning rate and
batch, in proportion to what the recipe's own rules say, and another warm-up and decay where these are searched too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from gpt3core import cli, costs
from gpt3core.checks import require_between
from gpt3core.errors import UsageError
from gpt3core.spec import RunSpec
from sweeps.planning import grid, recipe
from sweeps.planning import idle as idling
from sweeps.planning.grid import Grid
from sweeps.planning.recipe import COMMANDS, Recipe

SECTION, DEFAULT = "search", "laptop_hparams"
SEARCHERS = ("tpe", "random", "qmc")
SCHEDULERS = ("asha", "none")
DIGITS = 3  # of a learning rate
SAME_TOKENS = 1.05  # runs of a proxy have its tokens but for whole batches
MOST_TRIALS = 10_000
LEAST_PAIRS = 3
LEAST_WHOLE = 5  # trials of a proxy that reach the end: analysis.tuning leaves out pairs of fewer
MOST_FACTOR = 1e3
CHOSEN = ("warmup_fraction", "final_fraction")  # from lists, in place of the recipe's own
# what a search uses of the sections that say where runs go and what they may take; the other keys have no effect
USED = {
    "limit": (),
    "placement": ("workers", "cpus", "gpus", "max_failures", "checkpoint_seconds"),
    "plan": ("gpu", "mfu"),
}


@dataclass
class Search:
    """How the best learning rate and batch of each proxy are looked for."""

    trials: int = 16  # of each proxy
    searcher: str = "tpe"  # of Optuna: tpe | random | qmc (Sobol points)
    scheduler: str = "asha"  # asha | none: every trial to its end
    first_rung: float = 0.5  # share of a run after which asha may stop it
    reduction: float = 2.0  # of all that came to a rung one in so many goes on; rungs lie this factor apart
    lr: list[float] = field(default_factory=lambda: [0.25, 4.0])  # times the recipe's own: from, to
    batch: list[float] = field(default_factory=lambda: [0.25, 4.0])  # the same, in whole sequences
    warmup_fraction: list[float] = field(default_factory=list)  # values to choose from; the recipe's alone where none
    final_fraction: list[float] = field(default_factory=list)
    batch_on: str = "D"  # the law's form: D | ND


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """A pair of N and D to search at."""

    number: int
    base: RunSpec  # by the recipe's own rules

    @property
    def words(self) -> str:
        """Its size and tokens."""
        return f"{self.base.label} on {self.base.tokens / 1e6:.3g}M tokens"


def load(settings: Sequence[str], default: str = DEFAULT) -> tuple[Recipe, Search]:
    """The recipe that the settings name, and its section ``search``.

    Raises:
        UsageError: for an unknown recipe, key or value, or what a search cannot have.
    """
    mine = [word.removeprefix(f"{SECTION}.") for word in settings if word.startswith(f"{SECTION}.")]
    others = [word for word in settings if not word.startswith(f"{SECTION}.")]
    beside: dict[str, Any] = {}
    chosen = recipe.load(others, default, beside=beside)
    config = cli.merge_config(Search, beside.get(SECTION) or {}, f"the section {SECTION}")
    found = cli.to_object(cli.merge(config, mine), SECTION)
    assert isinstance(found, Search)
    check(chosen, found)
    return chosen, found


def check(chosen: Recipe, asked: Search) -> None:
    """Refuse what cannot be searched, alone or together.

    Raises:
        UsageError: naming the key, what is allowed and what to do.
    """
    where = f"{SECTION}."
    for name, allowed in (("searcher", SEARCHERS), ("scheduler", SCHEDULERS), ("batch_on", ("D", "ND"))):
        if getattr(asked, name) not in allowed:
            raise UsageError(f"{where}{name}={getattr(asked, name)}: allowed are {', '.join(allowed)}")
    require_between(asked, 1, MOST_TRIALS, "trials", where=where)
    if asked.scheduler == "asha":
        require_between(asked, 0.01, 0.9, "first_rung", where=where)
        require_between(asked, 1.1, 100, "reduction", where=where)
        if (whole := asked.trials / asked.reduction ** len(rungs(asked))) < LEAST_WHOLE:
            raise UsageError(
                f"{where}trials={asked.trials}: about {whole:.2g} of each proxy would reach the end by {where}"
                f"first_rung={asked.first_rung:g} and {where}reduction={asked.reduction:g}, and the law needs "
                f"{LEAST_WHOLE}; give more trials, a later first rung, or {where}scheduler=none"
            )
    elif (asked.first_rung, asked.reduction) != (Search.first_rung, Search.reduction):
        raise UsageError(f"{where}first_rung and {where}reduction have no effect with {where}scheduler=none")
    for name in ("lr", "batch"):
        ends = getattr(asked, name)
        if len(ends) != 2 or not 1 / MOST_FACTOR <= ends[0] < ends[1] <= MOST_FACTOR:
            raise UsageError(
                f"{where}{name}={ends}: two factors of the recipe's own, the lower first (like [0.25, 4]), within "
                f"{MOST_FACTOR:g}"
            )
    for name in CHOSEN:
        if any(not 0 <= value < 1 for value in getattr(asked, name)):
            raise UsageError(f"{where}{name}={getattr(asked, name)}: shares from 0 to below 1, to choose from")
    _check_recipe(chosen, asked)


def idle(settings: Sequence[str], chosen: Recipe, cells: Grid) -> list[str]:
    """The ``key=value`` words, but those of the search, without which the proxies would be the same."""
    others = [word for word in settings if not word.startswith(f"{SECTION}.")]
    return idling.idle(others, chosen, cells, lambda words: recipe.load(words, DEFAULT, beside={}))


def _check_recipe(chosen: Recipe, asked: Search) -> None:
    """Refuse what a recipe may have and a search has not."""
    rules: Any = getattr(chosen, "optim")  # noqa: B009 (each ladder has one of its own)
    searched = [n for n in CHOSEN if getattr(asked, n) and getattr(rules, n) != getattr(type(rules), n)]
    wrong: dict[str, object] = {
        "family": chosen.family == "gpt3" and "write the sizes as family: shapes",
        "replicas": chosen.replicas != 1 and "a search has one seed; give more search.trials",
        "adaptive": chosen.adaptive and "a search takes all of its proxies",
        "prune.by_value": chosen.prune.by_value is not None and "asha stops trials; leave it out",
        "train.stop_every": chosen.train.stop_every is not None and "rungs stop trials; leave it out",
        "optim.schedule": rules.schedule == "wsd" and "trials of several batches share no trunk; give cosine",
        **{f"optim.{name}": f"its trials have one of {SECTION}.{name}; leave one out" for name in searched},
        "placement.workers": chosen.placement.workers != 1 and "a trial has one worker: give smaller proxies",
        "placement_of": chosen.placement_of and "all trials are placed alike; leave it out",
        **{name: getattr(chosen, name) and "what was tried stays, and counts; leave it out" for name in COMMANDS},
    }
    for section, used in USED.items():
        given = getattr(chosen, section)
        who = "search.trials says how much is tried" if section == "limit" else "Ray Tune places the trials"
        for name in (f.name for f in fields(given) if f.name not in used):
            changed = getattr(given, name) != getattr(type(given)(), name)
            wrong[f"{section}.{name}"] = changed and f"{who}, this would have no effect; leave it out"
    for key, why in wrong.items():
        if why:
            raise UsageError(f"{key} is not for a search of hyperparameters: {why}")


def proxies(cells: Grid) -> list[Proxy]:
    """The pairs of N and D of a grid."""
    return [Proxy(number=i, base=run) for i, run in enumerate(cells.runs)]


def build(chosen: Recipe, asked: Search, corpus_sha256: str) -> tuple[Grid, list[Proxy]]:
    """The grid and its proxies.

    Raises:
        UsageError: where they are too few to tell N and D apart, or a trial could not be a run.
    """
    cells = grid.build(chosen, corpus_sha256)
    found = proxies(cells)
    if len(found) < LEAST_PAIRS:
        raise UsageError(
            f"the recipe {chosen.name} has {len(found)} proxies: a law of N and D needs at least {LEAST_PAIRS} "
            "pairs, and one that can be tested five; give more sizes or budgets"
        )
    for proxy in found:
        trial(proxy, {"lr": asked.lr[0], "batch": asked.batch[1]})  # the longest step
    return cells, found


def trial(proxy: Proxy, factors: Mapping[str, float]) -> RunSpec:
    """The run of a proxy with other hyperparameters.

    Args:
        factors: lr and batch, times the proxy's own; warmup_fraction and final_fraction where they are searched.

    Raises:
        UsageError: where they make no run.
    """
    base, optim = proxy.base, proxy.base.optim
    n_ctx = base.model.n_ctx
    batch = n_ctx * max(1, round(optim.batch_tokens * factors["batch"] / n_ctx))
    whole = batch * math.ceil(base.tokens / batch)
    if whole > SAME_TOKENS * base.tokens:
        raise UsageError(
            f"{proxy.words}: a batch of {batch:,} tokens makes {whole:,} of them, another pair of N and D; lower the "
            f"upper end of {SECTION}.batch, or give proxies of more tokens"
        )
    share = factors.get("warmup_fraction", optim.warmup_tokens / base.tokens)
    try:
        return replace(
            base,
            tokens=whole,
            optim=replace(
                optim,
                lr=float(f"{optim.lr * factors['lr']:.{DIGITS}g}"),
                batch_tokens=batch,
                warmup_tokens=min(whole, batch * round(share * whole / batch)),
                decay_tokens=whole,
                final_fraction=factors.get("final_fraction", optim.final_fraction),
            ),
        )
    except ValueError as error:
        raise UsageError(f"{proxy.words}: {error}") from error


def factors_of(proxy: Proxy, run: RunSpec, asked: Search) -> dict[str, float] | None:
    """What makes a run out of a proxy's own, within what is searched now; None where it is no trial of it."""
    near = 1 / SAME_TOKENS < run.tokens / proxy.base.tokens < SAME_TOKENS
    if not near or (run.model, run.data.corpus_sha256) != (proxy.base.model, proxy.base.data.corpus_sha256):
        return None
    optim, base = run.optim, proxy.base.optim
    found = {
        "lr": min(max(optim.lr / base.lr, asked.lr[0]), asked.lr[1]),
        "batch": min(max(optim.batch_tokens / base.batch_tokens, asked.batch[0]), asked.batch[1]),
    }
    for name, value in (
        ("warmup_fraction", optim.warmup_tokens / run.tokens),
        ("final_fraction", optim.final_fraction),
    ):
        if choices := getattr(asked, name):
            found[name] = min(choices, key=lambda choice: abs(choice - value))
    wanted = trial(proxy, found)
    return found if replace(wanted, optim=run.optim, tokens=run.tokens).run_id == run.run_id else None


def rungs(asked: Search) -> list[float]:
    """Shares of a run at which it may be stopped."""
    if asked.scheduler == "none":
        return []
    found, share = [], asked.first_rung
    while share < 1 - 1e-9:
        found.append(share)
        share *= asked.reduction
    return found


def flops(asked: Search, found: Sequence[Proxy]) -> tuple[float, float]:
    """Training FLOPs of all trials: where none is stopped, and where asha lets one in ``reduction`` past every rung."""
    every = asked.trials * sum(costs.train_flops(p.base.model, p.base.tokens) for p in found)
    ends, left, spent, before = [*rungs(asked), 1.0], 1.0, 0.0, 0.0
    for end in ends:
        spent += left * (end - before)
        before, left = end, left / asked.reduction
    return every, every * spent
