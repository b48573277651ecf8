"""Which rules take runs out: all, none or some by name, in every command; identical rows are one run."""

import json

import numpy as np
import pandas as pd
import pytest

from analysis import api, fit, laws
from analysis.estimation import isoflop
from analysis.output import documents, text
from analysis.output.receipt import receipt
from analysis.runs.selection import select
from analysis.settings import RULES, DesignSettings, FitSettings, ReportSettings, RunSettings, StudySettings
from gpt3core import cli
from gpt3core.errors import UsageError
from tests.analysis.test_laws_and_solver import TRUE
from tests.analysis.test_tables import rows


def badly_behaved():
    """Forty runs: one diverged with a loss and one without, one on 90 epochs, one under-trained, one far too high."""
    table = rows().assign(name=[f"r{i}" for i in range(40)], status="done", epochs=1.0)
    table.loc[table.D < table.N, "D"] = 20 * table.N
    table.loc[0, "status"] = "diverged"
    table.loc[1, "status"] = "diverged"
    table.loc[2, "epochs"] = 90.0
    table.loc[3, "D"] = table.N[3] / 2
    table.loc[4, ["N", "D"]] = table[["N", "D"]].max() * 2
    table["loss"] = TRUE["E"] + TRUE["A"] / table.N ** TRUE["alpha"] + TRUE["B"] / table.D ** TRUE["beta"]
    table.loc[[1, 4], "loss"] = [np.nan, 9.0]
    return table


def chosen(*rules, table=None, **words):
    return select(RunSettings(rules=list(rules), **words), badly_behaved() if table is None else table)


def out(selection):
    return {r.name: r.excluded for r in selection.rules if r.excluded}


def test_a_run_is_worse_than_smaller_ones_from_five_percent_on():
    table = badly_behaved().drop(index=[0, 1, 2, 3, 4]).reset_index(drop=True)
    best, largest = table.loss.min(), table[["N", "D"]].max()
    for row, times, above in ((0, 2, 1.04), (1, 3, 1.06)):
        table.loc[row, ["N", "D"]], table.loc[row, "loss"] = times * largest, above * best
    assert out(chosen("all", table=table)) == {"worse-than-smaller": [table.name[1]]}


def test_a_replication_takes_every_run_that_has_a_loss():
    assert out(chosen("all")) == {
        "diverged": ["r0", "r1"],
        "repeated-data": ["r2"],
        "worse-than-smaller": ["r4"],
        "under-trained": ["r3"],
    }
    study = api.fit(badly_behaved(), bootstrap=5, law="chinchilla", rules="none")
    assert out(study) == {"no-loss": ["r1"]}
    assert len(study.table) == 39
    assert study.laws["chinchilla"].fit.runs == 39, "the run of 90 epochs too"
    document = documents.to_json(study)
    assert document["rules_off"] == list(RULES)
    (note,) = [n for n in study.notes if n.code == "rules-off"]
    assert "repeated-data would take out 1" in note.message
    assert {r["name"]: r["would_exclude"] for r in document["rules"]}["worse-than-smaller"] == ["r4"]
    assert "off" in [row.words[2] for row in text.rules(study).rows]


def test_rules_by_name_are_the_ones_that_hold():
    assert out(chosen("under-trained", "diverged")) == {"diverged": ["r0", "r1"], "under-trained": ["r3"]}


def test_of_trials_of_a_search_the_best_tuned_enter_a_law():
    """Three learning rates at every point, two seeds of the best: these stay, and the others are listed."""
    points = rows().iloc[:20].assign(name=[f"p{i}" for i in range(20)])
    points = points.assign(D=np.maximum(points.D, 20 * points.N))
    trials = [points.assign(name=points.name + f"-{k}", lr=lr, seed=k) for k, lr in enumerate((1e-3, 1e-3, 3e-3, 1e-2))]
    for trial, worse in zip(trials, (1.001, 0.999, 1.01, 1.04), strict=True):
        trial["loss"] = points.loss * worse
    trials[3]["D"] = trials[3].D * 1.01  # whole batches
    table = pd.concat(trials, ignore_index=True)
    found = chosen("all", table=table)
    assert {name[-1] for name in found.table.run_id} == {"0", "1"}
    assert len(out(found)["not-best-tuned"]) == 40
    assert len(chosen("none", table=table).table) == 80
    without = chosen("all", table=table, exclude=[f"p0-{k}" for k in (0, 1)])
    assert set(found.table.run_id) ^ set(without.table.run_id) == {"p0-0", "p0-1", "p0-2"}
    fixed = pd.concat(trials[:2]).assign(lr=lambda t: 1e-3 * t.N**-0.1)  # one for each size: nothing was searched
    assert "not-best-tuned" not in out(chosen("all", table=fixed))


def test_the_rules_that_take_nothing_out_are_one_row():
    table = [row.words for row in text.rules(api.fit(rows(), bootstrap=5, law="chinchilla")).rows]
    assert table[-1][0] == "others"
    assert "diverged, stopped-early" in table[-1][1]
    assert not [row for row in table[:-1] if row[2] == "none"]


def test_parabolas_take_every_run_of_a_budget_where_near_is_off():
    n = np.geomspace(2e7, 5e9, 9)
    budgets = [pd.DataFrame({"N": n * s, "D": c / (6 * n * s), "C": c}) for c, s in ((1e19, 0.3), (1e20, 1), (1e21, 3))]
    table = pd.concat(budgets).assign(loss=lambda t: 1.69 + 406.4 / t.N**0.34 + 410.7 / t.D**0.28)
    table["D"] = table.D.round()
    near, every = (chosen(rule, table=table) for rule in ("near", "none"))
    assert any(p.far for p in isoflop.parabolas(near.table))
    assert [len(p.run_ids) for p in isoflop.parabolas(every.table)] == [9, 9, 9]
    proofs = [receipt(selection, api.options_of(StudySettings())) for selection in (near, every)]
    assert proofs[0] != proofs[1], "a fit on disk is not taken for one of other rules"


@pytest.mark.parametrize("settings", [FitSettings, ReportSettings, StudySettings, DesignSettings])
def test_every_command_that_reads_runs_has_the_setting(settings):
    for word, off in (
        ("all", ()),
        ("none", RULES),
        ("[]", RULES),
        ("near", RULES[:-1]),
        ("[near,diverged]", tuple(name for name in RULES if name not in ("near", "diverged"))),
    ):
        assert cli.settings(settings(), [f"rules={word}"]).rules_off == off


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"rules": ["divergd"]}, "rules=divergd, did you mean diverged"),
        ({"rules": ["all", "near"]}, "all stands alone"),
        ({"rules": ["none"], "min_tokens": 1e5}, "min_tokens=100000 is the rule short-run"),
        ({"rules": ["excluded"]}, "what exclude= and precision= take out stays out"),
    ],
)
def test_rules_that_cannot_be_meant_are_refused(words, sentence):
    with pytest.raises(UsageError, match=sentence):
        RunSettings(**words).check()


def test_the_command_says_which_rules_are_off(tmp_path, capsys):
    badly_behaved().to_csv(tmp_path / "t.csv", index=False)
    words = [f"runs={tmp_path / 't.csv'}", "rules=[diverged]", "law=hoffmann", "bootstrap=5", "figures=false"]
    assert fit.main([*words, f"out={tmp_path / 'o'}"]) == 0
    assert "rules that are off" in capsys.readouterr().out
    assert "rules-off" in (tmp_path / "o" / "law.md").read_text()
    assert "near" in json.loads((tmp_path / "o" / "fit.json").read_text())["rules_off"]


def test_identical_rows_are_one_run():
    """Every run four times made certainty: an interval 0.159 wide became 0.066."""
    table = rows(30, noise=0.01)
    once, four = (api.fit(t, bootstrap=20, law="chinchilla") for t in (table, pd.concat([table] * 4)))
    assert len(four.table) == len(once.table)
    assert len(out(four)["duplicate"]) == 90
    assert "rule-duplicate" in {n.code for n in four.notes}
    np.testing.assert_array_equal(once.laws["chinchilla"].draws, four.laws["chinchilla"].draws)
    assert len(chosen("none", table=pd.concat([table] * 2)).table) == 60


def test_copies_under_other_names_and_rows_an_evaluation_are_one_run_too():
    table = rows(30, noise=0.01)
    tasks = pd.concat([table.assign(task=task, score=0.1 * k, name=f"r{k}") for k, task in enumerate(("a", "b", "c"))])
    assert len(out(chosen("all", table=tasks))["duplicate"]) == 60
    rounded = tasks.assign(loss=tasks.loss.round(2))
    assert "duplicate" not in out(chosen("all", table=rounded)), "two runs may have the same three digits"


@pytest.mark.parametrize(
    ("kind", "unit", "decimals", "copies"),
    [
        *[(float, 1, 2, 0), ("float32", 1, 2, 0), (float, 0.693147, 2, 0)],
        *[(float, 1, 5, 40), (float, 1, 9, 40), ("float32", 1, 9, 40), (float, 0.693147, 9, 40)],
    ],
)
def test_the_digits_of_a_loss_are_those_that_the_file_has(kind, unit, decimals, copies):
    """Seeds that agree to two decimals are runs, in whatever format and unit; copies under other names are not."""
    table = rows(20, noise=0.01)
    seeds = pd.concat([table.assign(name=[f"s{k}-{i}" for i in range(20)]) for k in range(3)])
    seeds["loss"] = (seeds.loss / unit).round(decimals).astype(kind)
    found = chosen("all", table=seeds, columns={"loss": f"loss*{unit}"})
    assert len(out(found).get("duplicate", [])) == copies


def test_copies_keep_the_names_of_their_runs_and_the_index_of_a_frame_is_no_difference(tmp_path):
    table = rows(12).assign(name=[f"r{i}" for i in range(12)])
    pd.concat([table, table]).reset_index(drop=True).to_csv(tmp_path / "t.csv")
    found = out(select(RunSettings(runs=str(tmp_path / "t.csv"), exclude=["r3"])))
    assert found["excluded"] == ["r3"]
    assert len(found["duplicate"]) == 12
    seeds = pd.concat([table.assign(seed=s) for s in (1, 2)])
    assert "duplicate" not in out(chosen("all", table=seeds)), "two seeds may end at the same loss"


def test_any_order_of_rows_gives_the_same_numbers():
    table = rows(30, noise=0.01).assign(name=[f"r{i}" for i in range(30)])
    studies = [api.fit(table.sample(frac=1, random_state=s), bootstrap=20, law="chinchilla") for s in (1, 2)]
    one, other = (documents.to_json(s) for s in studies)
    for part in ("laws", "predictions", "conventions", "influence", "backtest", "ensemble"):
        assert one[part] == other[part], part


def test_laws_are_known_by_their_authors():
    for author, law in (("hoffmann", "chinchilla"), ("Muennighoff", "data_constrained"), ("kaplan", "kaplan_nd")):
        assert api.options_of(StudySettings(law=author)).law == law
    assert set(laws.AUTHORS.values()) <= set(laws.LAWS)
    with pytest.raises(UsageError, match="law=hofman, did you mean hoffmann"):
        api.options_of(StudySettings(law="hofman"))


def test_a_window_of_compute_is_the_same_from_python_as_from_the_command():
    table = rows()
    compute = 6.0 * table.N * table.D
    low, high = compute.quantile([0.2, 0.8])
    study = api.fit(table, law="chinchilla", min_compute=low, max_compute=high, rules="none", bootstrap=2)
    inside = compute.between(low, high)
    assert sorted(study.table.loss) == pytest.approx(sorted(table.loss[inside]))
    assert len(out(study)["outside-window"]) == (~inside).sum()


@pytest.mark.parametrize("word", ["target=", "predict=", "scores=", "precision=", "exclude=[a,{}]"])
def test_an_empty_text_names_nothing_and_is_refused(word):
    settings = cli.settings(FitSettings(), [word.format("''") if "{" in word else f"{word}''"])
    with pytest.raises(UsageError, match="='': an empty text names nothing; leave it out"):
        settings.check()
