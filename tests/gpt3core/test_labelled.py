"""Labelled examples: GPT-1's formats token by token, their order, and what is refused in a sentence."""

from dataclasses import replace

import numpy as np
import pytest

from gpt3core import run as runs
from gpt3core.data import formats, labelled, tokenizer
from gpt3core.data.labelled import Example
from gpt3core.data.labelled_loader import LabelledLoader, shares
from gpt3core.errors import StoreError
from gpt3core.evals import examples
from gpt3core.labelled import LabelledSpec
from gpt3core.store.rundir import open_root
from tests.gpt3core.finetuning import HELD_OUT, choices, evaluation, parsed, sentiments, specified, write

NAME = "gpt2:300"
START, DELIMITER, EXTRACT = 300, 301, 302


def encoded(text):
    return tokenizer.load(NAME).encode_ordinary(text)


# ------------------------------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({"text": "it rains", "label": "a"}, [[START, "it rains", EXTRACT]]),
        (
            {"premise": "it rains", "hypothesis": "it is wet", "label": "a"},
            [[START, "it rains", DELIMITER, "it is wet", EXTRACT]],
        ),
        (
            {"first": "it rains", "second": "it is wet", "label": "a"},
            [
                [START, "it rains", DELIMITER, "it is wet", EXTRACT],
                [START, "it is wet", DELIMITER, "it rains", EXTRACT],
            ],
        ),
        (
            {"context": "it", "choices": ["rains", "snows", "hails"], "label": 1},
            [[START, "it", DELIMITER, choice, EXTRACT] for choice in ("rains", "snows", "hails")],
        ),
    ],
)
def test_an_example_becomes_the_sequences_of_figure_1(line, expected):
    other = {**line, "label": 0} if "choices" in line else {**line, "label": "b"}
    example = parsed([line, other])[0]
    plain = [[t for p in s for t in (encoded(p) if isinstance(p, str) else [p])] for s in expected]
    assert formats.sequences(example, NAME) == plain
    assert example.choices[example.answer] == ("snows" if "choices" in line else "a")


def test_sequences_are_filled_up_and_each_knows_where_its_extract_token_is():
    many = parsed(choices(8, 0))
    ways, length = formats.shape(many, NAME, 32)
    filled = formats.filled(many, NAME, ways, length)
    assert filled.tokens.shape == (8, 3, length + 1)
    for n, example in enumerate(many):
        for w in range(3):
            there = w < len(example.choices)
            assert (filled.ends[n, w] >= 0) == there
            if there:
                assert filled.tokens[n, w, filled.ends[n, w]] == EXTRACT
                assert not filled.tokens[n, w, filled.ends[n, w] + 1 :].any()
                assert not filled.tokens[n, w, -1], "the extract token is read, never only predicted"


def test_the_targets_of_an_example_count_one_together():
    ends = np.array([[3, -1], [2, 5]])
    found = shares(ends, 6)
    assert found.sum((1, 2)) == pytest.approx([1, 1])
    assert found[0, 0] == pytest.approx([1 / 3] * 3 + [0] * 3)
    assert found[1, 1] == pytest.approx([0.1] * 5 + [0])


# ---------------------------------------------------------------------------------------------------------- the loader


def test_examples_are_dealt_without_replacement_and_fewer_are_the_first_of_more():
    pool = parsed(sentiments(64, 0))
    few, many = labelled.drawn(pool, 16, seed=3), labelled.drawn(pool, 32, seed=3)
    assert many[:16] == few
    assert labelled.drawn(pool, 16, seed=4) != few
    assert labelled.drawn(pool[::-1], 16, seed=3) == few, "the order of a file's lines means nothing"
    ways, length = formats.shape(many, NAME, 32)
    loader = LabelledLoader(formats.filled(many, NAME, ways, length), lm_weight=0.5, seed=0)
    seen = [tuple(row) for row in loader.batch(0, 32).tokens[:, 0].tolist()]
    assert len(set(seen)) == 32
    assert loader.seen(64)["labelled"].epochs == 2
    assert (loader.batch(40, 44).tokens == loader.batch(32, 64).tokens[8:12]).all()


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([{"text": "a", "label": "x"}] * 3, "3 examples of one class, 'x'"),
        ([{"text": "a", "label": "x"}, {"text": "", "label": "y"}], "line 2: text is ''; a text is needed"),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": None}], "line 2: label is None"),
        (
            [{"text": "a", "label": "x"}, {"text": "b"}],
            "line 2 has the fields text; the first line is of the form",
        ),
        ([{"text": "a"}], "examples with text are of the form classification and have the fields label, text"),
        ([{"question": "a", "label": 0}], "fields label, question are of no form; there are classification:"),
        ([{"context": "a", "choices": ["b"], "label": 0}], "choices is .*; a list of two different texts or more"),
        ([{"context": "a", "choices": ["b", " "], "label": 0}], "choices is .*; a list of two different texts or more"),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": " "}], "line 2: label is ' '; a name or a whole number"),
        ([{"context": "a", "choices": ["b", "c"], "label": 2}], "label 2 is the place of no choice; there are 0 to 1"),
    ],
)
def test_a_line_that_is_no_example_is_refused_in_a_sentence(lines, sentence):
    with pytest.raises(ValueError, match=sentence):
        parsed(lines)


def test_a_label_that_is_not_in_the_set_is_refused():
    with pytest.raises(ValueError, match=r"train.jsonl, line 1: label 'z' is none of x, y"):
        parsed([{"text": "a", "label": "z"}], ("x", "y"))


def test_examples_that_do_not_fit_or_are_too_few_or_of_one_class_are_refused(parent, labelled_files):
    _, done = parent
    long = {"text": "a day " * 30, "label": "sad"}
    write(labelled_files[0], [*sentiments(20, 1), long])
    with pytest.raises(ValueError, match=r"1 of \d+ examples do not fit the context of 32 tokens: the longest has \d+"):
        specified(done, *labelled_files)
    write(labelled_files[0], sentiments(20, 1))
    with pytest.raises(ValueError, match=r"examples=48: there are \d+ to train on"):
        specified(done, *labelled_files)
    with pytest.raises(ValueError, match="examples=1: those that seed 0 draws are all of the class"):
        specified(done, *labelled_files, count=1)


def test_a_parent_that_is_not_there_is_named(parent, labelled_files, tmp_path):
    _, done = parent
    spec = specified(done, *labelled_files)
    empty = open_root(tmp_path / "empty", create=True)
    with pytest.raises(StoreError, match=f"fine-tunes {done.run_id}, which .* does not hold: train it first"):
        runs.run(spec, evaluation(spec), empty)
    root = parent[0]
    gone = replace(spec, parent=replace(spec.parent, step=7))
    with pytest.raises(StoreError, match=r"fine-tunes step 7 of .* is not there \(checkpoints of it: 20, 40\)"):
        runs.run(gone, evaluation(gone), root)


def test_examples_that_changed_since_are_refused(parent, labelled_files):
    root, done = parent
    spec, evals = specified(done, *labelled_files), None
    evals = evaluation(spec)
    write(labelled_files[0], sentiments(96, 5))
    with pytest.raises(ValueError, match="was specified for"):
        runs.run(spec, evals, root)


def test_a_specification_that_means_nothing_is_refused(parent, labelled_files):
    _, done = parent
    spec = specified(done, *labelled_files)
    for changed, sentence in (
        ({"parent": None}, "a fine-tuning run has objective=labelled"),
        ({"objective": "next_token"}, "a fine-tuning run has objective=labelled"),
        ({"noise_scale_every": 5}, "both measure the loss of text"),
        ({"labelled": replace(spec.labelled, length=64)}, "the longest example has more tokens than n_ctx=32"),
        ({"tokens": spec.tokens + 1}, "not a whole number of batches"),
    ):
        with pytest.raises(ValueError, match=sentence):
            replace(spec, **changed)
    with pytest.raises(ValueError, match="two or more, and none for examples with choices of their own"):
        LabelledSpec(source="x", held_out=1, sha256="", form="classification", count=1, ways=1, length=8)


def test_a_task_without_choices_cannot_be_learnt():
    with pytest.raises(ValueError, match="task addition_2: its answers are not chosen among given ones"):
        examples.of_task("addition_2", 4, None, NAME)


def test_equal_questions_are_left_out_of_what_is_trained_on():
    one = Example(form="classification", texts=("a",), choices=("x", "y"), answer=0)
    assert labelled.unasked([one, replace(one, texts=("b",))], [replace(one, answer=1)]) == [replace(one, texts=("b",))]


@pytest.mark.parametrize(("form", "kept"), [("similarity", 0), ("entailment", 1)])
def test_a_pair_the_other_way_round_is_the_same_question_where_both_orders_are_read(form, kept):
    one = Example(form=form, texts=("a", "b"), choices=("x", "y"), answer=0)
    assert len(labelled.unasked([one], [replace(one, texts=("b", "a"))])) == kept


@pytest.mark.parametrize(
    ("make", "more"),
    [
        (sentiments, {"text": "a good day in the month of May", "label": "glad"}),
        (choices, {"context": "one or another", "choices": ["one", "two", "six", "ten"], "label": 0}),
    ],
)
def test_questions_are_no_part_of_what_a_run_is(parent, tmp_path, make, more):
    _, done = parent
    train, test = write(tmp_path / "train.jsonl", make(96, 1)), write(tmp_path / "test.jsonl", make(32, 5))
    spec = specified(done, train, test)
    write(test, [*make(HELD_OUT - 1, 5), more])
    assert specified(done, train, test).run_id == spec.run_id


def test_a_question_that_does_not_fit_is_refused_before_the_training(parent, labelled_files):
    write(labelled_files[1], [*sentiments(HELD_OUT - 1, 2), {"text": "a day " * 30, "label": "sad"}])
    with pytest.raises(ValueError, match="1 of 16 examples do not fit the context of 32 tokens"):
        specified(parent[1], *labelled_files)
