"""A study fitted on the spot: choices as text, settings and commands; the cuts of its backtests."""

import json
import shlex
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis import api
from analysis.estimation.choices import optima, predictor
from analysis.output.answer import spelt
from analysis.runs.selection import select
from analysis.settings import RunSettings, StudySettings
from dashboards import apart, refit
from dashboards.figures import style
from dashboards.figures.backtest import backtest
from dashboards.live import Live, View
from dashboards.made import Made
from dashboards.pages import laws
from dashboards.refit import Choice, LeftOut
from gpt3core import cli
from gpt3core.errors import UsageError
from gpt3core.words import flops
from tests.analysis.test_tables import rows

pytestmark = pytest.mark.xdist_group("study")  # whose fit it shows
CHOSEN = Choice(
    law="chinchilla",
    n="total",
    c="6nd",
    window=(1e12, None),
    left_out=(LeftOut(reason="spiked; lr <too> high", runs=("a", "b, c")), LeftOut(reason="x", runs=("true", "[d]"))),
)


def state_of(chosen):
    return {
        "law": chosen.law,
        "N": chosen.n,
        "C": chosen.c,
        "from": "1e12",
        "to": "",
        "out": refit.left_out_text(chosen.left_out),
    }


def test_a_permalink_says_a_choice_and_is_read_back():
    assert refit.choice(state_of(CHOSEN)) == CHOSEN
    assert refit.choice(refit.STATE) == refit.choice({}) == Choice()
    assert refit.left_out_text(()) == ""


@pytest.mark.parametrize(
    "state",
    [
        {"law": "../etc", "N": "x", "C": "<b>", "from": "a", "to": "b", "out": "["},
        {"from": "-1", "to": "inf", "out": '{"a": 1}'},
        {"from": "5", "to": "3", "out": '[["why", [1]]]'},
        {"from": "nan", "out": '[["", ["a"]]]'},
        {"out": "[" * 100_000},
        {"out": "1"},
        {"out": '[["why"]]'},
        {"out": '[[null, "ab"]]'},
        {"out": '[["why", "ab"]]'},
        {"out": '[["why", []]]'},
        {"out": '["ab"]'},
        {"out": '{"ab": 1}'},
        {"out": json.dumps([["w" * 201, ["a"]]])},
    ],
)
def test_nonsense_in_a_permalink_is_the_default(state):
    assert refit.choice(state) == Choice()


def test_what_is_not_taken_is_said(studied):
    names = list(studied.everything.run_id[:2])
    out = refit.left_out_text(Choice().without([*names, "<b>gone"], "why").left_out)
    assert refit.unread({"from": "x", "to": "", "out": out}, studied) == [
        "from=x: FLOPs, positive, like 1e18",
        "1 of the runs left out are not here: <b>gone",
    ]
    assert refit.unread({"from": "2e12", "to": "1e12"}, studied) == ["from=2e12: lies above 1e12"]
    assert refit.unread({"from": " 1e12 ", "to": "1e13"}, studied) == []
    assert refit.unread({"out": '["cut off'}, studied) == [
        'out=["cut off: no list of reasons (of 200 characters at most), each with names of runs'
    ]


def test_what_an_address_names_that_there_is_not_is_said():
    assert refit.unknown({**refit.STATE, "cut": ""}) == refit.unknown({"law": "hoffmann", "N": "total"}) == {}
    said = refit.unknown({"law": "<b>", "C": "7nd", "cut": "x"})
    assert said["law"].startswith("allowed are all, ")
    assert said["C"] == "allowed are exact, 6nd, kaplan"
    assert said["cut"] == "FLOPs, positive, like 1e18"
    assert refit.choice({"law": "hoffmann"}).law == "chinchilla"


def test_runs_are_left_out_for_a_reason_and_taken_back_last_first():
    first = Choice().without(["a", "b"], "  spiked\nbadly ")
    second = first.without(["b", "c"], "another")
    assert [(s.reason, s.runs) for s in second.left_out] == [("spiked badly", ("a", "b")), ("another", ("c",))]
    assert second.runs == ["a", "b", "c"]
    assert second.undone() == first
    assert first.undone() == Choice().undone() == Choice()
    with pytest.raises(UsageError, match="why are these runs left out"):
        first.without(["c"], " ")
    assert first.without(["c"], "w" * 200).runs == ["a", "b", "c"]
    with pytest.raises(UsageError, match="this reason has 201 characters, which stand in the address: 200 at most"):
        first.without(["c"], "w" * 201)
    with pytest.raises(UsageError, match="draw a lasso"):
        first.without(["a"], "again")
    with pytest.raises(UsageError, match="do not fit into an address"):
        first.without([f"run-{i:04}" for i in range(2000)], "all")


def test_what_is_chosen_is_what_is_fitted_and_what_can_be_typed():
    """The command that the page shows is read back as the settings that were fitted, by the command's own reader."""
    given = StudySettings(
        runs="/a b/c.csv", columns={"D": "tokens*1e9"}, exclude=["a"], target_compute=[1e24], max_compute=3e21
    )
    given.fix.alpha = 0.34
    asked = refit.settings(given, CHOSEN, {"a", "b, c", "true", "[d]"})
    assert (asked.law, asked.N, asked.C, asked.min_compute, asked.max_compute) == (
        *("chinchilla", "total", "6nd"),
        *(1e12, 3e21),
    )
    assert asked.exclude == ["a", "b, c", "true", "[d]"], "what the command left out first, each once"
    words = shlex.split(refit.command(asked))
    assert words[:3] == ["python", "-m", "analysis.fit"]
    assert cli.settings(StudySettings(), words[3:]) == asked
    assert refit.settings(given, Choice(), {"a"}) == given
    assert refit.settings(given, CHOSEN, {"a"}).exclude == ["a"], "what is not there is not left out"


@pytest.mark.parametrize("name", ["run one", "a'b", 'say "x"', "1e5", "null", "a\nb", "$(rm)", "{k}", "é", "a:b", "#c"])
def test_any_name_survives_the_command_line(name):
    asked = StudySettings(exclude=[name, "x"])
    words = shlex.split(refit.command(asked).split("\n")[0])
    assert cli.settings(StudySettings(), words[3:]).exclude == [name, "x"]


def test_a_window_of_compute_takes_out_what_lies_outside():
    table = rows()
    c = np.sort(6 * table.N.to_numpy() * table.D.to_numpy())
    found = select(RunSettings(min_compute=float(c[5]), max_compute=float(c[-4])), table)
    (rule,) = [rule for rule in found.rules if rule.name == "outside-window"]
    assert len(rule.excluded) == 5 + 3
    assert found.table.C.min() >= c[5]
    assert found.table.C.max() <= c[-4]
    with pytest.raises(UsageError, match="min_compute=2e\\+20 lies above max_compute=1e\\+20"):
        select(RunSettings(min_compute=2e20, max_compute=1e20), table)
    with pytest.raises(UsageError, match="max_compute=0: FLOPs, positive"):
        select(RunSettings(max_compute=0), table)


# ----------------------------------------------------------------------------------------------------- a backtest's cut


def test_a_cut_predicts_what_a_fit_of_the_runs_below_predicts(studied):
    """Every number of a cut by hand: the choices fitted anew to the runs below it, and their weighted mean."""
    found = refit.cuts(studied)
    weighting = studied.ensemble.anywhere
    assert [cut.fitted_to for cut in found] == sorted({*weighting.tests.rows.fitted_to})
    cut = found[1]
    runs = cut.rows[~cut.rows.optimal.to_numpy(bool)]
    below = studied.table[cut.fitted_to >= studied.table.C].reset_index(drop=True)
    above = studied.table[cut.fitted_to < studied.table.C].set_index("run_id")
    assert cut.fitted == len(below)
    assert sorted(runs.run_id) == sorted(above.index)
    choices = studied.ensemble.choices
    each = predictor(choices, optima(choices, below))(above.loc[runs.run_id])
    there = np.isfinite(each)
    mean = (np.where(there, each, 0) * weighting.weights).sum(1) / (there * weighting.weights).sum(1)
    assert np.log(runs.predicted.to_numpy()) == pytest.approx(mean, abs=1e-6)
    assert runs.measured.tolist() == above.loc[runs.run_id].loss.tolist()


def test_a_cut_has_the_predictions_of_the_figure_of_backtests_and_of_the_answer(studied):
    """The page shows both: the same cut has the same misses, and the answer's share is that of its kind of target."""
    found = pd.concat([cut.rows for cut in refit.cuts(studied)])
    page = backtest(studied)
    assert sorted(zip(found.fitted_to, found.miss, strict=True)) == sorted(
        zip(page.summary.fitted_to, page.summary.miss, strict=True)
    )
    answered = found[found.optimal.to_numpy(bool) == studied.predictions[0].optimal]
    table = studied.coverage
    assert len(answered) == table.tests.sum()
    assert (answered.miss.abs() <= answered.half95).sum() == pytest.approx((table.coverage95 * table.tests).sum())


def test_a_cut_is_said_in_a_sentence(studied):
    cut = refit.cuts(studied)[0]
    said = refit.foretold(cut)
    assert said.startswith(f"Fitted to {cut.fitted} runs up to C = ")
    best = cut.rows.optimal.to_numpy(bool)
    assert best.any() and not best.all()
    for asked, what in ((cut.rows[~best], "larger runs"), (cut.rows[best], "larger budgets")):
        missed, inside = np.expm1(asked.miss.abs().median()), (asked.miss.abs() <= asked.half95).sum()
        told = f"{len(asked)} {what} (missed by {missed:.2%} in the median, {inside} of {len(asked)} inside 95%)"
        assert told in said
    assert "learned from all of them, this one too" in said
    alone = replace(cut, rows=cut.rows.assign(half80=np.inf, half95=np.inf))
    assert "inside 95%" not in refit.foretold(alone)
    assert "no other cut to calibrate by" in refit.foretold(alone)


def test_the_cut_of_a_permalink_is_the_nearest(studied):
    found = refit.cuts(studied)
    assert refit.nearest_cut(found, f"{found[0].fitted_to * 1.1:.4g}") is found[0]
    assert refit.nearest_cut(found, "1e99") is found[-1]
    assert refit.nearest_cut(found, "<b>") is refit.nearest_cut(found, "") is found[len(found) // 2]


def test_a_cut_that_there_is_not_is_said(studied):
    found = refit.cuts(studied)
    first, last = (flops(cut.fitted_to) for cut in (found[0], found[-1]))
    for text in ("1e99", "1e-300"):
        assert refit.moved(text, found).startswith(f"cut={text}: the fits end at {first}, ")
        assert refit.moved(text, found).endswith(f"; the nearest, {last if text == '1e99' else first}, is taken")
    assert not any(refit.moved(text, found) for text in ("", "x", "nan", "1e400", first, f"{found[0].fitted_to:.6g}"))
    assert refit.moved("1e12", []) == ""
    many = [replace(found[0], fitted_to=10.0**i) for i in range(40)]
    assert len(refit.moved("3e5", many)) < 200


def test_too_few_runs_have_no_cut():
    assert refit.cuts(api.fit(rows().iloc[::6], bootstrap=5)) == []


def test_a_refit_is_the_study_that_the_command_makes(tmp_path):
    """The settings of a choice give what api.fit gives for the same words."""
    table = rows().assign(name=[f"r{i}" for i in range(40)])
    table.loc[7, "loss"] *= 1.3
    table.to_csv(tmp_path / "t.csv", index=False)
    given = StudySettings(runs=str(tmp_path / "t.csv"), bootstrap=5, law="chinchilla")
    found = api.study(refit.settings(given, Choice().without(["r7"], "an outlier"), set(table.name)))[0]
    same = api.fit(tmp_path / "t.csv", bootstrap=5, law="chinchilla", exclude=["r7"])
    assert found.receipt == same.receipt
    assert found.laws["chinchilla"].fit.params == same.laws["chinchilla"].fit.params


def test_a_fit_of_a_choice_is_shown_beside_the_one_before(studied, monkeypatch):
    from dashboards import data
    from dashboards.figures import catalogue

    pages, live = catalogue.pages(studied, {}), Live(StudySettings(law="chinchilla"))
    view = View(number=1, answer=spelt(studied), pages=pages, study=studied)
    first = refit.fit(live, Choice(), view)
    assert first.study is studied, "nothing is fitted for what is fitted already"
    assert first.pages == [page for page in pages if page.group == "laws"]
    other = replace(studied, predictions=[replace(p, ln_loss=p.ln_loss + 0.01) for p in studied.predictions])
    asked = []
    monkeypatch.setattr(data, "load", lambda settings: asked.append(settings) or (other, None))
    found = refit.fit(live, Choice(law="chinchilla", n="total"), view)
    assert (asked[0].law, asked[0].N) == ("chinchilla", "total")
    assert [page.slug for page in found.pages] == [page.slug for page in first.pages]
    lines = refit.beside(found.answer, view.answer)
    assert [(label, now) for label, now, _ in lines] == found.answer
    before = dict(view.answer)
    assert all(was in ([], before.get(label)) and was != now for label, now, was in lines)
    assert any(was for _, _, was in lines)


def test_a_choice_of_many_runs_is_fitted_apart(studied, monkeypatch):
    asked, view = [], View(number=1, study=studied)
    live = Live(StudySettings(), apart=True)
    made = Made(study=studied, pages=[], answer=spelt(studied))
    monkeypatch.setattr(apart, "make", lambda settings: asked.append(settings) or made)
    monkeypatch.setattr(refit, "MANY", len(studied.everything) - 1)
    assert refit.fit(live, Choice(law="chinchilla"), view).answer == made.answer
    assert [settings.law for settings in asked] == ["chinchilla"]


def test_the_runs_inside_a_lasso_are_those_whose_points_are(studied):
    run = "<b>a</b> & b"
    marked = style.of_runs(studied.everything.head(1).assign(run_id=run))["customdata"]
    points = [{"customdata": marked[0]}, {"customdata": 3.0}, {"x": 1}, {"customdata": marked[0]}]
    assert laws.runs_in({"points": points}) == [run]
    assert laws.runs_in(None) == laws.runs_in({}) == []
