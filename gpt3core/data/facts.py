"""What a plan says of a text before anything starts: its size in tokens, and how fine a difference of losses it shows.

No torch, nothing is fetched, and at most some megabytes are tokenized.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpt3core.data import corpus, shards, starter
from gpt3core.data import tokenizer as tokenizers
from gpt3core.data.document import Document
from gpt3core.spec import DataSpec

SAMPLE_BYTES = 1_000_000  # of each side; a text below it is tokenized whole, and its figures are exact

# The starter corpus under version 2 of the preparation: its packages give 15,030 documents of 20,233,485 bytes, and
# GPT-2's first K - 1 ranks cut them into so many tokens, end-of-text not counted (the long test measures them again).
STARTER_DOCUMENTS = 15_030
STARTER_BYTES = 20_233_485
STARTER_TOKENS = {
    257: 20_233_485,
    512: 10_513_149,
    1024: 8_850_528,
    2048: 7_869_001,
    4096: 7_125_088,
    8192: 6_549_578,
    16384: 6_056_830,
    32768: 5_709_116,
    50257: 5_538_707,
}

# Nats per token: the standard deviation of the difference of two runs' losses on the same tokens, from the means of
# stretches of 8,192 tokens (longer than the documents, so that stretches are independent), on the starter corpus at
# gpt2:1024 after 1M tokens: 1.06 between widths 48 and 64, 1.04 between two seeds. From single windows of 128 tokens it
# is 0.75 and 0.85; of one run's own loss it is 13, since some texts are harder for every model
# (tests/benchmarks/loss_resolution.py).
PAIRED_SD = 1.05


@dataclass(frozen=True, kw_only=True)
class TextFacts:
    """The size of a text: tokens include end-of-text after every document."""

    documents: int
    bytes: int
    train_tokens: int
    validation_tokens: int
    exact: bool  # counted; else the tokens are estimated from a sample

    def loss_resolution(self, validation_tokens: int, n_ctx: int) -> float:
        """The smallest difference of two runs' losses, in nats per token, that an evaluation tells from none.

        Two standard errors of the mean difference per token of two runs scored on the same text:
        ``2 * PAIRED_SD / sqrt(tokens)``, over what ``measured_tokens`` says. Infinite where that is nothing.
        """
        return smallest_difference(self.measured_tokens(validation_tokens, n_ctx))

    def measured_tokens(self, validation_tokens: int, n_ctx: int) -> int:
        """The tokens that an evaluation reads: whole windows of ``n_ctx`` in the held-out text, at most so many."""
        return min(validation_tokens, self.validation_tokens - 1) // n_ctx * n_ctx


def smallest_difference(tokens: int) -> float:
    """Two standard errors, in nats per token, of the difference of two runs' losses on the same ``tokens`` tokens."""
    return 2 * PAIRED_SD / math.sqrt(tokens) if tokens > 0 else math.inf


def describe(spec: DataSpec) -> TextFacts:
    """The size of a text: counted if its shards are in the cache, else estimated from a sample.

    Raises:
        ValueError: for text that could not be prepared, with the sentence that the preparation would give.
    """
    corpus.check_version(spec)
    if (meta := shards.cached_meta(spec)) is not None:
        return TextFacts(
            documents=sum(meta["documents"].values()),
            bytes=sum(meta["bytes"].values()),
            train_tokens=meta["tokens"]["train"],
            validation_tokens=meta["tokens"]["validation"],
            exact=True,
        )
    if spec.corpus == starter.NAME:
        return _starter(spec)
    sides = corpus.sides(spec)
    (train, all_of_train), (validation, all_of_validation) = (_tokens(side, spec.tokenizer) for side in sides)
    return TextFacts(
        documents=sum(map(len, sides)),
        bytes=sum(_bytes(document) for side in sides for document in side),
        train_tokens=train,
        validation_tokens=validation,
        exact=all_of_train and all_of_validation,
    )


def _starter(spec: DataSpec) -> TextFacts:
    """Of the starter corpus, whether it is fetched or not: the share held out is met to about a percent of it."""
    size = tokenizers.vocab_size(spec.tokenizer)
    log_tokens = np.interp(math.log(size), np.log(list(STARTER_TOKENS)), np.log(list(STARTER_TOKENS.values())))
    tokens = math.exp(log_tokens) + STARTER_DOCUMENTS
    return TextFacts(
        documents=STARTER_DOCUMENTS,
        bytes=STARTER_BYTES,
        train_tokens=round(tokens * (1 - spec.validation_fraction)),
        validation_tokens=round(tokens * spec.validation_fraction),
        exact=False,
    )


def _tokens(documents: Sequence[Document], tokenizer: str) -> tuple[int, bool]:
    """The tokens of documents in random order, and whether all were counted rather than the first ones."""
    encoding = tokenizers.load(tokenizer)
    counted = read = 0
    for number, document in enumerate(documents):
        if read >= SAMPLE_BYTES:
            rest = sum(map(_bytes, documents[number:]))
            return counted + round(rest * counted / read) + len(documents), False
        counted += len(encoding.encode_ordinary(document.text))
        read += _bytes(document)
    return counted + len(documents), True


def _bytes(document: Document) -> int:
    return len(document.text.encode())
