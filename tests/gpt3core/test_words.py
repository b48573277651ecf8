"""Words and grams as hashes: against str.split, a set of strings, and any cut into batches."""

import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt3core.data import words as module
from gpt3core.data.words import batches, grams, stretches, words

TEXT = st.text(st.sampled_from("abAB éÉßİσΣ\t\n\u00a0\u3000.,'-漢🙂\ud800"), max_size=60)


def own(text: str, found: module.Words, document: int) -> list[str]:
    """The words of a document, read off the text where it is said that they are."""
    mine = slice(found.offsets[document], found.offsets[document + 1])
    return [text[a:b] for a, b in zip(found.starts[mine], found.ends[mine], strict=True)]


@given(st.lists(TEXT, max_size=8))
def test_words_are_what_split_gives(texts):
    found = words(texts)
    for d, text in enumerate(texts):
        assert own(text, found, d) == text.split()


@given(st.lists(TEXT, max_size=8))
def test_equal_words_and_no_others_have_equal_hashes(texts):
    found = words(texts)
    hash_of: dict[str, int] = {}
    split = [word for text in texts for word in text.split()]
    for word, value in zip(split, found.hashes.tolist(), strict=True):
        folded = "".join(c.lower()[0] for c in word)
        assert hash_of.setdefault(folded, value) == value
    assert len(set(hash_of.values())) == len(hash_of)


def test_bare_words_have_no_punctuation_and_know_where_they_were():
    text = 'He said: "Don\'t -- STOP!" … «naïve»'
    found = words([text, "dont"], bare=True)
    assert own(text, found, 0) == ["He", "said", "Don't", "STOP", "naïve"]
    assert found.hashes[2] == found.hashes[5]
    plain = text.lower().translate(str.maketrans("", "", string.punctuation + "…«»")).split()
    assert (words([" ".join(plain)]).hashes == found.hashes[:5]).all()


@pytest.mark.parametrize("bare", [False, True])
def test_a_text_longer_than_a_block_has_the_same_words(monkeypatch, bare):
    texts = ["one two,  three\nfour " * 50, "", "x" * 10, "five six " * 9]
    whole = words(texts, bare=bare)
    monkeypatch.setattr(module, "BLOCK", 16)
    cut = words(texts, bare=bare)
    for name in ("hashes", "offsets", "starts", "ends"):
        assert (getattr(whole, name) == getattr(cut, name)).all()


@given(st.lists(TEXT, min_size=1, max_size=8), st.integers(1, 5), st.integers(0, 8))
def test_grams_depend_on_their_own_document_alone(texts, n, cut):
    found = words(texts)
    together, offsets = grams(found.hashes, found.offsets, n)
    parts = [words(part) for part in (texts[:cut], texts[cut:])]
    apart = np.concatenate([grams(part.hashes, part.offsets, n)[0] for part in parts])
    assert (together == apart).all()
    by_words: dict[tuple[int, ...], int] = {}
    for d in range(len(texts)):
        mine = found.hashes[found.offsets[d] : found.offsets[d + 1]].tolist()
        expected = [tuple(mine[i : i + n]) for i in range(len(mine) - n + 1)]
        assert offsets[d + 1] - offsets[d] == len(expected)
        for gram, value in zip(expected, together[offsets[d] : offsets[d + 1]].tolist(), strict=True):
            assert by_words.setdefault(gram, value) == value
    assert len(set(by_words.values())) == len(by_words)


def test_a_document_shorter_than_a_gram_counts_as_one_where_that_is_asked():
    found = words(["a b", "a b c d", ""])
    assert grams(found.hashes, found.offsets, 3)[1].tolist() == [0, 0, 2, 2]
    assert grams(found.hashes, found.offsets, 3, short=True)[1].tolist() == [0, 1, 3, 3]


def test_hashes_of_many_stretches_do_not_collide_and_fill_their_range():
    values = np.arange(200_000, dtype=np.uint64)
    starts = np.arange(199_999)
    found = stretches(values, starts, starts + 2)
    assert len(np.unique(found)) == len(found)
    shares = np.bincount((found >> np.uint64(60)).astype(int)) / len(found)
    assert shares == pytest.approx(np.full(16, 1 / 16), rel=0.02)
    assert np.bincount((found & np.uint64(15)).astype(int)) / len(found) == pytest.approx(np.full(16, 1 / 16), rel=0.02)


@given(st.lists(TEXT, max_size=8))
def test_batches_are_all_texts_in_order_and_bounded(texts):
    kept, module.BATCH = module.BATCH, 30
    try:
        found = [list(batch) for batch in batches(texts)]
    finally:
        module.BATCH = kept
    assert [text for batch in found for text in batch] == texts
    assert all(batch for batch in found) or not texts
    assert all(sum(map(len, batch)) <= 30 + len(batch[0]) + len(batch[-1]) for batch in found)
