"""Nonsense as the value of any key ends in one sentence or a plan."""

import itertools
import sys

import pytest

from gpt3core import cli
from sweeps import command
from sweeps.planning import recipe
from tests.sweeps.base_recipes import SETTABLE

NONSENSE = ["nan", "inf", "-1", "0", "1e400", "9" * 400, "true", "null", "", "[]", "[1]", "{}", "{a: 1}", "[[1]]"]
NONSENSE += [
    "???",
    "${x}",
    "${oc.env:HOME}",
    "a b\tc",
    "'",
    "[1",
    "é\x00",
    "1e-300",
    "[" * 2000,
    "!!python/name:os.system",
]


QUICK = 1  # values a key in the quick test; the long one takes all
OWN = [(family, key) for family, key in SETTABLE if family == "nano" or key not in recipe.keys_of(recipe.NanoRecipe)]


def ends_well(words, capsys, monkeypatch):
    """Exit 2 with one line that says error, or a plan."""
    monkeypatch.setattr(sys, "argv", ["sizes.py", *words])
    with pytest.raises(SystemExit) as ended:
        cli.run(lambda argv: command.read(argv) and 0)
    said = capsys.readouterr().err
    assert ended.value.code in (0, 2)
    assert said.startswith("error: ") == (ended.value.code == 2), said
    assert said.count("\n") == (ended.value.code == 2), said


@pytest.mark.parametrize(
    "values", [QUICK, pytest.param(4, marks=pytest.mark.soak), pytest.param(len(NONSENSE), marks=pytest.mark.long)]
)
@pytest.mark.parametrize(("family", "key"), OWN, ids=lambda value: str(value))
def test_nonsense_is_one_sentence_or_a_plan(family, key, values, base, capsys, monkeypatch):
    words = base(family)[: 1 if key == "data.corpus" else 2]
    first = OWN.index((family, key)) * QUICK  # another part of the list for every key
    for i in range(values):
        ends_well([*words, f"{key}={NONSENSE[(first + i) % len(NONSENSE)]}"], capsys, monkeypatch)


PAIRS = list(
    itertools.product(
        itertools.combinations(["widths", "budgets", "center_exponent", "model.n_ctx", "optim.lr_max", "span"], 2),
        ["1e-300", "1e300", "[3]", "7"],
        ["1e-300", "1e300", "[3]", "7"],
    )
)


@pytest.mark.parametrize("every", [16, pytest.param(1, marks=pytest.mark.long)])
def test_pairs_of_nonsense_are_one_sentence_or_a_plan(every, base, capsys, monkeypatch):
    words = base("nano")
    for (a, b), x, y in PAIRS[::every]:
        ends_well([*words, f"{a}={x}", f"{b}={y}"], capsys, monkeypatch)
