"""The keys ``train.*`` of a recipe: what its runs add to GPT-3's training, and what is measured while they train."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gpt3core.checks import require_between
from gpt3core.errors import UsageError
from gpt3core.options import Options
from gpt3core.spec import RunSpec


@dataclass
class Train:
    """Off by default, as in GPT-3: a run with any of these is no point on the law of runs without."""

    dropout: float = 0.0  # of the embedding and of what attention and MLP add (GPT-2: 0.1)
    attention_dropout: float = 0.0  # of attention probabilities (GPT-2: 0.1); any kernel but native and wide
    label_smoothing: float = 0.0  # of the training loss; the loss that is reported stays the plain one
    lr_noise: float = 0.0  # standard deviation of the learning rate's logarithm, drawn anew each step
    # early stopping: such a run is no point on a law, and fits leave it out
    stop_every: float | None = None  # tokens from one look at the validation loss to the next; null never stops
    stop_patience: int = 3  # looks without a new lowest loss after which a run stops
    stop_validation_tokens: int = 65_536  # of a look
    noise_scale_every: int = 0  # steps from one measurement of the gradient noise scale to the next; changes no weight


def options(rules: Train) -> Options:
    """The options of every run of a recipe.

    Raises:
        ValueError: for one that is out of its range.
    """
    values = {**vars(rules), "stop_every": round(rules.stop_every or 0)}
    del values["noise_scale_every"]
    try:
        return Options(**values)
    except ValueError as error:
        raise UsageError(named(str(error))) from error


def named(sentence: str) -> str:
    """What is said of a run, with the keys that a recipe has for it."""
    return re.sub(r"model\.document_end=\d+", "data.mask_documents=true", sentence.replace("options.", "train."))


def check_runs(rules: Train, runs: Sequence[RunSpec]) -> None:
    """Refuse options that no run of a recipe would notice.

    Raises:
        ValueError: naming the first of them and what to do.
    """
    every, looks = rules.stop_every, rules.stop_patience + 1
    if every is not None:
        longest = max(run.tokens for run in runs)
        if looks * every > longest:
            raise UsageError(
                f"train.stop_every={every:g}, train.stop_patience={rules.stop_patience}: no run can stop early, for "
                f"the longest has {longest:,} tokens and {looks} looks come after {looks * every:,.0f}; give fewer"
            )
        if (least := 2 * max(run.model.n_ctx for run in runs)) > rules.stop_validation_tokens:
            raise UsageError(
                f"train.stop_validation_tokens={rules.stop_validation_tokens}: two sequences are {least} tokens; give "
                "more"
            )
    if rules.noise_scale_every > (most := max(run.steps for run in runs)):
        raise UsageError(
            f"train.noise_scale_every={rules.noise_scale_every}: the longest run has {most:,} steps; give fewer"
        )


def lines(rules: Train) -> list[str]:
    """What --plan says of the options that are on."""
    on = options(rules).describe()
    found = [f"beside GPT-3's training: {on}"] if on else []
    if rules.noise_scale_every:
        found.append(
            f"the gradient noise scale is measured every {rules.noise_scale_every:,} steps (columns noise_scale, "
            "grad_sq and grad_var of a run's metrics, in tokens)"
        )
    return found


def check(rules: Train, *, schedule: str, adaptive: bool, pruned: bool) -> None:
    """Refuse options that mean nothing, or that do not go together with what else a recipe does.

    Raises:
        ValueError: naming the first of them and what to do.
    """
    require_between(rules, 0, 10**9, "noise_scale_every", where="train.")
    if rules.stop_every is None:
        return
    if not 1 <= rules.stop_every <= 10**18:
        raise UsageError(f"train.stop_every={rules.stop_every:g}: tokens, 1 or more (like 1e6); null never stops a run")
    if schedule == "wsd":
        raise UsageError(
            f"train.stop_every={rules.stop_every:g}, optim.schedule=wsd: runs of one size wait for the checkpoints of "
            "the longest, which must not stop early; give optim.schedule=cosine, or leave train.stop_every out"
        )
    for name, on in (("adaptive=true", adaptive), ("prune.by_value", pruned)):
        if on:
            raise UsageError(
                f"train.stop_every={rules.stop_every:g}, {name}: a run that stops early has no loss that a law could "
                "be fitted to, and the next decision needs one; leave one of the two out"
            )
