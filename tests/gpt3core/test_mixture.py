"""Sources mixed by weight, against Table 2.2 of the GPT-3 paper, numpy's own permutations, and counting."""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt3core.data import mixture, weights
from gpt3core.data.loader import Loader
from gpt3core.data.stream import Stream
from gpt3core.spec import DataSpec, from_dict, to_json

GPT3 = {"cc": 60, "webtext2": 22, "books1": 8, "books2": 8, "wikipedia": 3}
# Brown et al. 2020, table 2.2: tokens in billions, and epochs when training for 300 billion
TABLE_2_2 = {
    "cc": (410, 0.44),
    "webtext2": (19, 2.9),
    "books1": (12, 1.9),
    "books2": (55, 0.43),
    "wikipedia": (3, 3.4),
}


class Nothing:
    """So many tokens, of which none is there."""

    def __init__(self, tokens):
        self.tokens = tokens

    def __len__(self):
        return self.tokens

    def __getitem__(self, cut):
        return np.zeros(cut.stop - cut.start, dtype=np.uint16)


def streams(sizes, shares, n_ctx=8):
    """Sources whose tokens say where they are: the k-th source's begin at k million."""
    return [
        Stream(
            name=name,
            weight=shares[name],
            pieces=(np.arange(k * 10**6, k * 10**6 + size * n_ctx + 1, dtype=np.uint32),),
        )
        for k, (name, size) in enumerate(sizes.items())
    ]


# ------------------------------------------------------------------------------------------------------------ weights


def test_epochs_are_those_of_table_2_2():
    """As far as the table agrees with itself: its weights and tokens give WebText2 3.4 epochs, where 2.9 is printed."""
    shares = weights.normalised(GPT3)
    assert shares["cc"] == pytest.approx(60 / 101)
    every = [Stream(name=n, weight=shares[n], pieces=(Nothing(t * 10**9),)) for n, (t, _) in TABLE_2_2.items()]
    seen = Loader(every, n_ctx=2048, seed=0).seen(300 * 10**9 // 2048)
    assert {name: pytest.approx(epochs, rel=0.2) for name, (_, epochs) in TABLE_2_2.items()} == {
        name: source.epochs for name, source in seen.items()
    }
    assert seen["cc"].epochs == pytest.approx(300 * 60 / 101 / 410, rel=1e-6)
    assert seen["wikipedia"].unique_tokens == pytest.approx(3e9, rel=1e-6)
    assert sum(source.tokens for source in seen.values()) == 300 * 10**9 // 2048 * 2048


@pytest.mark.parametrize(
    ("given_", "sentence"),
    [
        ({"a": 60, "b": 22}, "data.weights add up to 82 .a 60, b 22.: give shares that add up to 1 or to 100"),
        ({"a": 0.0, "b": 0.0}, "add up to 0"),
        ({"a": 1.2, "b": -0.2}, "data.weights.b=-0.2: a weight is a share, 0 or more"),
        ({"a": float("nan")}, "data.weights.a=nan"),
        ({"a": float("inf")}, "data.weights.a=inf"),
    ],
)
def test_weights_that_do_not_add_up_are_one_sentence(given_, sentence):
    with pytest.raises(ValueError, match=sentence):
        weights.normalised(given_)


def test_weights_name_the_sources_that_there_are():
    own = {"a": 300.0, "b": 100.0}
    assert weights.resolved(own, {}) == {"a": 0.75, "b": 0.25}
    assert weights.resolved(own, {"b": 1.0, "a": 0.0}) == {"a": 0.0, "b": 1.0}
    with pytest.raises(ValueError, match=r"data.weights.c: there is no such source; there are a, b"):
        weights.resolved(own, {"a": 0.5, "b": 0.4, "c": 0.1})
    with pytest.raises(ValueError, match=r"data.weights leaves out b: give each source's weight .a, b., 0 for none"):
        weights.resolved(own, {"a": 1.0})


@given(st.lists(st.integers(0, 100), min_size=1, max_size=8).filter(any), st.integers(0, 2**33))
@settings(max_examples=60)
def test_every_stretch_of_a_run_has_its_shares(parts, first):
    """Of any number of sequences each source has its share to within as many as there are sources, anywhere."""
    taken = mixture.shares(parts)
    source, ordinal = mixture.dealt(first, first + 500, taken)
    before, after = mixture.counts(first, taken), mixture.counts(first + 500, taken)
    for k, part in enumerate(parts):
        assert abs(after[k] - (first + 500) * part / sum(parts)) <= len(parts) + 1e-7 * first
        assert ordinal[source == k].tolist() == list(range(before[k], after[k])), "numbered on without a gap"
    assert sum(after) == first + 500


# ------------------------------------------------------------------------------------------------------------- orders


@given(st.integers(1, 3000), st.integers(0, 2**63 - 1))
@settings(max_examples=40)
def test_every_epoch_is_a_permutation(n, seed):
    drawn = mixture.shuffled(np.arange(2 * n), n, seed=seed, name="a").reshape(2, n)
    assert (np.sort(drawn, axis=1) == np.arange(n)).all()
    some = mixture.shuffled(np.array([n - 1, 0]), n, seed=seed, name="a")
    assert some.tolist() == [drawn[0, -1], drawn[0, 0]], "one at a time as all at once"


def test_orders_are_as_random_as_numpys():
    """All orders of four about equally often, every number everywhere, one fixed point on average: so are numpy's."""
    epochs, n = 12_000, 4
    ours = mixture.shuffled(np.arange(epochs * n), n, seed=1, name="a").reshape(epochs, n)
    rng = np.random.default_rng(1)
    theirs = rng.permuted(np.tile(np.arange(n), (epochs, 1)), axis=1)
    for found in (ours, theirs):
        counts = Counter(map(tuple, found.tolist()))
        assert len(counts) == 24
        assert sum((count - 500) ** 2 / 500 for count in counts.values()) < 50, "chi square of 23 degrees of freedom"
    epochs, n = 4000, 100
    large = mixture.shuffled(np.arange(epochs * n), n, seed=1, name="a").reshape(epochs, n)
    placed = np.array([np.bincount(column, minlength=n) for column in large.T])
    assert 0.95 < ((placed - 40) ** 2 / 40).sum() / 99**2 < 1.05
    assert (large == np.arange(n)).sum(1).mean() == pytest.approx(1, abs=0.08)
    assert (np.diff(large, axis=1) == 1).sum(1).mean() == pytest.approx(0.99, abs=0.08)


def test_another_seed_source_or_epoch_is_another_order():
    found = [
        mixture.shuffled(np.arange(epoch * 50, epoch * 50 + 50), 50, seed=seed, name=name).tolist()
        for seed, name, epoch in ((0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1))
    ]
    assert len(set(map(tuple, found))) == 4


# ------------------------------------------------------------------------------------------------------------- loader


def test_sources_are_dealt_by_weight_each_without_replacement_until_its_epoch_ends():
    sizes, shares = {"big": 60, "small": 10}, {"big": 0.6, "small": 0.4}
    loader = Loader(streams(sizes, shares), n_ctx=8, seed=3)
    starts = loader.batch(0, 100).tokens[:, 0]
    big, small = starts[starts < 10**6], starts[starts >= 10**6]
    assert (len(big), len(small)) == (60, 40)
    assert sorted(big) == list(range(0, 480, 8)), "one epoch"
    for epoch in range(4):
        assert sorted(small[10 * epoch : 10 * epoch + 10] - 10**6) == list(range(0, 80, 8))
    assert {name: seen.epochs for name, seen in loader.seen(100).items()} == {"big": 1.0, "small": 4.0}
    assert {name: seen.unique_tokens for name, seen in loader.seen(100).items()} == {"big": 480, "small": 80}
    for first in range(0, 100, 5):
        batch = loader.batch(first, first + 5).tokens[:, 0]
        assert (batch < 10**6).sum() == 3, "every batch has its shares"


def test_any_batch_of_any_size_is_a_function_of_its_place():
    loader = Loader(streams({"a": 700, "b": 50}, {"a": 0.7, "b": 0.3}), n_ctx=8, seed=0)
    whole = loader.batch(0, 3000).tokens
    for first, last in ((0, 1), (1020, 1030), (2047, 2049), (2990, 3000)):
        again = Loader(streams({"a": 700, "b": 50}, {"a": 0.7, "b": 0.3})[::-1], n_ctx=8, seed=0)
        assert (again.batch(first, last).tokens == whole[first:last]).all()


def test_a_source_without_weight_is_not_seen():
    loader = Loader(streams({"a": 20, "b": 5}, {"a": 1.0, "b": 0.0}), n_ctx=8, seed=0)
    assert (loader.batch(0, 40).tokens < 10**6).all()
    assert list(loader.seen(40)) == ["a"]


def test_sequences_of_many_pieces_are_cut_within_a_piece():
    tokens = np.arange(100, dtype=np.uint16)
    stream = Stream(name="a", weight=1.0, pieces=(tokens[:21], tokens[21:25], tokens[25:]))
    rows = Loader([stream], n_ctx=8, seed=0).batch(0, stream.sequences(8)).tokens
    assert sorted(rows[:, 0]) == [0, 8, *range(25, 90, 8)]
    assert (np.diff(rows) == 1).all()
    assert (stream.rows(0, 11, 8)[:, 0] == sorted(rows[:, 0])).all()


def test_nothing_grows_with_the_text():
    stream = Stream(name="a", weight=1.0, pieces=tuple(Nothing(2**26) for _ in range(4500)))  # 302 billion tokens
    tracemalloc.start()
    try:
        loader = Loader([stream], n_ctx=2048, seed=0)
        for first in (0, 10**6, 10**8):
            assert loader.batch(first, first + 8).tokens.shape == (8, 2049)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000


# --------------------------------------------------------------------------------------------------- held-out windows


def test_held_out_windows_follow_the_weights_and_leave_every_source_some():
    assert weights.windows([1000], [1.0], 256) == [256]
    assert weights.windows([100], [1.0], 256) == [100]
    shares = list(weights.normalised(GPT3).values())
    read = weights.windows([10**6] * 5, shares, 1000)
    assert sum(read) <= 1000
    assert read[0] > read[1] > read[2] == read[3] > read[4] >= 60
    assert weights.windows([1000, 1000], [1.0, 0.0], 340) == [320, 20], "a source that is not trained on is measured"


def test_shares_and_percents_are_one_specification():
    assert json.dumps(weights.normalised({"a": 60, "b": 40})) == json.dumps(weights.normalised({"a": 0.6, "b": 0.4}))


@given(st.lists(st.integers(1, 999), min_size=2, max_size=6), st.floats(0.985, 1.015))
def test_weights_read_back_are_the_same_ones(parts, off):
    shares = weights.normalised({f"s{k}": off * part / sum(parts) for k, part in enumerate(parts)})
    assert weights.normalised(shares) == shares


def test_a_mixed_run_read_back_is_the_same_run():
    five = {"a": 0.246, "b": 0.255, "c": 0.084, "d": 0.221, "e": 0.193}  # add up to .999
    data = DataSpec(corpus="x", corpus_sha256="0", weights=tuple(five.items()))
    assert from_dict(DataSpec, json.loads(to_json(data))) == replace(data) == data
