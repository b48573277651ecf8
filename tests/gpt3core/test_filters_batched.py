"""No filter's result depends on how much text is worked on at a time."""

import numpy as np
import pytest

from gpt3core.data import decontaminate, dedup, words
from gpt3core.data.quality import train

RNG = np.random.default_rng(0)
WORDS = [f"w{i}," for i in range(500)]
TEXTS = [" ".join(RNG.choice(WORDS, n)) for n in RNG.integers(0, 400, 60)]
TEXTS[20] = TEXTS[10] + " " + TEXTS[30]


@pytest.mark.parametrize(("batch", "block"), [(1, 50), (1000, 300), (5000, 5000)])
def test_batches_and_blocks_change_nothing(monkeypatch, batch, block):
    held = decontaminate.evaluation_grams({"set": [TEXTS[10], "too short"]})
    classifier = train((text, i % 2 == 0) for i, text in enumerate(TEXTS))

    def results():
        counts = decontaminate.count(TEXTS, held)
        again = train((text, i % 2 == 0) for i, text in enumerate(TEXTS))
        arrays = [counts, classifier.scores(TEXTS), again.weights]
        arrays += [dedup.signatures(TEXTS, setting) for setting in (dedup.MODERN, dedup.GPT3)]
        return arrays, decontaminate.clean(TEXTS, held, counts)

    arrays, cleaned = results()
    assert [c.collisions > 0 for c in cleaned] == [i in (10, 20) for i in range(60)]
    monkeypatch.setattr(words, "BATCH", batch)
    monkeypatch.setattr(words, "BLOCK", block)
    again, cleaned_again = results()
    assert all((one == other).all() for one, other in zip(arrays, again, strict=True))
    assert cleaned == cleaned_again
