"""What a model is trained on: which positions predict what, and the loss of it, always in fp32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from gpt3core.model.documents import begins


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a classifier is asked: B labelled examples of W sequences each."""

    ends: Tensor  # (B, W) where it reads; -1 where an example has no such sequence
    answers: Tensor  # (B) the right ones
    rows: range  # the numbers of the examples in the run


@dataclass(frozen=True, kw_only=True)
class Examples:
    """What a model reads and what it is asked there."""

    inputs: Tensor  # (B, T) token ids
    targets: Tensor  # (B, T) token ids
    mask: Tensor | None  # (B, T), 1 where the target counts and 0 where not; None where all do
    documents: Tensor | None = None  # (B, T of whole sequences) where each position's begins; None: all see one another
    rows: range = range(0)  # the numbers of its sequences in the run, which what is drawn for them depends on
    asked: Asked | None = None  # of labelled examples

    def some(self, rows: slice) -> Examples:
        """Some of the sequences."""
        mask, documents = (None if tensor is None else tensor[rows] for tensor in (self.mask, self.documents))
        inputs, targets = self.inputs[rows], self.targets[rows]
        return Examples(inputs=inputs, targets=targets, mask=mask, documents=documents, rows=self.rows[rows])


Objective = Callable[..., Examples]  # of tokens and mask, and of what a batch has beside them
Loss = Callable[[Tensor, Examples], Tensor]  # of logits (B, T, V), summed over the targets that count


def next_token(tokens: Tensor, mask: Tensor | None) -> Examples:
    """Every position predicts the token after it: (B, T+1) tokens and the mask (B, T) of their targets."""
    return Examples(inputs=tokens[:, :-1], targets=tokens[:, 1:], mask=mask)


def labelled(tokens: Tensor, mask: Tensor, ends: Tensor, answers: Tensor) -> Examples:
    """What the extract tokens say of each example, and the next token as ``mask`` counts it (Radford et al. 2018).

    (B, W, T+1) tokens, (B, W, T) the mask, (B, W) where the extract tokens are, (B) the answers.
    """
    flat = next_token(tokens.flatten(0, 1), mask.flatten(0, 1))
    return replace(flat, asked=Asked(ends=ends, answers=answers, rows=range(len(answers))))


def numbered(examples: Examples, rows: range) -> Examples:
    """With the numbers that its sequences, or labelled examples, have in the run."""
    if examples.asked is None:
        return replace(examples, rows=rows)
    ways = examples.asked.ends.size(1)
    own = range(rows.start * ways, rows.stop * ways, rows.step)  # where examples or sequences are next to one another
    return replace(examples, rows=own, asked=replace(examples.asked, rows=rows))


def told_apart(examples: Examples, end: int | None) -> Examples:
    """Whole sequences with their documents masked, where ``end`` is the token that ends one.

    All targets count, the first token of a document too: what precedes it is the end-of-text of the one before.
    """
    return examples if end is None else replace(examples, documents=begins(examples.inputs, end))


OBJECTIVES: dict[str, Objective] = {"next_token": next_token, "labelled": labelled}  # by ``RunSpec.objective``


def loss_per_token(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy in nats, in fp32 (bf16's is wrong in the third digit): (B, T, V), (B, T) -> (B, T)."""
    flat = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
    return flat.view_as(targets)


def loss_sum(logits: Tensor, examples: Examples) -> Tensor:
    """The summed loss of the targets that count, in nats and fp32."""
    losses = loss_per_token(logits, examples.targets)
    return (losses if examples.mask is None else losses * examples.mask).sum()


def smoothed(loss: Loss, smoothing: float, vocab_size: int, first: int = 0) -> Loss:
    """The same summed loss, with the gradient of label smoothing (Szegedy et al. 2016, arXiv 1512.00567, section 7).

    The value stays the plain cross-entropy, which is what is reported. A smoothed loss is the plain one and, a target,
    ``smoothing`` times its logit less the mean of all: of logits cut over devices each adds what it has.

    Args:
        first: the token of the first logit, where logits are cut by tokens.
    """

    def found(logits: Tensor, examples: Examples) -> Tensor:
        rows = examples.targets - first
        here = (rows >= 0) & (rows < logits.size(-1))
        every = logits.float()
        at = every.gather(-1, rows.clamp(0, logits.size(-1) - 1)[..., None])[..., 0] * here
        added = at - every.sum(-1) / vocab_size  # (B, T)
        added = smoothing * (added if examples.mask is None else added * examples.mask).sum()
        return loss(logits, examples) + (added - added.detach())

    return found


def model_loss_sum(model: nn.Module, examples: Examples) -> Tensor:
    """The same of a model that has its whole head: without logits of the whole batch."""
    if examples.asked is not None:
        return _labelled_loss_sum(model, examples, examples.asked)
    found: Tensor = model(examples.inputs, examples.targets, examples.mask, examples.documents)
    return found


def _labelled_loss_sum(model: Any, examples: Examples, asked: Asked) -> Tensor:
    """-log P(answer) and what the mask leaves of the loss of text, summed over examples: L3 of section 3.2."""
    hidden = model.hidden(examples.inputs, documents=examples.documents)  # (B W, T, D)
    text: Tensor = model.head.loss_sum(hidden, examples.targets, examples.mask)
    with model.classifier.dropout.at(asked.rows):
        scores = model.classifier(hidden, asked.ends)
    return text + F.cross_entropy(scores, asked.answers, reduction="sum")
