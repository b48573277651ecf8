"""Fine-tuning runs from trained ones: parents x numbers of examples x seeds, by GPT-1's rule; pure.

Radford et al. 2018, section 4.1: 3 epochs in batches of 32 at a learning rate of 6.25e-5 that falls linearly to zero
after a warm-up over 0.2% of the training, dropout of 0.1 before the classifier, and 0.5 of the language-model loss. All
else stays as in pre-training, whose learning rate was 2.5e-4. So of a model of any size the learning rate is a quarter
of its own pre-training's, which is the paper's at the paper's size.

The paper's smallest set, RTE of 2,490 examples, has 233 steps in 3 epochs. Sets of a few hundred have a few dozen, in
which models of width 16 to 32 learnt no more than which class is the commoner (480 examples: at 45 steps 0.78 to 0.80
right, where 0.80 are of one class; at 150 steps all), and BERT needs longer too (Zhang et al. 2021, arXiv 2006.05987).
So there are 200 steps at least, unless the epochs are said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from gpt3core.checks import require_between, require_positive
from gpt3core.data import formats, labelled, tokenizer
from gpt3core.data.labelled import Example
from gpt3core.errors import UsageError
from gpt3core.labelled import MULTIPLE_CHOICE, SPECIAL, LabelledSpec
from gpt3core.options import Options
from gpt3core.spec import Parent, RunSpec

LR_SHARE = 6.25e-5 / 2.5e-4  # of the learning rate of pre-training
EPOCHS, LEAST_STEPS = 3.0, 200
MOST_RUNS = 10_000


@dataclass
class Rules:
    """The keys ``train.*`` of a fine-tuning: the paper's values."""

    epochs: float | None = None  # by default 3, and as many as 200 steps take where these are more
    batch: int = 32  # examples; all of them where there are fewer
    lr: float | None = None  # by default a quarter of the parent's own
    warmup_fraction: float = 0.002  # of the steps, one at least
    lm_weight: float = 0.5  # of the language-model loss beside the answers'
    dropout: float = 0.1  # of what the classifier reads

    def check(self) -> None:
        """Refuse what means nothing.

        Raises:
            ValueError: naming the first of them.
        """
        given = (name for name in ("epochs", "lr") if getattr(self, name) is not None)
        require_positive(self, "batch", *given, where="train.")
        require_between(self, 0, 1, "warmup_fraction", where="train.")


@dataclass(frozen=True, kw_only=True)
class Source:
    """The examples that there are, and where they come from."""

    task: str
    files: tuple[str, ...]
    held_out: int  # questions
    training: Sequence[Example]
    asked: Sequence[Example]


def runs(
    parents: Sequence[tuple[RunSpec, int]], source: Source, counts: Sequence[int], seeds: int, rules: Rules
) -> list[RunSpec]:
    """The runs: each parent, at a step of it, on each number of examples, with each seed.

    Raises:
        ValueError: for numbers that the examples do not give, or examples that do not fit a parent's context.
    """
    rules.check()
    if len(parents) * len(counts) * seeds > MOST_RUNS:
        raise UsageError(f"that is more than {MOST_RUNS:,} runs: give fewer examples=[...], seeds or runs=[...]")
    form = source.training[0].form
    content = labelled.fingerprint(source.training)
    contexts = {(spec.data.tokenizer, spec.model.n_ctx) for spec, _ in parents}
    shapes = {key: formats.shape(source.training, *key) for key in contexts}
    for key in contexts:
        formats.shape(source.asked, *key)  # they must fit too, and are no part of what a run is
    for count in counts:
        for seed in range(seeds):
            labelled.drawn(source.training, count, seed)
    found = []
    for parent, step in parents:
        ways, length = shapes[parent.data.tokenizer, parent.model.n_ctx]
        for count in counts:
            what = LabelledSpec(
                source=source.task,
                files=source.files,
                held_out=source.held_out,
                sha256=content,
                form=form,
                count=count,
                classes=() if form == MULTIPLE_CHOICE else source.training[0].choices,
                ways=ways,
                length=length,
                lm_weight=rules.lm_weight,
                dropout=rules.dropout,
            )
            found += [run(parent, step, what, seed, rules) for seed in range(seeds)]
    return found


def run(parent: RunSpec, step: int, what: LabelledSpec, seed: int, rules: Rules) -> RunSpec:
    """A run that fine-tunes what another is at a step.

    The warm-up lasts a step at least, and the decay would end a step after the last: so step s of S trains at 1 - s / S
    of the learning rate, as in the released code, and none at zero.
    """
    examples = min(rules.batch, what.count)
    steps = max(1, math.ceil((rules.epochs or EPOCHS) * what.count / examples))
    if rules.epochs is None:
        steps = max(steps, LEAST_STEPS)
    batch = examples * what.unit_tokens
    return replace(
        parent,
        model=replace(parent.model, vocab_size=tokenizer.vocab_size(parent.data.tokenizer) + SPECIAL),
        optim=replace(
            parent.optim,
            lr=rules.lr or LR_SHARE * parent.optim.lr,
            schedule="linear",
            batch_tokens=batch,
            warmup_tokens=max(1, round(rules.warmup_fraction * steps)) * batch,
            decay_tokens=(steps + 1) * batch,
            final_fraction=0.0,
            stable_tokens=0,
            decay_shape="linear",
            ramp_start=0,
            ramp_tokens=0,
        ),
        tokens=steps * batch,
        objective="labelled",
        parent=Parent(run_id=parent.run_id, step=step),
        seed=seed,
        budget_flops=None,
        options=_without_stops(parent.options),
        noise_scale_every=0,
        labelled=what,
    )


def _without_stops(options: Options) -> Options:
    """What a run adds to GPT-3's training, but for early stopping, which looks at text."""
    plain = Options()
    names = ("stop_every", "stop_patience", "stop_validation_tokens")
    return replace(options, **{name: getattr(plain, name) for name in names})
