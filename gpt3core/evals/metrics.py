"""What generated answers are worth beside the right ones, and how sure a mean of such worths is.

"match" and "f1" are SQuAD's (Rajpurkar et al. 2016, arXiv 1606.05250, section 5): lower case, no punctuation, no
articles, and of several right answers the best one counts.
"""

from __future__ import annotations

import importlib.util
import math
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

ARTICLES = re.compile(r"\b(a|an|the)\b")
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
JACKKNIFE_GROUPS = 20
PASSES = "passes"  # the metric that runs programs (gpt3core.evals.programs)
NOT_ALLOWED = (
    "humaneval_pass runs the programs that a model writes, with limits but in no sandbox (docs/evaluation.md): allow "
    "it with run_programs=true, or ask humaneval, which runs none"
)


def exact(text: str, right: str) -> float:
    """Whether it is the very answer, white space around it aside."""
    return float(text.strip() == right.strip())


def match(text: str, right: str) -> float:
    """Whether it is the answer after normalisation; to the letter where that leaves nothing of the answer ("A+")."""
    wanted = normalised(right)
    return float(normalised(text) == wanted) if wanted else exact(text, right)


def f1(text: str, right: str) -> float:
    """The harmonic mean of the shares of words that are in the other; of an answer without words whether both are."""
    said, wanted = normalised(text).split(), normalised(right).split()
    common = (Counter(said) & Counter(wanted)).total()
    if not said or not wanted:
        return float(said == wanted)
    return 2 * common / (len(said) + len(wanted))


def number(text: str, right: str) -> float:
    """Whether the last number of each is the same, commas aside."""
    said, wanted = (NUMBER.findall(one) for one in (text, right))
    return float(bool(said and wanted) and _value(said[-1]) == _value(wanted[-1]))


def _value(found: str) -> float:
    return float(found.replace(",", ""))


def normalised(text: str) -> str:
    """SQuAD's normalisation."""
    plain = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(ARTICLES.sub(" ", plain).split())


METRICS: dict[str, Callable[[str, str], float]] = {"exact": exact, "match": match, "f1": f1, "number": number}


def mean(metric: str, texts: Sequence[str], right: Sequence[Sequence[str]]) -> tuple[float, float]:
    """The score of generated answers and its standard error.

    Args:
        metric: of METRICS, or bleu.
        right: of every text the answers that are right.
    """
    if metric == "bleu":
        return _bleu(texts, right)
    values = [max(METRICS[metric](text, one) for one in answers) for text, answers in zip(texts, right, strict=True)]
    if metric != "f1":
        return share(values)
    n, average = len(values), math.fsum(values) / len(values)
    return average, math.sqrt(math.fsum((v - average) ** 2 for v in values) / max(1, n - 1) / n)


def share(values: Sequence[float]) -> tuple[float, float]:
    """Of zeros and ones the mean and its binomial standard error, from Laplace's estimate: 0 of n has an error too."""
    n, hits = len(values), math.fsum(values)
    smoothed = (hits + 1) / (n + 2)
    return hits / n, math.sqrt(smoothed * (1 - smoothed) / n)


def require(metric: str, run_programs: bool = False) -> None:
    """Refuse a metric that needs what is not installed, or not allowed.

    Args:
        run_programs: whether programs that a model writes may be run.

    Raises:
        ValueError: in one sentence.
    """
    if metric == "bleu" and importlib.util.find_spec("sacrebleu") is None:
        raise ValueError("BLEU needs sacrebleu, which is not installed: pip install 'isoflop[bleu]'")
    if metric == PASSES and not run_programs:
        raise ValueError(NOT_ALLOWED)


def _bleu(texts: Sequence[str], right: Sequence[Sequence[str]]) -> tuple[float, float]:
    """BLEU of all answers together, from 0 to 1, and its standard error by leaving out one group after another."""
    require("bleu")
    from sacrebleu.metrics import BLEU

    most = max(map(len, right))
    padded = [[answers[min(k, len(answers) - 1)] for answers in right] for k in range(most)]  # a stream an alternative

    def score(kept: Sequence[int]) -> float:
        streams = [[stream[n].strip() for n in kept] for stream in padded]
        return float(BLEU().corpus_score([texts[n].strip() for n in kept], streams).score) / 100

    everything, groups = range(len(texts)), min(JACKKNIFE_GROUPS, len(texts))
    if groups == 1:
        return score(everything), math.nan
    without = [score([n for n in everything if n % groups != group]) for group in range(groups)]
    average = math.fsum(without) / groups
    spread = math.fsum((one - average) ** 2 for one in without)
    return score(everything), math.sqrt(spread * (groups - 1) / groups)
