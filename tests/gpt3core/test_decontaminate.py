"""Evaluation examples in training text: Appendix C's rules one by one, and the arithmetic of Table C.1."""

import numpy as np
import pytest

from gpt3core.data.decontaminate import Grams, Overlap, Rules, clean, count, dirty, evaluation_grams

EXAMPLE = "the quick brown fox jumps over the lazy dog while seven silver spoons sing softly"
RNG = np.random.default_rng(0)


def filler(characters: int, seed: int = 0) -> str:
    """Text without any example."""
    rng = np.random.default_rng(seed)
    return " ".join(f"n{i}" for i in rng.integers(0, 10_000, characters // 5))[:characters]


def cleaned(texts: list[str], examples: list[str], rules: Rules | None = None):
    held = evaluation_grams({"set": examples}, rules=rules)
    return clean(texts, held, count(texts, held))


def test_a_collision_goes_with_its_window_and_cuts_the_document():
    before, after = filler(1000, 1), filler(900, 2)
    document = (
        f'{before} "The QUICK, brown fox -- jumps over the lazy dog, while seven silver spoons sing softly!" {after}'
    )
    (found,) = cleaned([document], [EXAMPLE])
    assert found.collisions == len(EXAMPLE.split()) - 12
    first, second = found.pieces
    start, end = document.index("The QUICK"), document.index("softly") + len("softly")
    assert first == document[: start - 200].strip()
    assert second == document[end + 200 :].strip()


def test_what_is_not_contaminated_stays_as_it_is():
    twelve = " ".join(EXAMPLE.split()[:12])
    texts = [filler(500), f"short {twelve}", ""]
    assert [found.pieces for found in cleaned(texts, [EXAMPLE])] == [(text,) for text in texts]


@pytest.mark.parametrize(("before", "pieces"), [(398, 0), (402, 1)])
def test_pieces_of_under_200_characters_go(before, pieces):
    """200 characters before a collision belong to its window."""
    text = "x" * (before - 1) + " " + EXAMPLE
    (found,) = cleaned([text], [EXAMPLE])
    assert len(found.pieces) == pieces
    assert found.rule == ("" if pieces else "no piece of 200 characters")


@pytest.mark.parametrize(("collisions", "pieces"), [(9, 10), (10, 0)])
def test_a_document_cut_into_more_than_ten_pieces_goes(collisions, pieces):
    text = filler(800) + "".join(f" {EXAMPLE} {filler(800, i)}" for i in range(collisions))
    (found,) = cleaned([text], [EXAMPLE])
    assert len(found.pieces) == pieces
    assert found.rule == ("" if pieces else "cut into more than 10 pieces")


@pytest.mark.parametrize(("documents", "cut"), [(10, True), (11, False)])
def test_a_gram_in_more_than_ten_documents_is_a_common_phrase(documents, cut):
    """Twice in one document counts once."""
    texts = [f"{filler(500, i)} {EXAMPLE} {filler(500, i + 50)} {EXAMPLE}" for i in range(documents)]
    assert all((found.pieces != (text,)) == cut for found, text in zip(cleaned(texts, [EXAMPLE]), texts, strict=True))


def test_a_book_is_searched_to_its_end_and_keeps_the_rest():
    """200,000 words; GPT-3's own filter failed on books."""
    words = np.array([f"n{i}" for i in range(10_000)])
    before, after = (" ".join(np.random.default_rng(seed).choice(words, 100_000)) for seed in (1, 2))
    book = f"{before} {EXAMPLE} {after}"
    (found,) = cleaned([book], [EXAMPLE])
    assert [len(piece) for piece in found.pieces] == pytest.approx([len(before) - 200, len(after) - 200], abs=2)
    assert EXAMPLE not in " ".join(found.pieces)


def test_counts_add_up_over_batches_and_their_order():
    examples = [filler(300, i) for i in range(20)]
    texts = [f"{filler(400, 100 + i)} {examples[i % 20]}" for i in range(60)]
    held = evaluation_grams({"set": examples})
    whole = count(texts, held)
    parts = [count(texts[a : a + 7], held) for a in range(0, 60, 7)]
    assert (sum(reversed(parts)) == whole).all() and whole.max() == 3


def test_collisions_are_those_of_a_plain_set_of_grams():
    vocabulary = [f"w{i}" for i in range(3)]  # so few words that 8 in a row come again by chance
    texts = [" ".join(RNG.choice(vocabulary, RNG.integers(0, 60))) for _ in range(300)]
    examples = [" ".join(RNG.choice(vocabulary, RNG.integers(5, 20))) for _ in range(50)]

    def plain(text: str, n: int) -> set[tuple[str, ...]]:
        found = text.split()
        return {tuple(found[i : i + n]) for i in range(len(found) - n + 1)}

    held = evaluation_grams({"set": examples})
    (only,) = held.sets
    assert only.n == 8
    training = set().union(*(plain(text, 8) for text in texts))
    expected = [bool(plain(example, 8) & training) for example in examples]
    assert dirty(held, count(texts, held))["set"].tolist() == expected
    assert 5 < sum(expected) < 45


def test_n_is_the_fifth_percentile_of_the_lengths_from_8_to_13():
    def n(lengths, **how):
        return evaluation_grams({"set": [" ".join(["x"] * length) for length in lengths]}, **how).sets[0].n

    assert n(range(1, 101)) == 8
    assert n([9] * 10 + [50] * 90) == 9
    assert n([40] * 100) == 13
    assert n([2] * 100, n_min=1) == 2  # Anagrams 1 of Table C.1


@pytest.mark.parametrize("sets", [{}, {"set": ["too short"]}])
def test_where_no_example_has_a_gram_nothing_is_cut(sets, tmp_path):
    evaluation_grams(sets).save(tmp_path / "grams.npz")
    held = Grams.load(tmp_path / "grams.npz")
    texts = [filler(500), "too short"]
    counts = count(texts, held)
    assert [found.pieces for found in clean(texts, held, counts)] == [(text,) for text in texts]
    assert not any(flags.any() for flags in dirty(held, counts).values())


def test_grams_outlive_a_process(tmp_path):
    held = evaluation_grams({"one": [EXAMPLE, "too short"], "two": [filler(300)]}, rules=Rules(window=50))
    held.save(tmp_path / "grams.npz")
    again = Grams.load(tmp_path / "grams.npz")
    texts = [f"{filler(500, 3)} {EXAMPLE}"]
    counts = count(texts, again)
    assert clean(texts, again, counts) == clean(texts, held, counts)
    assert {name: flags.tolist() for name, flags in dirty(again, counts).items()} == {
        "one": [True, False],
        "two": [False],
    }


# Brown et al. 2020, Table C.1: N, all, total, dirty score and count, clean score and count, share, relative difference
TABLE = {
    "QuAC": (13, 44.3, 7353, 44.3, 7315, 54.1, 38, 1, 20),
    "DROP": (13, 36.5, 9536, 37.0, 8898, 29.5, 638, 7, -21),
    "Winograd": (9, 88.6, 273, 90.2, 164, 86.2, 109, 40, -3),
    "PIQA": (8, 82.3, 1838, 89.9, 526, 79.3, 1312, 71, -4),
    "LAMBADA": (13, 86.4, 5153, 86.9, 2209, 86.0, 2944, 57, 0),
    "De->En 16": (12, 43.0, 2999, 47.4, 739, 40.8, 2260, 75, -5),
    "Anagrams 2": (2, 40.2, 10_000, 76.2, 705, 37.4, 9295, 93, -7),
}


@pytest.mark.parametrize("name", TABLE)
def test_shares_and_differences_are_those_of_table_c1(name):
    n, score, total, dirty_score, n_dirty, clean_score, n_clean, share, difference = TABLE[name]
    scores = {"score": score, "dirty_score": dirty_score, "clean_score": clean_score}
    row = Overlap(name=name, n=n, total=total, dirty=n_dirty, **scores)
    assert row.clean == n_clean
    assert round(100 * row.clean_share) == pytest.approx(share, abs=0.6)  # "1%" of QuAC are 0.5%
    assert round(100 * row.difference) == difference


def test_an_empty_evaluation_set_is_refused():
    with pytest.raises(ValueError, match="the evaluation set boolq has no examples"):
        evaluation_grams({"boolq": []})
