"""Which raw web text is kept: the classifier of Brown et al. 2020, Appendix A, and its rule of chance.

Logistic regression on hashed words tells curated text from raw web; a document of score s is kept with probability
(2 - s)^-9. The features are counts of words in 2^18 places, as Spark's tokenizer and HashingTF count them, over the
square root of the document's words: the paper does not scale them, and a book is then certain by its length alone.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, special

from gpt3core.data.words import batches, words
from gpt3core.store import files

PLACES_LOG2 = 18  # as HashingTF has by default
PARETO_ALPHA = 9.0
BATCH = 1000  # documents whose features are counted at a time
NEWTON_STEPS, CONJUGATE_STEPS = 100, 500
TOLERANCE = 1e-6  # of the slope at the minimum, beside the slope at the start
BINS = 10

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Classifier:
    """Tells curated text from raw web."""

    weights: Floats  # (2^PLACES_LOG2,)
    bias: float

    def scores(self, texts: Sequence[str]) -> Floats:
        """The probability of each text that it is curated, where half of all are; a text's does not know the others."""
        return np.concatenate([np.empty(0), *(self._scores(batch) for batch in batches(texts))])

    def _scores(self, texts: Sequence[str]) -> Floats:
        places, offsets = _places(texts)
        counts = np.diff(offsets)
        sums = np.zeros(len(texts))
        some = counts > 0  # reduceat takes an empty stretch for one of length one
        if some.any():
            sums[some] = np.add.reduceat(self.weights[places], offsets[:-1][some])
        return np.asarray(special.expit(self.bias + sums / np.sqrt(np.maximum(counts, 1))))

    def save(self, path: Path) -> None:
        """Write the weights as .npy, the bias last."""
        array = np.append(self.weights, self.bias)
        files.write_streamed(path, lambda stream: np.save(stream, array, allow_pickle=False))

    @staticmethod
    def load(path: Path) -> Classifier:
        """Read what ``save`` wrote.

        Raises:
            ValueError: when the file holds anything else.
        """
        values = np.load(path, allow_pickle=False)
        if values.shape != ((1 << PLACES_LOG2) + 1,) or values.dtype != np.float64:
            raise ValueError(f"{path} holds no classifier of {1 << PLACES_LOG2} weights: train it anew")
        return Classifier(weights=values[:-1], bias=float(values[-1]))


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """How a classifier does on documents that it was not trained on."""

    auc: float  # the chance that a curated document scores above a raw one; NaN where there are not both
    calibration: tuple[tuple[int, float, float], ...]  # a tenth of the scores each: documents, mean score, curated
    kept: dict[str, float]  # of each source, the share that the rule keeps on average


def train(documents: Iterable[tuple[str, bool]], *, penalty: float = 1.0) -> Classifier:
    """Fit a classifier to documents and whether each is curated; both kinds weigh the same, however many there are.

    Args:
        documents: in an order that does not change, since sums do in their last bits.
        penalty: what half the squared weights cost beside the sum of the losses.

    Raises:
        ValueError: when there are not both kinds.
    """
    features = []
    curated: list[bool] = []
    for batch in _batches(documents, BATCH):
        features.append(counts([text for text, _ in batch]))
        curated.extend(kind for _, kind in batch)
    labels = np.array(curated, np.bool_)
    if not 0 < labels.sum() < len(labels):
        raise ValueError(
            f"{labels.sum()} curated and {(~labels).sum()} raw documents to train the quality filter on: "
            "it needs some of both"
        )
    return fit(sparse.vstack(features, format="csr"), labels, penalty=penalty)


def fit(features: sparse.csr_array, labels: NDArray[np.bool_], *, penalty: float) -> Classifier:
    """Logistic regression by Newton's method, its steps by conjugate gradients (Lin, Weng and Keerthi 2008).

    Nothing here calls BLAS, whose sums depend on its threads: the same documents give the same bits.

    Args:
        features: (documents, places).
        labels: (documents,) curated or not.
    """
    sign = np.where(labels, 1.0, -1.0)
    share = np.where(labels, 0.5 / labels.mean(), 0.5 / (~labels).mean())
    ridge = np.append(np.full(features.shape[1], penalty), 0.0)  # the bias, last, is free
    transposed = features.T.tocsr()

    def logits(of: Floats) -> Floats:
        return np.asarray(features @ of[:-1] + of[-1])

    def back(slopes: Floats) -> Floats:
        return np.append(transposed @ slopes, slopes.sum())

    def objective(at: Floats) -> float:
        return float((share * np.logaddexp(0, -sign * logits(at))).sum()) + _dot(ridge * at, at) / 2

    def curved(curvature: Floats, along: Floats) -> Floats:
        return back(curvature * logits(along)) + ridge * along

    found = np.zeros(features.shape[1] + 1)
    first = None
    for _ in range(NEWTON_STEPS):
        missed = special.expit(-sign * logits(found))
        slope = ridge * found - back(sign * share * missed)
        first = first or _dot(slope, slope)
        if _dot(slope, slope) <= TOLERANCE**2 * first:
            break
        step = _conjugate_gradients(functools.partial(curved, share * missed * (1 - missed)), -slope)
        value, length = objective(found), 1.0
        while objective(found + length * step) > value + 1e-4 * length * _dot(slope, step) and length > TOLERANCE:
            length /= 2
        found = found + length * step
    return Classifier(weights=found[:-1], bias=float(found[-1]))


def _conjugate_gradients(product: Callable[[Floats], Floats], right: Floats) -> Floats:
    """x of A x = right to a hundredth, given how the positive matrix A multiplies."""
    x, rest = np.zeros_like(right), right
    direction, squared = rest, _dot(rest, rest)
    goal = 1e-4 * squared
    for _ in range(CONJUGATE_STEPS):
        image = product(direction)
        length = squared / _dot(direction, image)
        x = x + length * direction
        rest = rest - length * image
        before, squared = squared, _dot(rest, rest)
        if squared <= goal:
            break
        direction = rest + squared / before * direction
    return x


def _dot(a: Floats, b: Floats) -> float:
    return float((a * b).sum())


def counts(texts: Sequence[str]) -> sparse.csr_array:
    """The features of texts (documents, places)."""
    places, offsets = _places(texts)
    scale = 1 / np.sqrt(np.maximum(np.diff(offsets), 1))
    values = np.repeat(scale, np.diff(offsets))
    found = sparse.csr_array((values, places.astype(np.int32), offsets), shape=(len(texts), 1 << PLACES_LOG2))
    found.sum_duplicates()
    return found


def keep_probability(scores: Floats, alpha: float = PARETO_ALPHA) -> Floats:
    """P(X > 1 - s) of numpy's Pareto variable X, which begins at 0: (2 - s)^-alpha."""
    return np.asarray((2.0 - scores) ** -alpha)


def keep(ids: Sequence[str], scores: Floats, *, seed: int = 0, alpha: float = PARETO_ALPHA) -> NDArray[np.bool_]:
    """Whether each document stays: Pareto(alpha) > 1 - score, the variable drawn by the document's id and the seed."""
    return uniform(ids, f"quality:{seed}") < keep_probability(scores, alpha)


def uniform(ids: Sequence[str], purpose: str) -> Floats:
    """A number of [0, 1) for each id, the same wherever and whenever it is asked for, and another for each purpose."""
    start = hashlib.blake2b(f"{purpose}\n".encode(), digest_size=8)
    digests = []
    for name in ids:
        digest = start.copy()
        digest.update(name.encode("utf-8", "surrogatepass"))
        digests.append(digest.digest())
    return np.asarray((np.frombuffer(b"".join(digests), "<u8") >> np.uint64(11)) * 2.0**-53, np.float64)


def judge(
    scores: Floats, labels: NDArray[np.bool_], sources: Sequence[str], *, alpha: float = PARETO_ALPHA
) -> Judgement:
    """How well scores tell curated from raw, how far they are probabilities, and what the rule keeps of each source.

    Args:
        labels: (documents,) curated or not.
    """
    n_curated, n_raw = labels.sum(), (~labels).sum()
    from scipy import stats  # half a second, which text without a filter need not wait for

    ranks = stats.rankdata(scores)
    above = ranks[labels].sum() - n_curated * (n_curated + 1) / 2
    tenth = np.minimum((scores * BINS).astype(int), BINS - 1)
    bins = ((tenth == b) for b in range(BINS))
    names = np.array(sources)
    return Judgement(
        auc=float(above / (n_curated * n_raw)) if n_curated and n_raw else math.nan,
        calibration=tuple((int(b.sum()), float(scores[b].mean()), float(labels[b].mean())) for b in bins if b.any()),
        kept={str(name): float(keep_probability(scores[names == name], alpha).mean()) for name in np.unique(names)},
    )


def _places(texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The place of each word, and the documents' offsets among them."""
    found = words(texts)
    return (found.hashes >> np.uint64(64 - PLACES_LOG2)).astype(np.int64), found.offsets


def _batches(items: Iterable[Any], size: int) -> Iterable[list[Any]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
