"""What a plan says of a text before anything starts: its size in tokens, and how fine a difference of losses it shows.

No torch, nothing is fetched. A small text of one's own is prepared, where the cache can be written; of another some
megabytes are tokenized.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gpt3core.data import corpus, shards, starter, weights
from gpt3core.data import tokenizer as tokenizers
from gpt3core.data.shards import Shards
from gpt3core.data.sources import own
from gpt3core.data.split import TRAIN, VALIDATION
from gpt3core.errors import StoreError
from gpt3core.spec import DataSpec

PLANNED_BYTES = 16 << 20  # of own text: as much is prepared for a plan, in seconds
SAMPLE_BYTES = 2_000_000  # of larger text, which are tokenized, about
SAMPLE_CHARS = 3000  # a piece of these: few long documents give as many as short ones do

# The starter corpus's sources under version 4 of the preparation: documents, bytes, and the tokens that GPT-2's first K
# - 1 ranks cut them into, end-of-text not counted (the long test measures them again).
STARTER_DOCUMENTS = {"bible": 1_189, "literature": 3_805, "wikipedia": 10_033}
STARTER_BYTES = {"bible": 4_136_263, "literature": 11_202_744, "wikipedia": 4_885_535}
STARTER_TOKENS = {
    257: {"bible": 4_136_263, "literature": 11_202_744, "wikipedia": 4_885_535},
    512: {"bible": 1_929_836, "literature": 6_133_973, "wikipedia": 2_444_669},
    1024: {"bible": 1_617_288, "literature": 5_230_249, "wikipedia": 1_999_017},
    2048: {"bible": 1_431_398, "literature": 4_727_479, "wikipedia": 1_706_541},
    4096: {"bible": 1_300_102, "literature": 4_337_467, "wikipedia": 1_484_256},
    8192: {"bible": 1_208_513, "literature": 4_034_983, "wikipedia": 1_303_089},
    16384: {"bible": 1_112_272, "literature": 3_771_054, "wikipedia": 1_170_725},
    32768: {"bible": 1_053_176, "literature": 3_580_210, "wikipedia": 1_073_143},
    50257: {"bible": 1_022_996, "literature": 3_483_445, "wikipedia": 1_029_772},
}

# Nats per token: the standard deviation of the difference of two runs' losses on the same tokens, from the means of
# stretches of 8,192 tokens (longer than the documents, so that stretches are independent), on the starter corpus at
# gpt2:1024 after 1M tokens: 1.06 between widths 48 and 64, 1.04 between two seeds. From single windows of 128 tokens it
# is 0.75 and 0.85; of one run's own loss it is 13, since some texts are harder for every model
# (tests/benchmarks/loss_resolution.py).
PAIRED_SD = 1.05


@dataclass(frozen=True, kw_only=True)
class SourceFacts:
    """The size of one source of a text, and its weight in the mixture: tokens include end-of-text."""

    weight: float  # of all, which add up to one
    train_tokens: int
    validation_tokens: int


@dataclass(frozen=True, kw_only=True)
class TextFacts:
    """The size of a text."""

    documents: int
    bytes: int
    sources: dict[str, SourceFacts]
    exact: bool  # counted; else the tokens are estimated from a sample

    @property
    def train_tokens(self) -> int:
        """Of all sources that are mixed in."""
        return sum(source.train_tokens for source in self.sources.values() if source.weight)

    @property
    def validation_tokens(self) -> int:
        """Of all sources that are mixed in."""
        return sum(source.validation_tokens for source in self.sources.values() if source.weight)

    def loss_resolution(self, validation_tokens: int, n_ctx: int) -> float:
        """The smallest difference of two runs' losses, in nats per token, that an evaluation tells from none.

        Two standard errors of the mean difference per token of two runs scored on the same text:
        ``2 * PAIRED_SD / sqrt(tokens)``, over what is read of each source, by the sources' weights. Infinite where that
        is nothing.
        """
        read = self._windows(validation_tokens, n_ctx)
        parts = [(source.weight, count * n_ctx) for source, count in read if source.weight]
        if not all(tokens for _, tokens in parts):
            return math.inf
        return smallest_difference(1 / math.fsum(weight**2 / tokens for weight, tokens in parts))

    def measured_tokens(self, validation_tokens: int, n_ctx: int) -> int:
        """The tokens that an evaluation reads: whole windows of ``n_ctx`` in the held-out text, at most so many."""
        return sum(count * n_ctx for _, count in self._windows(validation_tokens, n_ctx))

    def least_windows(self, validation_tokens: int, n_ctx: int) -> int:
        """The windows of that source, of those mixed in, of which fewest are read."""
        return min(count for source, count in self._windows(validation_tokens, n_ctx) if source.weight)

    def _windows(self, validation_tokens: int, n_ctx: int) -> list[tuple[SourceFacts, int]]:
        every = list(self.sources.values())
        there = [max(0, source.validation_tokens - 1) // n_ctx for source in every]
        most = validation_tokens // n_ctx
        if most < weights.LEAST_WINDOWS:
            return [(source, 0) for source in every]
        found = weights.windows(there, [source.weight for source in every], most)
        return list(zip(every, found, strict=True))


def smallest_difference(tokens: float) -> float:
    """Two standard errors, in nats per token, of the difference of two runs' losses on the same ``tokens`` tokens."""
    return 2 * PAIRED_SD / math.sqrt(tokens) if tokens > 0 else math.inf


def describe(spec: DataSpec) -> TextFacts:
    """The size of a text: counted if its shards are in the cache, else estimated from a sample.

    Raises:
        ValueError: for text that could not be prepared, with the sentence that the preparation would give.
    """
    corpus.check_version(spec)
    if (meta := shards.described(spec)) is not None:
        known = shards.sources(meta, spec)
        return TextFacts(
            documents=sum(sum(source.documents.values()) for source in known.values()),
            bytes=sum(sum(source.bytes.values()) for source in known.values()),
            sources={
                name: SourceFacts(
                    weight=source.weight,
                    train_tokens=source.tokens[TRAIN],
                    validation_tokens=source.tokens[VALIDATION],
                )
                for name, source in known.items()
            },
            exact=True,
        )
    if spec.corpus == starter.NAME:
        return _starter(spec)
    corpus.check(spec)
    return _sampled(spec) if _prepared(spec) is None else describe(spec)


def for_tasks(spec: DataSpec) -> Shards | None:
    """What tasks are made from; None of a text that is not here, or not prepared for a plan.

    Raises:
        ValueError: as ``describe``.
    """
    if (there := shards.unverified(spec)) is not None:
        return there
    if spec.corpus == starter.NAME or not Path(spec.corpus).expanduser().exists():
        return None
    return _prepared(spec)


def _prepared(spec: DataSpec) -> Shards | None:
    """Small own text, so that its figures are exact and the first run finds it done; None where it cannot be kept."""
    if corpus.about(spec.corpus).bytes <= PLANNED_BYTES:
        with contextlib.suppress(StoreError):  # a plan needs no room on a disk
            return shards.prepare(replace(spec, episodes=0.0))
    return None


def _sampled(spec: DataSpec) -> TextFacts:
    """Of own text, with its near-copies, from the tokens of pieces of its documents that are drawn by chance."""
    about = corpus.about(spec.corpus)
    drawn, draw = SAMPLE_BYTES / about.bytes, random.Random(0)
    encoding = tokenizers.load(spec.tokenizer)
    documents = read = counted = 0
    for text in own.texts(spec.corpus):
        for document in text.documents(about.stretch(spec.validation_fraction)):
            documents += 1
            for start in range(0, len(document), SAMPLE_CHARS):
                if draw.random() < drawn:
                    piece = document[start : start + SAMPLE_CHARS]
                    read += len(piece.encode())
                    counted += len(encoding.encode_ordinary(piece))
    tokens, share = about.bytes * counted / read + documents, spec.validation_fraction
    found = {own.SOURCE: (round(tokens * (1 - share)), round(tokens * share))}
    return TextFacts(documents=documents, bytes=about.bytes, sources=_weighed(found, spec), exact=False)


def _weighed(tokens: Mapping[str, tuple[int, int]], spec: DataSpec) -> dict[str, SourceFacts]:
    """Sources by their tokens to train on and held out, with the weights asked for, or by the first."""
    shares = weights.resolved({name: float(train) for name, (train, _) in tokens.items()}, dict(spec.weights))
    return {
        name: SourceFacts(weight=shares[name], train_tokens=train, validation_tokens=validation)
        for name, (train, validation) in tokens.items()
    }


def _starter(spec: DataSpec) -> TextFacts:
    """Of the starter corpus, fetched or not: the share held out is met to a percent, of literature to an eighth."""
    share, tokens = spec.validation_fraction, {}
    for name, documents in STARTER_DOCUMENTS.items():
        count = _starter_tokens(name, spec.tokenizer) + documents
        tokens[name] = round(count * (1 - share)), round(count * share)
    return TextFacts(
        documents=sum(STARTER_DOCUMENTS.values()),
        bytes=sum(STARTER_BYTES.values()),
        sources=_weighed(tokens, spec),
        exact=False,
    )


def _starter_tokens(source: str, tokenizer: str) -> float:
    logs = np.log([counts[source] for counts in STARTER_TOKENS.values()])
    return math.exp(np.interp(math.log(tokenizers.vocab_size(tokenizer)), np.log(list(STARTER_TOKENS)), logs))


def tokens_a_byte(tokenizer: str) -> float:
    """The tokens that a byte of English text becomes, about: as of the starter corpus."""
    return sum(_starter_tokens(source, tokenizer) for source in STARTER_BYTES) / sum(STARTER_BYTES.values())
