"""The quality filter over parts: a sample of them trains the classifier, which then scores all."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from gpt3core.data import quality
from gpt3core.data.prepare import parts, task
from gpt3core.store import files

JUDGED = 0.2  # of the sample, on which the classifier is judged and not trained
SAMPLE_CHARACTERS = 1 << 16  # of a document, its first: the sample is in memory whole
CLASSIFIER = "classifier.npy"
JUDGEMENT = "judgement.json"


def names(part: parts.Part) -> list[str]:
    """Each document's name in the whole corpus."""
    return [f"{source}/{name}" for source, name in zip(part.sources, part.ids, strict=True)]


def sample(out: Path, *, part: Path, rates: Mapping[str, float], seed: int) -> None:
    """Write the documents of a part that the classifier learns from, each source's at its rate."""
    found = parts.documents(part)
    drawn = quality.uniform(names(found), f"sample:{seed}")
    chosen = [n for n, source in enumerate(found.sources) if drawn[n] < rates[source]]
    ids, sources = ([column[n] for n in chosen] for column in (found.ids, found.sources))
    texts = [found.texts[n][:SAMPLE_CHARACTERS] for n in chosen]
    parts.write_documents(out, parts.Part(ids=ids, sources=sources, texts=texts), {})


def train(out: Path, *, samples: Sequence[Path], curated: Sequence[str], alpha: float, seed: int) -> None:
    """Train the classifier on most of the samples, and judge it and its rule on the others."""
    learnt: list[tuple[str, bool]] = []
    judged: list[tuple[str, bool]] = []
    of: list[str] = []
    for path in samples:
        found = parts.documents(path)
        drawn = quality.uniform(names(found), f"judge:{seed}")
        for text, source, draw in zip(found.texts, found.sources, drawn, strict=True):
            example = (text, source in curated)
            if draw >= JUDGED:
                learnt.append(example)
            else:
                judged.append(example)
                of.append(source)
    classifier = quality.train(learnt)
    labels = np.array([kind for _, kind in judged], dtype=bool)
    about: dict[str, object] = {"trained_on": len(learnt), "judged_on": len(judged)}
    if 0 < labels.sum() < len(labels):
        scores = classifier.scores([text for text, _ in judged])
        about |= dataclasses.asdict(quality.judge(scores, labels, of, alpha=alpha))
    with task.folder(out) as begun:
        classifier.save(begun / CLASSIFIER)
        files.write_json(begun / JUDGEMENT, about)


def score(out: Path, *, part: Path, classifier: Path, web: Sequence[str], alpha: float, seed: int) -> None:
    """Write each document's score and whether it stays: all of curated sources do."""
    found = parts.documents(part)
    scores = quality.Classifier.load(classifier / CLASSIFIER).scores(found.texts)
    raw = np.isin(np.array(found.sources), list(web))
    stays = quality.keep(names(found), scores, seed=seed, alpha=alpha) | ~raw
    parts.write(out, {"score": scores.astype(np.float32), "stays": stays}, {})
