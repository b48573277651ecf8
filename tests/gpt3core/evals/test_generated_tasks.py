"""GPT-3's synthetic tasks: distributions as published, and as counted in its released files (openai/gpt-3, data/)."""

import re
from collections import Counter

import pytest
from scipy import stats

from gpt3core.evals import tasks
from gpt3core.evals.tasks import english

COUNT = 9000  # and the pool: 10,000 items, as many as a released file of words has
# words of each length in the released files: those of anagrams_1, and the list that the other four share
RELEASED_A1 = {5: 1721, 6: 1889, 7: 1855, 8: 1544, 9: 1174, 10: 835, 11: 500, 12: 282, 13: 136, 14: 46, 15: 18}
RELEASED = {6: 2241, 7: 2210, 8: 1894, 9: 1440, 10: 1010, 11: 611, 12: 347, 13: 169, 14: 53, 15: 25}
ALPHA = 1e-4


def made(task, count=COUNT):
    split = tasks.items(task, count)
    return [*split.pool, *split.queries]


def uniform(values, among):
    """Whether counts could be of equally likely values."""
    counts = Counter(values)
    assert set(counts) <= set(among)
    return stats.chisquare([counts[value] for value in among]).pvalue > ALPHA


@pytest.mark.parametrize("digits", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("word", ["plus", "minus"])
def test_operands_are_uniform_below_a_power_of_ten(word, digits):
    name = {"plus": "addition", "minus": "subtraction"}[word]
    pairs = []
    for item in made(f"{name}_{digits}", 3000 if digits > 1 else 100):
        a, b = map(int, re.fullmatch(rf"Q: What is (\d+) {word} (\d+)\?\n\nA:", item.context).groups())
        assert item.answer == f" {a + b if word == 'plus' else a - b}"
        pairs.append((a, b))
    if digits > 1:  # of 100 questions each is asked again and again
        assert len(set(pairs)) == len(pairs), "no question twice"
        for operand in zip(*pairs, strict=True):
            assert stats.kstest([(value + 0.5) / 10**digits for value in operand], "uniform").pvalue > ALPHA
    if word == "minus" and digits > 1:
        negative = sum(a < b for a, b in pairs)
        assert stats.binomtest(negative, len(pairs), (1 - 10**-digits) / 2).pvalue > ALPHA


def test_products_are_of_two_digits():
    for item in made("multiplication_2", 500):
        a, b = map(int, re.fullmatch(r"Q: What is (\d+) times (\d+)\?\n\nA:", item.context).groups())
        assert max(a, b) < 100
        assert item.answer == f" {a * b}"


def test_three_operations_follow_the_released_files():
    digits, signs = [], []
    for item in made("three_operations", 2000):
        a, one, b, two, c = re.fullmatch(
            r"Q: What is \((\d) ([-+*]) (\d)\) ([-+*]) (\d)\?\n\nA:", item.context
        ).groups()
        assert item.answer == f" {eval(f'({a} {one} {b}) {two} {c}')}"  # noqa: S307
        digits += [a, b, c]
        signs.append(one + two)
    assert uniform(digits, "123456789")
    assert uniform(signs, [one + two for one in "+-*" for two in "+-*"])


def scrambled(task):
    items = made(task)
    words = [item.answer[1:] for item in items]
    assert len(set(words)) == len(words) == 10_000, "no word twice"
    return [(item.context.removesuffix(" ="), word) for item, word in zip(items, words, strict=True)]


def apart(pairs, released):
    """Half the sum of differences of shares (total variation)."""
    counts = Counter(len(word) for _, word in pairs)
    assert set(counts) <= set(released)
    return sum(abs(counts[n] - released[n]) for n in released) / 20_000


def test_letters_are_cycled_by_every_amount():
    pairs = scrambled("cycle_letters")
    assert apart(pairs, RELEASED) < 0.05
    shifts = [[k for k in range(1, len(w)) if w[k:] + w[:k] == s] for s, w in pairs]
    assert all(shifts)
    assert uniform(
        [k for k, (_, w) in zip(shifts, pairs, strict=True) if len(w) == 9 and len(k) == 1 for k in k], range(1, 9)
    )


def test_anagrams_keep_their_ends_and_differ_where_they_can():
    pairs = scrambled("anagrams_1")
    assert apart(pairs, RELEASED_A1) < 0.05
    for s, w in pairs:
        assert (s[0], s[-1], sorted(s)) == (w[0], w[-1], sorted(w))
        assert (s == w) == (len(set(w[1:-1])) == 1)
    for s, w in scrambled("anagrams_2"):
        assert (s[:2], s[-2:], sorted(s)) == (w[:2], w[-2:], sorted(w))
        assert (s == w) == (len(set(w[2:-2])) == 1)  # all of the 193 that the released file leaves as they are


def test_characters_are_inserted_and_words_reversed():
    inserted = ""
    for s, w in scrambled("random_insertion"):
        assert s[::2] == w
        assert len(s) == 2 * len(w) - 1
        inserted += s[1::2]
    assert uniform(inserted, " ./!")
    assert all(s == w[::-1] for s, w in scrambled("reversed_words"))


def test_short_variants_ask_frequent_short_words():
    for name in ("cycle_letters", "anagrams_1", "anagrams_2", "random_insertion", "reversed_words"):
        least, most = {"anagrams_1": (4, 5), "anagrams_2": (6, 6)}.get(name, (3, 5))
        words = [item.answer[1:] for item in made(f"{name}_short", 500)]
        assert len(set(words)) == len(words), "the word of a question is in no example"
        assert set(words) <= set(english.words(least, most)[:2000])


def test_no_word_is_both_asked_and_shown():
    assert len({item.answer for item in made("reversed_words_short", 1000)}) == 2000
    with pytest.raises(ValueError, match=r"reversed_words_short: 1001 questions and 1000 examples .* there are 2000"):
        tasks.items("reversed_words_short", 1001)


def test_the_first_items_are_the_same_however_many_are_asked():
    for name in ("addition_3", "anagrams_1"):
        few, many = tasks.items(name, 5), tasks.items(name, 50)
        assert (few.queries, few.pool) == (many.queries[:5], many.pool)


def test_another_list_of_words_is_refused(monkeypatch):
    english._all.cache_clear()
    monkeypatch.setattr(english, "SHA256", "0" * 64)
    with pytest.raises(
        ValueError, match=r"is not that of version 0\.9\.1: other words would be asked; install it again"
    ):
        english.words(5, 6)
    monkeypatch.setattr(english, "PACKAGE", "no_such_package")
    with pytest.raises(ValueError, match="the package of English words is missing; install it again: pip install py"):
        english.words(5, 6)
