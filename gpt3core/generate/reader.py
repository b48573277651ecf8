"""A batch of texts that grow token by token, read by a model with a cache or all anew, and what may follow each.

GPT-3's positions are learned and end at ``n_ctx``. A text may have one token more than that, the one that follows a
full context; to go on from there it must be cut: with ``roll`` the newest half of the context is read anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gpt3core.generate.cache import Cache, device_of, last_logits
from gpt3core.model.products import whole_width


class Reader:
    """Texts and the logits of what follows them."""

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        *,
        tokens: int,
        vocab: int | None = None,
        cached: bool = True,
        roll: bool = False,
    ) -> None:
        """Read the prompts.

        Args:
            tokens: that will be appended at most.
            vocab: ids from here on are never given (a vocabulary that is padded for speed); by default all are.
            cached: keep keys and values; without, every token reads all of its text again.
            roll: go on past the end of the context.

        Raises:
            ValueError: for a prompt that is empty, too long, or of other tokens than the model knows.
        """
        self.model, self.n_ctx, self.cached, self.roll = model, int(model.spec.n_ctx), cached, roll
        self.vocab = model.spec.vocab_size if vocab is None else vocab
        for prompt in prompts:
            check_prompt(prompt, self.n_ctx, self.vocab)
        self.texts = [list(prompt) for prompt in prompts]  # what the model reads of each: at most n_ctx tokens
        self.limit = min(self.n_ctx, max(map(len, self.texts)) + tokens)
        self._read()

    def full(self, row: int) -> bool:
        """Whether a text fills the context, so that it cannot be read with one token more."""
        return len(self.texts[row]) == self.n_ctx and not self.roll

    def extend(self, rows: Sequence[int], tokens: Sequence[int]) -> None:
        """Keep these texts, in this order, each with one token more, and read it."""
        moved = list(rows) != list(range(len(self.texts)))
        self.texts = [[*self.texts[row], token] for row, token in zip(rows, tokens, strict=True)]
        longest = max(map(len, self.texts))
        assert longest <= self.n_ctx or self.roll
        if longest > self.n_ctx:
            half = max(1, self.n_ctx // 2)
            self.texts = [text[-half:] if len(text) > self.n_ctx else text for text in self.texts]
            self._read()
        elif self.cached:
            with torch.inference_mode():
                if moved:
                    self.cache.select(rows)
                self.logits = self._given(self.cache.read_tokens(self.model, tokens))
        else:
            self._read()

    def _read(self) -> None:
        """Read the texts from their beginning."""
        with torch.inference_mode(), whole_width(device_of(self.model).type):
            if self.cached:
                self.cache = Cache(self.model, self.limit)
                self.logits = self._given(self.cache.read_prompts(self.model, self.texts))
            else:
                self.logits = self._given(last_logits(self.model, self.texts))

    def _given(self, logits: Tensor) -> Tensor:
        """The logits (B, V) that are chosen from: fp32, of the ids that may be given."""
        logits = logits[:, : self.vocab].float()
        if not torch.isfinite(logits).all():
            raise ValueError("the model gives logits that are not finite: it diverged, or its weights are damaged")
        return logits


def check_prompt(prompt: Sequence[int], n_ctx: int, vocab: int) -> None:
    """Refuse a prompt that cannot be read.

    Raises:
        ValueError: in one sentence.
    """
    if not 1 <= len(prompt) <= n_ctx:
        raise ValueError(f"a prompt has {len(prompt)} tokens: 1 to {n_ctx} fit the context of this model; shorten it")
    if wrong := [token for token in prompt if not 0 <= token < vocab]:
        raise ValueError(f"a prompt has the token {wrong[0]}: this model knows 0 to {vocab - 1}")
