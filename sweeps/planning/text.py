"""What a sweep's text is good for, before anything starts: how often each run would see it, and what loss it resolves.

Of a text of several sources the one that is repeated most counts.

Up to four epochs are nearly as good as new text, and beyond forty repeating teaches nothing (Muennighoff et al. 2023).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpt3core import words
from gpt3core.data.weights import LEAST_WINDOWS
from gpt3core.errors import UsageError
from gpt3core.evals.spec import EvalSpec
from gpt3core.spec import RunSpec
from sweeps.planning.recipe import Recipe

if TYPE_CHECKING:
    from gpt3core.data.facts import SourceFacts

HARMLESS_EPOCHS = 4.0
EVEN = 0.99  # of the text is seen before a source is repeated: then it is the text that is repeated
EXAMPLES = 3


@dataclass(frozen=True, kw_only=True)
class Text:
    """Counts of a tokenized text, and the least difference of losses that its held-out part tells apart."""

    sources: Mapping[str, SourceFacts]

    documents: int
    train_tokens: int
    validation_tokens: int
    measured_tokens: int  # validation tokens that an evaluation reads
    resolution: float  # nats per token
    exact: bool  # counted, not estimated from the text's length
    episodes: float = 0.0  # share of the training tokens that are generated, and none of the text's

    @property
    def mixed(self) -> dict[str, SourceFacts]:
        """The sources that are mixed in."""
        return {name: source for name, source in self.sources.items() if source.weight}

    @property
    def fresh_tokens(self) -> float:
        """Tokens of a run that repeats no text: until a source has been seen once."""
        return min(source.train_tokens / source.weight for source in self.mixed.values()) / (1 - self.episodes)

    @property
    def first_repeated(self) -> tuple[str, int]:
        """In words what is repeated first, and its training tokens: a source, or nothing said where it is all of it."""
        name, source = min(self.mixed.items(), key=lambda item: item[1].train_tokens / item[1].weight)
        if self.fresh_tokens * (1 - self.episodes) > EVEN * self.train_tokens:
            return "", self.train_tokens
        return f" of {name}", source.train_tokens

    def epochs(self, run: RunSpec) -> float:
        """How often a run sees its text, or the source that it repeats most."""
        return run.tokens / self.fresh_tokens


def describe(runs: Sequence[RunSpec], evals: EvalSpec) -> Text:
    """The text of a sweep, whose runs share it.

    Raises:
        ValueError: when it is too small to train on and to hold text out.
    """
    from gpt3core.data import facts

    data, n_ctx = runs[0].data, runs[0].model.n_ctx
    found = facts.describe(data)
    for name, source in found.sources.items():
        if source.weight and min(source.train_tokens, source.validation_tokens) < n_ctx:
            part = f", its source {name}," if len(found.sources) > 1 else ""
            raise UsageError(
                f"data.corpus={data.corpus!r}{part} is too small: {source.train_tokens:,} tokens to train on and "
                f"{source.validation_tokens:,} held out (data.validation_fraction={data.validation_fraction:g}), and a "
                f"sequence has model.n_ctx={n_ctx}; give more text, another fraction or a shorter context"
            )
    windows = found.least_windows(evals.validation_tokens, n_ctx)
    if windows < LEAST_WINDOWS:
        raise UsageError(
            f"evals.validation_tokens={evals.validation_tokens}, of {found.validation_tokens:,} held out of "
            f"data.corpus={data.corpus!r}: a loss is measured on whole sequences of model.n_ctx={n_ctx}, at least "
            f"{LEAST_WINDOWS} of each source for its standard error, and these are {windows}; give more text, more of "
            "these tokens, or a shorter context"
        )
    return Text(
        documents=found.documents,
        sources=found.sources,
        train_tokens=found.train_tokens,
        validation_tokens=found.validation_tokens,
        measured_tokens=found.measured_tokens(evals.validation_tokens, n_ctx),
        resolution=found.loss_resolution(evals.validation_tokens, n_ctx),
        exact=found.exact,
        episodes=data.episodes,
    )


def answerable(runs: Sequence[RunSpec], evals: EvalSpec) -> tuple[str, list[str]]:
    """Why the tasks cannot be asked of these runs, which share a text, empty where they can; and what to know of them.

    Both as far as it is known.
    """
    from gpt3core.evals import enough

    own = [None if run.labelled is None else run.labelled.source for run in runs]
    answered = {name for name in evals.tasks if all(name == of for of in own)}
    n_ctx = min(run.model.n_ctx for run in runs)
    try:
        crowded = enough.check(evals, runs[0].data, n_ctx, answered=answered)
    except ValueError as error:
        return str(error), []
    told = f"asked with fewer examples, and left out of fits, for a context of {n_ctx} tokens holds no more: "
    return "", [told + ", ".join(crowded)] if crowded else []


def repeated(text: Text, recipe: Recipe, runs: Sequence[RunSpec]) -> str:
    """What to say of runs that see their text more than four times; empty when there are none."""
    many = [run for run in runs if text.epochs(run) > HARMLESS_EPOCHS]
    if not many or refusal(text, recipe, runs):
        return ""
    return (
        f"{len(many)} of {len(runs)} runs see their text{text.first_repeated[0]} more than {HARMLESS_EPOCHS:g} times "
        f"({_worst(text, many)}): "
        "repeated text teaches less than new text, and their losses lie above the law of fresh text"
    )


def refusal(text: Text, recipe: Recipe, runs: Sequence[RunSpec]) -> str:
    """Why the sweep must not train on so little text; empty when it may."""
    most = recipe.data.max_epochs
    many = [run for run in runs if text.epochs(run) > most]
    if not many:
        return ""
    source, tokens = text.first_repeated
    return (
        f"data.corpus={recipe.data.corpus}: {len(many)} of {len(runs)} runs would see its {words.count(tokens)} "
        f"training tokens{source} more than {most:g} times ({_worst(text, many)}); give more text, fewer tokens, or "
        "data.max_epochs=... if that is meant"
    )


def _worst(text: Text, runs: Sequence[RunSpec]) -> str:
    """The runs that repeat most, with their epochs."""
    most = sorted(runs, key=lambda run: (-run.tokens, run.run_id))[:EXAMPLES]
    return ", ".join(f"{run.run_id} {text.epochs(run):,.1f}" for run in most)
