"""A rule of hyperparameters in a recipe: the batch, warm-up and decay that follow, and what a plan says of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpt3core import costs
from gpt3core import rule as hyper
from gpt3core.errors import UsageError
from gpt3core.model.architecture import ModelSpec
from gpt3core.rule import Rule
from gpt3core.spec import RunSpec

RULE = "optim.rule"
GPT3_PART = 8  # a step of Table 2.1's batches, 256 sequences, is too coarse for a small run: an eighth of it


def named(written: dict[str, Any], typed: Sequence[str], path: Path) -> tuple[Rule | None, list[str]]:
    """The rule that a recipe or a command names, itself: what is kept of the recipe holds it whole; the other words.

    It is taken out of ``written``. A path is looked for from where the command runs, then beside the recipe.
    """
    optim = written.get("optim")
    asked = optim.pop("rule", None) if isinstance(optim, dict) else None
    words = [s for s in typed if s.startswith(f"{RULE}=")]
    if len(words) > 1:
        raise UsageError(f"{words[1]:.200}: {words[0]:.200} was given too; leave one out")
    if words:
        said = words[0].split("=", 1)[1]
        asked = None if said in ("null", "") else said
    if isinstance(asked, dict):
        found: Rule | None = hyper.of(asked, f"{path}: {RULE}")
    elif asked is None or isinstance(asked, str):
        beside = path.parent / str(asked)
        near = not words and asked is not None and not Path(asked).expanduser().is_file() and beside.is_file()
        found = None if asked is None else hyper.read(str(beside) if near else asked)
    else:
        raise UsageError(f"{path}: {RULE}: {asked!r:.80}: the name of a rule, or the path of its file")
    return found, [s for s in typed if s not in words]


def size(rule: Rule, model: ModelSpec) -> int:
    """N as a rule counts it."""
    counts = costs.params(model)
    return counts.total if rule.counts == "total" else counts.nonembedding


def batch(rule: Rule, model: ModelSpec, tokens: float, sequences: int = 1) -> int:
    """Tokens of a step, in whole units of so many sequences."""
    return rule.batch(size(rule, model), tokens, sequences * model.n_ctx)


def rate(rule: Rule, model: ModelSpec, tokens: float) -> float:
    """The learning rate of a run of so many tokens."""
    return rule.learning_rate(size(rule, model), tokens)


def warmup_fraction(rules: Any) -> float:
    """A recipe's, or that of its rule where it was searched."""
    searched = rules.rule.warmup_fraction if rules.rule is not None else None
    return float(rules.warmup_fraction if searched is None else searched)


def final_fraction(rules: Any) -> float:
    """A recipe's, or that of its rule where it was searched."""
    searched = rules.rule.final_fraction if rules.rule is not None else None
    return float(rules.final_fraction if searched is None else searched)


def told(rule: Rule | None, runs: Sequence[RunSpec]) -> list[str]:
    """What a plan says of a rule: its laws, what they rest on, and how far the runs lie outside of that."""
    if rule is None:
        return []
    known = rule.fitted
    rests = f"; fitted on {known.runs:,} runs of {known.pairs} pairs of N and D" if known.runs else ""
    if known.left_out_loss is not None:
        rests += f", giving away {known.left_out_loss:.2%} of the loss where one was left out"
    found = [f"optim.rule {rule.name}: {rule.words}{rests} ({known.source or 'source not told'})"]
    worst: dict[str, tuple[float, RunSpec]] = {}
    for run in runs:
        for name, factor in rule.beyond(size(rule, run.model), run.tokens).items():
            if name not in worst or factor > worst[name][0]:
                worst[name] = factor, run
    for name, (factor, run) in worst.items():
        low, high = getattr(known, name)
        found.append(
            f"optim.rule {rule.name} is extrapolated in {name}: by up to {factor:.3g} times outside of {low:.3g} to "
            f"{high:.3g}, what it was fitted on ({run.run_id}); nothing tells how good it is there"
        )
    return found + _otherwise(rule, runs)


def _otherwise(rule: Rule, runs: Sequence[RunSpec]) -> list[str]:
    """Where the runs are trained otherwise than those that it was fitted to."""
    found, known = [], rule.fitted
    schedules = sorted({run.optim.schedule for run in runs} - {known.schedule})
    if known.schedule and schedules:
        found.append(
            f"optim.rule {rule.name} was fitted under optim.schedule={known.schedule}, and these runs have "
            f"{', '.join(schedules)}, whose best learning rate is another"
        )
    widths = sorted({int(getattr(run.model, "mup_base_width", 0)) for run in runs} - {known.mup_base_width})
    if widths:
        found.append(
            f"optim.rule {rule.name} was fitted with model.mup_base_width={known.mup_base_width}, and these runs have "
            f"{', '.join(map(str, widths))}: a learning rate means something else there"
        )
    if rule.counts == "given":
        found.append(f"optim.rule {rule.name} does not say what its N counts: non-embedding parameters are taken")
    return found
