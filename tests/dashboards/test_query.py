"""Which runs a filter keeps, their order, groups and pages, and how their values are printed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dashboards import query
from dashboards.columns import COLUMNS
from sweeps.watching.run_table import Row


def run(number, **values):
    return Row(**{"run_id": f"d{8 * number}-{number:012x}", "size": f"d{8 * number}", "n": 1e4 * number, **values})


RUNS = [
    run(8, status="done", loss=3.25, lr=1e-3, sweep="laptop, wide", budget=1e12, seed=200.0),
    run(16, status="running", lr=2e-3, sweep="laptop", train_loss=4.0, budget=1e12, seed=201.0),
    run(2, status="failed", note="node <b>n1</b> is gone", sweep="wide", budget=3.16e12, seed=1.0),
    run(12, status="done", loss=3.1, lr=1.5e6, sweep="wide", budget=3.16227766e12, seed=1.0),
]


def kept(text):
    found = query.parse(text)
    assert not found.problem
    return [row.size for row in found.keep(RUNS)]


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("", ["d64", "d128", "d16", "d96"]),
        ("loss<3.2", ["d96"]),
        ("loss<=3.25 loss>3.1", ["d64"]),
        ("loss=none", ["d128", "d16"]),
        ("loss!=none status=done", ["d64", "d96"]),
        ("lr>=2e-3", ["d128", "d96"]),
        ("lr=1.5M", ["d96"]),
        ("budget=3.16e12", ["d16", "d96"]),  # as it is printed
        ("seed=200", ["d64"]),  # whole numbers are not rounded
        ("loss=3.24", []),  # 3.25 is printed with four decimals
        ("loss=3.25", ["d64"]),
        ("lr=inf", []),
        ("size=D16", ["d16"]),
        ("sweep=wide", ["d64", "d16", "d96"]),  # one of its sweeps
        ("sweep~lap", ["d64", "d128"]),
        ('note~"is gone"', ["d16"]),
        ("size=d16|D96", ["d16", "d96"]),
        ("size!=d16|d96", ["d64", "d128"]),
        ("sweep=laptop|other", ["d64", "d128"]),
        ("seed=1|200", ["d64", "d16", "d96"]),
        ("loss=none|3.25", ["d64", "d128", "d16"]),
        ("loss!=none|3.25", ["d96"]),
        ("note=none|x", ["d64", "d128", "d96"]),
        ("<b>n1", ["d16"]),
        ("N<2e4 size!=d16", []),
        ("loss>3.2 running", []),
    ],
)
def test_a_filter_keeps_what_its_words_say(text, sizes):
    assert kept(text) == sizes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("los<3", "no such column, did you mean loss"),
        ("loss<low", "a number is expected"),
        ("loss=nan", "loss=none where there is none"),
        ("size>d8", "size is text"),
        ("loss~3", "loss is a number"),
        ("loss=3|low", "loss=low: a number is expected"),
    ],
)
def test_what_is_not_understood_is_said_and_the_rest_holds(text, said):
    found = query.parse(f"{text} status=done")
    assert said in found.problem
    assert len(found.keep(RUNS)) == 2


@given(st.text(max_size=60))
def test_no_text_breaks_a_filter(text):
    assert set(query.parse(text).keep(RUNS)) <= set(RUNS)


def test_sizes_go_by_n_and_what_has_no_value_comes_last_both_ways():
    assert [row.size for row in query.ordered(RUNS, "size")] == ["d16", "d64", "d96", "d128"]
    assert [row.size for row in query.ordered(RUNS, "-loss")] == ["d64", "d96", "d128", "d16"]
    assert [row.size for row in query.ordered(RUNS, "loss")] == ["d96", "d64", "d128", "d16"]
    assert [row.size for row in query.ordered(RUNS, "-status,-size,colour")] == ["d128", "d16", "d96", "d64"]


@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(0, 9) | st.none(), st.integers(0, 3)), max_size=20), st.booleans())
def test_an_order_is_that_of_sorted(pairs, descending):
    rows = [run(1 + i, loss=loss, seed=float(seed)) for i, (loss, seed) in enumerate(pairs)]
    sign = -1 if descending else 1
    expected = sorted(rows, key=lambda r: (r.loss is None, sign * (r.loss or 0), r.seed))
    assert query.ordered(rows, f"{'-' if descending else ''}loss,seed") == expected


def test_groups_add_up_and_each_leads_to_its_runs():
    for name in ("size", "status", "budget", "lr", "note", "sweep", "seed"):
        groups = query.grouped(RUNS, COLUMNS[name])
        assert sum(group.runs for group in groups) == len(RUNS)
        if name != "sweep":  # a run of two sweeps is found in both
            assert [len(query.parse(group.word).keep(RUNS)) for group in groups] == [group.runs for group in groups]
    first, second = query.grouped(RUNS, COLUMNS["budget"])
    assert (first.lowest, second.lowest, first.done, second.done) == (3.25, 3.1, 1, 1)


def test_a_group_of_numbers_leads_to_the_runs_that_are_printed_alike():
    losses = (3.2, 3.203, 3.21, 3.20004, 3.18)
    rows = [
        run(i + 1, loss=loss, batch_tokens=2.0**20 + i % 2, train_seconds=3600.4 + i) for i, loss in enumerate(losses)
    ]
    for name in ("loss", "batch_tokens", "train_seconds"):
        groups = query.grouped(rows, COLUMNS[name])
        assert [len(query.parse(group.word).keep(rows)) for group in groups] == [group.runs for group in groups]
    assert query.grouped(rows, COLUMNS["loss"])[1].word == "loss=3.2"
    assert not query.parse("train_seconds=inf").keep(rows)


def test_pages_hold_every_item_once_and_there_is_none_beyond_the_last():
    items = list(range(101))
    pages = [query.page(items, number, 50) for number in range(3)]
    assert [item for found, _, _ in pages for item in found] == items
    assert query.page(items, 99, 50) == ([100], 2, 3)
    assert query.page([], 5, 50) == ([], 0, 1)


@pytest.mark.parametrize("name", COLUMNS)
def test_every_column_prints_what_a_run_lacks_as_nothing(name):
    assert COLUMNS[name].shown(run(1)) == "" or name in ("run_id", "size", "n")
