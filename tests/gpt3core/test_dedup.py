"""Near-duplicates: the collision curve, datasketch, exact Jaccard similarities, and what order and batches change."""

from dataclasses import replace

import numpy as np
import pytest

from gpt3core.data.dedup import GPT3, MODERN, MinHash, copies, minima, signatures

WORDS = np.array([f"w{i}" for i in range(3000)])


def texts(n: int, length: int = 120, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, length)) for _ in range(n)]


def changed(text: str, words: int, rng: np.random.Generator) -> str:
    """The text with some words replaced."""
    found = text.split()
    for at in rng.choice(len(found), words, replace=False):
        found[at] = "other"
    return " ".join(found)


def shingles(text: str, n: int) -> set[str]:
    found = text.split()
    return {" ".join(found[i : i + n]) for i in range(len(found) - n + 1)}


def jaccard(a: str, b: str, n: int = 5) -> float:
    one, other = shingles(a, n), shingles(b, n)
    return len(one & other) / len(one | other)


def kept(ids, found, setting, sources=None, **how):
    sources = sources or ["a"] * len(ids)
    how = {"order": sorted(set(sources)), **how}
    return [ids[k] for k in copies(ids, sources, found, setting, **how)]


@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.6, 0.7, 0.8, 0.9])
def test_pairs_of_a_similarity_collide_as_often_as_the_curve_says(similarity):
    """1 - (1 - s^r)^b, on sets of random hashes whose Jaccard similarity is s."""
    trials, size = 1500, 400
    setting = replace(MODERN, similarity=0.0)
    shared = round(2 * size * similarity / (1 + similarity))
    hashes = np.random.default_rng(0).integers(0, 2**64, (trials, 2 * size - shared), np.uint64)
    pairs = np.stack([hashes[:, :size], hashes[:, -size:]], axis=1).reshape(-1)
    found = minima(pairs, np.arange(0, len(pairs) + 1, size), setting)
    agreement = (found[::2] == found[1::2]).mean()
    exact = shared / (2 * size - shared)
    assert agreement == pytest.approx(exact, abs=0.006)
    bands = (found[::2] == found[1::2]).reshape(trials, setting.bands, setting.rows).all(axis=2)
    expected = setting.collision(exact)
    assert expected == pytest.approx(1 - (1 - exact**8) ** 16)
    assert bands.any(axis=1).mean() == pytest.approx(
        expected, abs=4 * (expected * (1 - expected) / trials) ** 0.5 + 0.005
    )


@pytest.mark.parametrize("setting", [MODERN, GPT3], ids=["modern", "gpt3"])
def test_planted_copies_are_found_as_often_as_the_curve_says_and_nothing_else(setting):
    rng = np.random.default_rng(1)
    originals = texts(400)
    near = [changed(text, 2, rng) for text in originals]
    ids = [f"{i:04}" for i in range(800)]
    chances = np.array([setting.collision(jaccard(a, b, setting.gram)) for a, b in zip(originals, near, strict=True)])
    found = kept(ids, signatures([*originals, *near], setting), setting)
    assert found[:400] == ids[:400]
    right = np.array([a == b for a, b in zip(found[400:], ids, strict=False)])
    assert right.sum() + sum(a == b for a, b in zip(found[400:], ids[400:], strict=True)) == 400
    assert abs(right.sum() - chances.sum()) <= 4 * (chances * (1 - chances)).sum() ** 0.5 + 1


def test_as_many_planted_copies_are_found_as_by_datasketch():
    datasketch = pytest.importorskip("datasketch", reason="make peers installs datasketch")
    rng = np.random.default_rng(2)
    originals = texts(150)
    everything = [*originals, *(changed(text, n, rng) for n in (1, 2, 3, 4) for text in originals)]
    ids = [f"{i:04}" for i in range(len(everything))]
    lsh = datasketch.MinHashLSH(num_perm=128, params=(MODERN.bands, MODERN.rows))
    theirs = 0
    for name, text in zip(ids, everything, strict=True):
        sketch = datasketch.MinHash(num_perm=128)
        sketch.update_batch([s.encode() for s in shingles(text, MODERN.gram)])
        theirs += bool(lsh.query(sketch))
        lsh.insert(name, sketch)
    found = copies(ids, ["a"] * len(ids), signatures(everything, MODERN), MODERN, order=["a"])
    assert (found != np.arange(len(ids))).sum() >= 0.99 * theirs > 500


def test_linked_documents_are_one_group_and_the_first_source_and_least_id_stay():
    rng = np.random.default_rng(3)
    chain = texts(1, 400)
    for _ in range(8):  # each like the one before; the last is not like the first
        chain.append(changed(chain[-1], 10, rng))
    assert jaccard(chain[0], chain[-1]) < 0.4
    ids = list("ihgfedcba")
    found = signatures(chain, MODERN)
    assert set(kept(ids, found, MODERN)) == {"a"}
    sources = ["web"] * 8 + ["books"]
    assert set(kept(ids, found, MODERN, sources, order=["books", "web"])) == {"a"}
    assert set(kept(ids, found, MODERN, sources, order=["web", "books"])) == {"b"}
    assert set(kept(ids, found, MODERN, sources, order=["web", "books"], across=False)) == {"a", "b"}


def test_neither_order_nor_batches_change_what_is_kept():
    rng = np.random.default_rng(4)
    originals = texts(120, 60)
    everything = [
        *originals,
        *(changed(text, n, rng) for n in (0, 1, 2) for text in originals),
        "",
        " ",
        "short",
        "short",
    ]
    ids = [f"{i:04}" for i in range(len(everything))]
    sources = [("web", "books", "wiki")[i % 3] for i in range(len(everything))]
    for setting in (MODERN, GPT3):
        whole = signatures(everything, setting)
        parts = np.concatenate([signatures(everything[a : a + 7], setting) for a in range(0, len(everything), 7)])
        assert (whole == parts).all()
        expected = dict(zip(ids, kept(ids, whole, setting, sources), strict=True))
        for _ in range(3):
            order = rng.permutation(len(ids))
            mixed = [ids[i] for i in order]
            again = kept(mixed, whole[order], setting, [sources[i] for i in order])
            assert dict(zip(mixed, again, strict=True)) == expected
        assert expected["0480"] == "0480" and expected["0481"] == "0481"  # no word: like nothing
        assert expected["0483"] == expected["0482"]


def test_a_bucket_of_documents_that_are_not_alike_is_taken_apart():
    """They share a band and not more: the leader's links are not all, and copies among the others are found."""
    rng = np.random.default_rng(5)
    found = rng.integers(0, 2**31, (12, 128), np.uint32)
    found[:, :8] = 7
    found[8] = found[3]
    found[11] = found[10]
    ids = [f"{i:02}" for i in range(12)]
    assert kept(ids, found, MODERN) == [*ids[:8], "03", "09", "10", "10"]
    assert set(kept(ids, found, replace(MODERN, similarity=0.0))) == {"00"}


def test_no_documents_and_sources_without_a_place():
    assert len(copies([], [], signatures([], MODERN), MODERN, order=[])) == 0
    with pytest.raises(ValueError, match="sources web are not in order=books"):
        copies(["a"], ["web"], signatures(["x"], MODERN), MODERN, order=["books"])
    with pytest.raises(ValueError, match="bands times rows"):
        MinHash(gram=5, bands=20, rows=8, similarity=0.7)
