"""Two ladders compared, on pairs whose compute multiplier is known; and exponents that are held fixed."""

import inspect
import json
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest

from analysis import api, compare, fit, laws
from analysis.estimation import compare as comparing
from analysis.estimation import multiplier, robust, solve
from analysis.estimation.compare import SAME
from analysis.estimation.fixed_cost import fixed_cost
from analysis.estimation.pairs import pairs
from analysis.output import comparison, saved
from analysis.runs.ladders import ladders as ladders_of
from analysis.settings import CompareSettings
from dashboards.figures.comparison import multipliers
from gpt3core.errors import UsageError
from tests.analysis.synthetic import make_store
from tests.benchmarks import compare_truth
from tests.benchmarks.compare_truth import NONE, Scenario, badly_tuned, judged, ladders, ln_loss

CLEAN = Scenario(name="clean", multiplier=1.2, noise=1e-6, budgets=4, sizes=4)


def compared(scenario, seed=0, **given):
    (found,) = api.compare(*ladders(scenario, seed), **given)
    return found


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize(("m", "growth"), [(1.2, 1.0), (0.8, 1.1)])
def test_a_clean_pair_gives_its_multiplier(paired, m, growth):
    scenario = replace(CLEAN, multiplier=m, growth=growth, paired=paired)
    found = compared(scenario)
    assert found.paired is paired
    for at in (*found.at, *found.beyond):
        assert np.log(at.value) == pytest.approx(scenario.ln_m(np.array([at.compute]))[0], abs=2e-3)
    assert found.growth == pytest.approx(growth, abs=2e-3)
    assert found.verdict == ("better" if m > 1 else "worse")


@pytest.mark.soak
def test_the_two_the_other_way_round_give_the_inverse():
    a, b = ladders(replace(CLEAN, noise=0.001), 3)
    (there,), (back,) = api.compare(a, b), api.compare(b, a)
    for m, w in zip(there.at, back.at, strict=True):
        assert m.value * w.value == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("kept", [5, *(pytest.param(kept, marks=pytest.mark.soak) for kept in (8, 16))])
def test_one_ladder_twice_is_not_told_apart_and_is_asked_about(kept):
    a, _ = ladders(replace(CLEAN, noise=0.002), 0)
    (found,) = api.compare(a, a.iloc[:kept])
    assert found.verdict == SAME
    assert comparison.sentences(found)[0].startswith(
        f"not told apart: in all {found.cells} shared cells the losses are the same to the last digit; are they"
    )


def test_the_verdict_is_told_at_a_budget_that_it_holds_at_and_bits_beside_nats_are_asked_about():
    found = compared(replace(CLEAN, multiplier=0.8))
    last = replace(found.at[-1], told_apart=False, interval=[0.5, 1.1])
    said = comparison.sentences(replace(found, at=[*found.at[:-1], last]))
    assert said[0].startswith(f"B is worse: at C={found.at[-2].compute:.3g} B is worth ")
    assert not any("bits" in line for line in said)
    a, b = ladders(CLEAN, 0)
    (bits,) = api.compare(a, b.assign(loss=b.loss / np.log(2)))
    assert any(
        "losses of B are 1.4" in line and line.endswith("bits beside nats a token?")
        for line in comparison.sentences(bits)
    )


def test_what_both_share_cancels_in_pairs():
    scenario = Scenario(name="", multiplier=1.2, noise=2e-4, shared=badly_tuned, budgets=4, sizes=4)
    by_cell, not_so = compared(scenario), compared(scenario, paired=False)
    assert abs(np.log(by_cell.at[1].value / 1.2)) < 0.01
    width = [np.log(c.at[1].interval[1] / c.at[1].interval[0]) for c in (by_cell, not_so)]
    assert width[0] < width[1] / 3


@pytest.mark.soak
def test_intervals_hold_in_a_few_draws_of_each_kind():
    """Some CPU-seconds: the short form of tests/benchmarks/compare_truth.py, which judges 200 draws of 23 kinds."""
    kinds = [Scenario(name="", multiplier=m, noise=0.005, paired=p, budgets=4) for m in (1, 1.2) for p in (True, False)]
    found = [(kind, comparing.compare(*ladders(kind, seed), backtested=False)) for kind in kinds for seed in range(3)]
    held = np.array([judged(kind, c) for kind, c in found])
    assert 0.85 <= held.mean() <= 1.0
    null = [c.verdict for kind, c in found if kind.multiplier == 1]
    assert null.count(SAME) >= len(null) - 1


def test_noise_hides_a_difference_and_seeds_are_said():
    scenario = replace(CLEAN, multiplier=1.02, noise=0.01)
    a, b = (pd.concat([t, t.assign(loss=t.loss * 1.01)], ignore_index=True) for t in ladders(scenario, 1))
    (found,) = api.compare(a.assign(run_id=range(len(a))), b.assign(run_id=range(len(b))))
    assert found.verdict == SAME
    assert found.resolved > 1.02
    assert found.noise[0] == pytest.approx(np.log(1.01) / np.sqrt(2), rel=1e-3)
    assert "not told apart" in comparison.sentences(found)[0]


def test_a_token_that_costs_more_than_6n_counts_in_the_multiplier():
    """The truth by brute force: both frontiers on a grid of sizes with C = (6N + 500 N^0.6) D."""
    n = np.geomspace(1e6, 1e12, 4001)

    def frontier(compute):
        return ln_loss(n, compute / (6 * n + 500 * n**0.6), NONE).min()

    a, b = ladders(replace(CLEAN, multiplier=1.44, tilt=-np.log(1.2), noise=1e-6), 0)  # tokens worth 1.73, N 0.83
    cost = (6 * a.N + 500 * a.N**0.6) * a.D
    a, b = a.assign(C=cost), b.assign(C=cost)
    found = multiplier.fit(a, b, pairs(a, b), laws.CHINCHILLA)
    compute = float(cost.median())
    target = _shifted(n, compute)
    needed = np.geomspace(compute, 3 * compute, 1001)
    truth = needed[np.argmin([abs(frontier(c) - target) for c in needed])] / compute
    assert np.exp(found.interval(np.array([compute]))[0, 1]) == pytest.approx(truth, rel=0.01)


def _shifted(n, compute):
    """B's frontier."""
    d = compute / (6 * n + 500 * n**0.6)
    parameters, tokens = np.exp(np.log(1.44) / 2 - np.log(1.2)), np.exp(np.log(1.44) / 2 + np.log(1.2))
    return ln_loss(n * parameters, d * tokens, NONE).min()


def test_ladders_of_one_ratio_are_compared_by_compute():
    n = np.geomspace(1e7, 1e9, 10)
    table = pd.DataFrame({"N": n, "D": 20 * n, "C": 120 * n**2})
    a = table.assign(loss=1.7 + 40 * table.C**-0.09)
    b = table.assign(loss=1.7 + 40 * (1.3 * table.C) ** -0.09)
    (found,) = api.compare(a, b)
    assert "L(C)" in found.law
    assert [m.value for m in found.at] == pytest.approx([1.3] * len(found.at), rel=5e-3)


# ------------------------------------------------------------------------------------------------ grammar and files


def test_every_option_of_the_command_is_one_of_the_function():
    two_files = {"runs", "by", "arms"}  # these name the two ladders, which the function is given
    asked = {field.name for field in fields(CompareSettings)} - two_files - {"out", "figures"}
    assert asked <= set(inspect.signature(api.compare).parameters)


def test_what_takes_runs_out_does_so_from_python_too(monkeypatch):
    monkeypatch.setattr(comparing, "compare", lambda a, b, **_: (len(a), len(b)))
    a, b = (t.assign(precision=np.where(t.N > t.N.median(), "bf16", "fp32")) for t in ladders(CLEAN, 0))
    a = a.assign(loss=np.where(a.index == 9, 9.0, a.loss))
    low, high = float(a.C.min()) * 1.5, float(a.C.max()) / 1.5
    assert api.compare(a, b) == [(15, 16)]
    assert api.compare(a, b, rules="none") == api.compare(a, b, rules=["near"]) == [(16, 16)]
    assert api.compare(a, b, min_compute=low, max_compute=high, rules="none") == [(8, 8)]
    assert api.compare(a, b, min_tokens=float(a.D.median()) * 1.001) == [(7, 8)]
    assert api.compare(a, b, precision="fp32", rules="none") == [(8, 8)]


@pytest.fixture
def files(tmp_path):
    a, b = ladders(replace(CLEAN, noise=0.001), 0)
    for name, table in (("a", a), ("b", b)):
        table = table[["run_id", "N", "D", "C", "loss"]]
        table.assign(**{"loss.web": table.loss * 1.1, "code": table.loss}).to_csv(tmp_path / f"{name}.csv", index=False)
    both = pd.concat([a.assign(mix="old"), b.assign(mix="new")])
    both.to_csv(tmp_path / "both.csv", index=False)
    return tmp_path


def run(files, *words):
    assert compare.main([*words, f"out={files / 'out'}", "figures=false"]) == 0
    return json.loads((files / "out" / "compare.json").read_text())["comparisons"]


@pytest.mark.soak
def test_every_way_to_name_two_ladders_gives_the_same(files, capsys):
    a, b = files / "a.csv", files / "b.csv"
    listed = run(files, f"runs=[{a},{b}]")
    assert [c["domain"] for c in listed] == ["", "web"]
    assert listed == run(files, f"runs={a},{b}")
    (arms,) = run(files, f"runs={files / 'both.csv'}", "by=mix", "arms=[old,new]")
    assert arms["names"] == ["old", "new"]
    assert arms["at"] == listed[0]["at"]
    assert "B is better" in capsys.readouterr().out
    (_, code) = run(files, f"runs=[{a},{b}]", "domains.code=code")
    assert code["at"] == listed[0]["at"]
    assert "| C | loss A |" in (files / "out" / "compare.md").read_text()


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["runs={a}"], "do not say which two ladders"),
        (["runs=[{a},{a}]"], "not compared with itself"),
        (["runs=[{a},{b},{a}]"], "3 ladders are named, two are compared"),
        (["runs=[{a},{b}]", "sweep=[x,y]"], "a table has no sweeps"),
        (["runs={both}", "by=mox"], "did you mean mix"),
        (["runs={both}", "by=mix", "arms=[old,nwe]"], "did you mean new"),
        (["runs=[{a},{b}]", "by=mix"], "name one table"),
        (["runs=[{a},{b}]", "arms=[x,y]"], "by=COLUMN"),
        (["runs=[{a},{b}]", "domains.x=nothing"], "domains.x=nothing: .* has no column 'nothing'"),
        (["runs=[{a},{b}]", "exclude=[nobody]"], "no run of either ladder"),
        (["runs=[{a},{b}]", "fix.a=0.5", "fix.alpha_equals_beta=true"], "both tie alpha to beta"),
        (["runs=[{a},{b}]", "fix.a=1.5"], "between 0 and 1"),
        (["runs=[{a},{b}]", "target_compute=-1"], "FLOPs, positive"),
        (["runs=[{a},{b}]", "target_compute=[1e22,1e40]"], r"1e\+40: 19.0 decades beyond .* from 1e\+12 to 1e\+27"),
        (["runs=[{a},{b}]", "target_compute=[1e3]"], r"1e\+03: 15.0 decades below .* carried on by more than 6"),
    ],
)
def test_what_is_ambiguous_is_refused_in_a_sentence(files, words, match):
    names = {name: files / f"{name}.csv" for name in ("a", "b", "both")}
    with pytest.raises(UsageError, match=match):
        run(files, *[w.format(**names) for w in words])


@pytest.mark.soak
def test_how_far_a_multiplier_is_carried_on_is_said(files, capsys):
    a, b = files / "a.csv", files / "b.csv"
    run(files, f"runs={a},{b}", "target_compute=[1e24]")
    said = " ".join(capsys.readouterr().out.split())
    assert "1e+24, 3.0 decades beyond" in said
    assert "carried on outside the data: C=1e+24 by 3.0 decades; the backtest reaches 0.9" in said
    run(files, f"runs={a},{b}")  # ten times the largest run, where intervals were held against known multipliers
    assert "carried on outside" not in capsys.readouterr().out


def test_a_loss_that_is_badly_measured_counts_less():
    """Half of B's cells are off by 5% and say so: with their errors the multiplier is that of the others."""
    a, b = ladders(Scenario(name="t", multiplier=1.2, noise=0.0005), 0)
    off = np.where(np.arange(len(b)) % 3 == 0, 1, 0)
    b = b.assign(loss=b.loss * np.exp(0.01 * off))
    plain, known = (
        comparing.compare(a, b.assign(**more), backtested=False).at[3].value
        for more in ({}, {"loss_se": b.loss * np.where(off, 0.05, 0.0005)})
    )
    assert abs(np.log(known / 1.2)) < 0.3 * abs(np.log(plain / 1.2))


def test_a_domains_standard_errors_are_its_own(files):
    t = pd.read_csv(files / "a.csv")
    for name in ("a.csv", "b.csv"):
        t = pd.read_csv(files / name)
        t.assign(**{"loss.web": t.loss * 1.1, "loss_se": 0.5, "loss_se.web": 0.01}).to_csv(files / name, index=False)
    found = list(ladders_of(CompareSettings(runs=[str(files / "a.csv"), str(files / "b.csv")])))
    assert [(pair.domain, float(pair.a.table.loss_se.iloc[0])) for pair in found] == [("", 0.5), ("web", 0.01)]


def test_a_multiplier_that_carries_both_ladders_outside_their_runs_is_warned_of():
    """Over two decades a multiplier of 1,000 has no run of either near the other's loss; one of 20 has, at the ends."""
    for m, doubted in ((1.2, False), (20.0, False), (1000.0, True)):
        found = compared(replace(CLEAN, multiplier=m))
        assert [n.code for n in comparison.notes(found)] == ["carried-on"] * doubted
        at = np.log10([each.compute for each in found.at])
        truth = np.log10(m) - np.maximum(at[-1] - at, at - at[0])  # of A beyond its top, of B below its bottom
        assert [each.carried for each in found.at] == pytest.approx(np.maximum(truth, 0.0), abs=0.03)
    said = comparison.sentences(found)
    assert said[0].endswith(", with a warning")
    assert f"a multiplier of 1e+03 carries the law on by {max(truth):.1f} decades outside the runs" in said[1]
    (entry,) = comparison.to_json([found])["comparisons"]
    assert [n["code"] for n in entry["notes"]] == ["carried-on"]
    assert said[1] == f"warning: {entry['notes'][0]['message']}"
    page = multipliers([found])
    assert entry["notes"][0]["message"] in page.about
    assert page.figure.layout.yaxis.type == "log"
    low, high = page.figure.layout.yaxis.range
    assert low <= 0 <= np.log10(1000) <= high


def test_losses_on_different_held_out_texts_are_warned_of(isolated):
    """Two sweeps of a store: on one text, on one text mixed otherwise, and on another text."""
    root = isolated / "root"
    make_store(root, "name=one", evals=False)
    make_store(root, "name=two", evals=False)
    (pair,) = ladders_of(CompareSettings(runs=[str(root)], sweep=["one", "two"]))
    assert pair.texts[0] == pair.texts[1] != ""
    found = compared(CLEAN)
    assert found.texts == ("", "")
    assert not comparison.notes(found), "of tables it is not known"
    table = pair.b.runs.table
    for column, other in (("mixture", "web 0.5, books 0.5"), ("held_out", "text 0123456789ab")):
        runs = replace(pair.b.runs, table=table.assign(**{column: other}))
        moved = replace(pair, b=replace(pair.b, runs=runs))
        (note,) = comparison.notes(replace(found, texts=moved.texts))
        assert (note.code, note.severity) == ("held-out-texts", "warning")
        assert other in note.message
        of_domain = replace(moved, domain="web").texts
        assert (of_domain[0] == of_domain[1]) is (column == "mixture"), "the text of one source is not mixed"


@pytest.mark.parametrize(
    ("precisions", "warned"),
    [(("fp32", "bf16"), True), (("bf16", "bf16"), False), (("fp32", "unknown"), False), (("", ""), False)],
)
def test_different_precisions_are_warned_of(precisions, warned):
    tables = [t.assign(precision=bits) if bits else t for t, bits in zip(ladders(CLEAN, 0), precisions, strict=True)]
    (found,) = api.compare(*tables)
    said = comparison.notes(found)
    assert [note.code for note in said] == ["mixed-precision"] * warned
    assert all("(A in fp32; B in bf16)" in note.message for note in said)


@pytest.mark.soak
def test_two_sweeps_of_a_store_that_hold_the_same_runs_are_not_told_apart(isolated):
    root = isolated / "root"
    for name in ("one", "two"):
        make_store(root, f"name={name}", noise=0.002, evals=False)
    (found,) = run(isolated, f"runs={root}", "sweep=[one,two]")
    assert found["names"] == ["one", "two"]
    assert found["verdict"] == SAME
    assert found["at"][0]["value"] == pytest.approx(1.0)
    with pytest.raises(UsageError, match="name their domains themselves"):
        run(isolated, f"runs={root}", "sweep=[one,two]", "domains.web=x")


def test_the_figure_carries_every_number_and_no_markup(files):
    a, b = ladders(replace(CLEAN, noise=0.001), 0)
    found = api.compare(a, b, names=("<b>x</b>", "y"), target_compute=[1e23])
    page = multipliers(found)
    assert list(page.figure.data[0].y) == [m.value for m in (*found[0].at, *found[0].beyond)]
    assert found[0].beyond[0].compute == 1e23
    assert "<b>" not in page.figure.layout.yaxis.title.text
    (files / "o").mkdir()
    comparison.write(found, files / "o")
    assert "<b>" not in (files / "o" / "compare.md").read_text()


# ---------------------------------------------------------------------------------------------------- fixed exponents


@pytest.mark.parametrize(
    ("given", "dimension"),
    [({"a": 0.4}, 4), ({"alpha": 0.34}, 4), ({"alpha": 0.3, "beta": 0.2}, 3), ({"a": 0.5, "beta": 0.3}, 3)],
)
def test_fixed_exponents_stay_and_the_rest_is_fitted(given, dimension):
    law = laws.fixed(given.get("alpha"), given.get("beta"), given.get("a"), equal=False)
    assert law.dimension == dimension
    assert laws.by_name(law.name) == law
    n, d = np.meshgrid(np.geomspace(1e7, 1e9, 5), np.geomspace(1e9, 1e11, 5))
    data = {"N": n.ravel(), "D": d.ravel()}
    found = solve.fit(law, data, np.exp(ln_loss(data["N"], data["D"], NONE)))
    params = found.params
    for name in ("alpha", "beta"):
        if name in given:
            assert params[name] == pytest.approx(given[name])
    if "a" in given:
        assert laws.optimal_exponents(params)[0] == pytest.approx(given["a"])
    value, gradient = law.on(data)(found.theta[None])
    for j in range(dimension):
        step = np.zeros(dimension)
        step[j] = 1e-6
        moved = law.on(data)((found.theta + step)[None])[0]
        assert gradient[0, j] == pytest.approx((moved - value)[0] / 1e-6, abs=1e-4)


def test_right_exponents_cost_nothing_and_wrong_ones_are_said_to_cost():
    table = ladders(Scenario(name="", noise=0.001, budgets=6, sizes=4), 0)[0]
    law = [laws.fixed(None, beta, None, equal=False) for beta in (compare_truth.BETA, 1.0)]
    right, wrong = (fixed_cost(table, which, robust.HUBER) for which in law)
    assert right.cuts == wrong.cuts > 0
    assert right.fixed <= right.free * 1.05
    assert wrong.fixed > 2 * wrong.free


@pytest.mark.soak
def test_a_fixed_a_holds_in_every_table_and_file(tmp_path):
    ladders(Scenario(name="", noise=0.001, budgets=5, sizes=5), 0)[0].to_csv(tmp_path / "a.csv", index=False)
    words = [f"runs={tmp_path / 'a.csv'}", f"out={tmp_path / 'out'}", "fix.a=0.5", "bootstrap=20", "figures=false"]
    assert fit.main(words) == 0
    document = json.loads((tmp_path / "out" / "fit.json").read_text())
    assert document["laws"]["n_star"]["params"]["a"] == pytest.approx(0.5)
    assert document["laws"]["chinchilla"]["optimum"]["a"] == pytest.approx(0.5)
    assert document["fixed_exponents"]["cuts"] > 0
    assert [n for n in document["notes"] if n["code"] == "fixed-exponents"]
    receipt = {k: v for k, v in document["receipt"].items() if k != "made"}
    assert saved.read(tmp_path / "out", receipt).laws["chinchilla"].fit.law.ratio == 1.0


def test_exponents_fixed_for_another_law_are_refused():
    table = ladders(CLEAN, 0)[0]
    with pytest.raises(UsageError, match="concerns law=chinchilla"):
        api.fit(table, law="over_training", fix={"a": 0.5})


def test_a_compute_that_one_table_says_and_the_other_does_not_is_asked_about_by_what_both_know():
    a, b = ladders(CLEAN, 0)
    with pytest.raises(UsageError, match="N=given C=6nd, which both know"):
        api.compare(a, b.drop(columns="C"))
    assert api.compare(a, b.drop(columns="C"), C="6nd")[0].verdict == "better"


def test_a_multiplier_beyond_all_measure_has_three_digits():
    (row, *_) = comparison.rows(replace(compared(CLEAN), at=[replace(compared(CLEAN).at[0], value=1.7225386e19)]))
    assert row[3] == "1.72e+19"
