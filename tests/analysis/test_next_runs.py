"""The design ends in an action: grids of a recipe or a table, prices, the stopping rule, scores, and the command."""

import re
import shlex

import numpy as np
import pandas as pd
import pytest
from scipy import special

from analysis import api
from analysis import design as designing
from analysis.estimation import design
from analysis.estimation.information import Covariance
from analysis.estimation.score_information import ScoreCovariance
from analysis.laws.accuracy import fit_bounded
from analysis.next_runs import next_runs
from analysis.output import documents, proposals
from analysis.settings import DesignSettings
from gpt3core.errors import StoreError, UsageError
from gpt3core.store.rundir import RunDir
from sweeps import command
from tests.analysis.synthetic import make_store
from tests.analysis.test_design import FINISHED, grid, runs
from tests.analysis.test_minima import FORMER
from tests.conftest import write_corpus


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A finished laptop sweep whose losses follow a known law within 0.3%, and its run_ids; nothing writes to it."""
    root = tmp_path_factory.mktemp("store") / "root"
    return root, make_store(root, noise=0.003)


def planned(line, monkeypatch, capsys):
    """What sizes.py --plan says of a printed line, typed as a shell would."""
    words = shlex.split(line)
    if "=" in words[0]:
        monkeypatch.setenv(*words.pop(0).split("=", 1))
    assert words[:2] == ["python", "sweeps/sizes.py"]
    capsys.readouterr()
    assert command.sweep([*words[2:], "--plan"], usage="") == 0
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("recipe", "settings", "text"),
    [
        ("laptop", ["adaptive=true", "replicas=2"], 8e6),
        ("gpt3", ["sizes=[125M,350M]"], 1e13),
        ("depth", ["shapes=[{n_layer: 1, d_model: 96, n_head: 3},{n_layer: 2, d_model: 128, n_head: 4}]"], 8e6),
    ],
)
def test_the_printed_line_plans_the_choice_and_nothing_else(recipe, settings, text, isolated, monkeypatch, capsys):
    corpus = f"data.corpus={write_corpus(isolated / 'text', documents=1500)}"  # two contexts of 2,048 are held out
    root = isolated / "elsewhere with a space"
    make_store(root, *settings, corpus, asked=recipe, text=text, evals=False)
    found = next_runs(DesignSettings(runs=str(root)))
    assert found.commands
    plans = [planned(line, monkeypatch, capsys) for line in found.commands]
    asked = [re.search(r"which this command of (\d+) run", plan) for plan in plans]
    assert sum(int(match[1]) for match in asked if match) == len(found.table)
    assert "left out:" not in "".join(plans), "no cell is asked that the recipe would not run"
    assert all("extend=true keeps them in the sweep" in plan for plan in plans)


def test_a_recipe_is_continued_beyond_its_runs_and_none_is_made_twice(store):
    root, ids = store
    found = next_runs(DesignSettings(runs=str(root), batch=500, target_compute=1e14, worth=1e9))
    specs = [RunDir(root, run_id).spec() for run_id in ids]
    made = {(spec.label, spec.budget_flops) for spec in specs}
    budgets = {float(f"{c:.3g}") for c in found.table.C}
    assert {3.16e13, 1e14} <= budgets, "half a decade apart, as the recipe's own"
    assert found.table.C.max() <= 1e14 * 1.001
    assert not made & {(row["size"], float(f"{row['C']:.3g}")) for row in found.table.to_dict("records")}
    highest = found.table[found.table.C > 9e13]
    assert highest.N.max() > max(spec.model.d_model for spec in specs) ** 2 * 24, "wider than any width of the recipe"
    assert highest.N.max() / highest.N.min() < 2.5**2, "within the recipe's own span"


def test_the_price_is_that_of_the_runs_own_speed_and_of_the_hour(store):
    """The store's runs made 10,000 tokens a second."""
    root, _ = store
    found = next_runs(DesignSettings(runs=str(root), largest=1e13))
    assert found.unit == "hours"
    within = found.table[found.table.N.between(5e3, 1e6)]
    np.testing.assert_allclose(within.hours, within.D / 1e4 / 3600, rtol=0.35)
    priced = next_runs(DesignSettings(runs=str(root), largest=1e13, usd_per_hour=3.0))
    assert priced.unit == "USD"
    np.testing.assert_allclose(priced.table.usd, 3.0 * priced.table.hours)


def test_it_says_stop_in_money_and_with_its_numbers(store, capsys):
    root, _ = store
    assert designing.main([f"runs={root}", "usd_per_hour=3", "worth=1e-3"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "stop, further runs are not worth their cost: a tenth off costs at least" in out
    assert "USD, and may cost 0.001 (worth=)" in out
    assert designing.main([f"runs={root}", "usd_per_hour=3", "worth=1e3"]) == 0
    assert "go on: a tenth off costs at least" in " ".join(capsys.readouterr().out.split())


def test_the_price_of_a_tenth_is_the_least_over_the_path():
    """A tenth off is a factor of 0.9: 0.81 of the interval for 8 are two tenths at 4 each."""
    path = [
        design.Proposal(index=i, n=1.0, d=1.0, cost=c, interval=r) for i, (c, r) in enumerate([(5.0, 0.9), (3.0, 0.81)])
    ]
    assert design._least_price(path) == pytest.approx(4.0)
    assert len(design._affordable(path, 2, 4.0)) == 2
    assert len(design._affordable([path[0], design.Proposal(index=1, n=1, d=1, cost=9.0, interval=0.89)], 2, 6.0)) == 1


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("N,D", {}),
        ("params,tokens", {}),
        ("params,tokens", {"N": "params", "D": "tokens", "loss": "val_loss"}),
        ("N,D", {"N": "params", "D": "tokens", "loss": "val_loss"}),
    ],
)
def test_a_candidate_file_needs_no_loss_and_falls_back_to_n_and_d(header, columns, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = runs(FINISHED)[["N", "D", "loss"]]
    if columns:
        made = made.rename(columns={"N": "params", "D": "tokens", "loss": "val_loss"})
    made.to_csv("t.csv", index=False)
    grid()[["N", "D"]].set_axis(header.split(","), axis=1).to_csv("g.csv", index=False)
    found = next_runs(DesignSettings(runs="t.csv", candidates="g.csv", columns=columns, target_compute=1e22))
    expected = design.propose(runs(FINISHED), grid(), compute=1e22, batch=4, limit=float(runs(FINISHED).cost.sum()))
    assert [p.index for p in found.design.proposals] == [p.index for p in expected.proposals]


def test_hours_of_candidates_are_used_or_said_not_to_be_and_are_not_negative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = runs(FINISHED)[["N", "D", "loss"]]
    made.to_csv("t.csv", index=False)
    asked = DesignSettings(runs="t.csv", candidates="g.csv", target_compute=1e22)
    grid()[["N", "D"]].assign(gpu_hours=5.0).to_csv("g.csv", index=False)
    assert any(
        "gpu_hours is not used, for the runs made do not say their hours" in said for said in next_runs(asked).remarks
    )
    made.assign(gpu_hours=3.0).to_csv("t.csv", index=False)
    found = next_runs(asked)
    assert (found.unit, found.remarks) == ("hours", [])
    grid()[["N", "D"]].assign(gpu_hours=-5.0).to_csv("g.csv", index=False)
    with pytest.raises(UsageError, match="gpu_hours is -5, it must be finite and zero or more"):
        next_runs(asked)


def test_a_folder_that_cannot_be_written_is_said_by_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs(FINISHED)[["N", "D", "loss"]].to_csv("t.csv", index=False)
    grid()[["N", "D"]].to_csv("g.csv", index=False)
    found = next_runs(DesignSettings(runs="t.csv", candidates="g.csv", target_compute=1e22))
    for there in ("/proc", "t.csv/x"):  # which even root may not write
        with pytest.raises(StoreError, match="name a writable folder by out="):
            documents.write_design(found, there)


def test_a_table_gets_a_grid_of_its_own_range(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    made = runs(FINISHED)[["N", "D", "loss"]]
    made.to_csv("t.csv", index=False)
    assert designing.main(["runs=t.csv", "out=o", "batch=3"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "train these N and D" in out
    assert "nats wide" in out
    chosen = pd.read_csv(tmp_path / "o" / "next.csv")
    highest = float((6 * made.N * made.D).max())
    assert 1 <= len(chosen) <= 3
    assert ((chosen.C >= highest / 4) & (chosen.C <= 10.1 * highest)).all()
    np.testing.assert_allclose(6 * chosen.N * chosen.D, chosen.C, rtol=0.02)


def test_a_target_lies_where_the_fit_predicts_it():
    """Of the former laptop ladder, whose budget 1e14 was trained afterwards: loss 2.970 at 0.81M parameters."""
    for target, measured in (("loss", 2.970), ("n_star", 0.81e6)):
        found = next_runs(DesignSettings(runs=str(FORMER), target=target, target_compute=1e14)).design
        for after in (1.0, found.proposals[-1].interval):
            low, high = found.interval(after)
            assert low < measured < high
        (said,) = api.fit(FORMER, target_compute=1e14, bootstrap=20).predictions
        assert np.exp(found.centre) == pytest.approx(said.loss if target == "loss" else said.n, rel=1e-3)


@pytest.mark.parametrize(
    ("runs_of_one_ratio", "about"),
    [(True, "its law and prior, for analysis.fit predicts none"), (False, "what analysis.fit predicts:")],
)
def test_it_says_what_an_interval_lies_about(tmp_path, runs_of_one_ratio, about):
    cells = [(n, 20 * n) for n, _ in FINISHED] if runs_of_one_ratio else FINISHED
    runs(cells)[["N", "D", "loss"]].to_csv(tmp_path / "t.csv", index=False)
    grid()[["N", "D"]].to_csv(tmp_path / "g.csv", index=False)
    asked = DesignSettings(runs=str(tmp_path / "t.csv"), candidates=str(tmp_path / "g.csv"), target="n_star")
    assert any(about in said for said in proposals.sentences(next_runs(asked)))


# ------------------------------------------------------------------------------------------------------------- scores


@pytest.mark.soak
def test_an_accuracy_is_a_target_of_its_own(store, capsys):
    root, _ = store
    found = next_runs(DesignSettings(runs=str(root), target="accuracy:rising:4"))
    low, high = found.design.interval()
    assert found.design.target == "accuracy:rising:4"
    assert 0.5 < low < found.design.centre < high <= 1
    loss = next_runs(DesignSettings(runs=str(root)))
    assert found.design.everything != pytest.approx(loss.design.everything, rel=1e-3), "not the loss in its place"
    assert next_runs(DesignSettings(runs=str(root), target="accuracy:rising")).design.target == "accuracy:rising:0"
    assert designing.main([f"runs={root}", "target=accuracy:rising"]) == 0
    assert "accuracy:rising:0 at C=" in capsys.readouterr().out


def test_an_accuracy_is_known_from_the_runs_that_were_scored(tmp_path):
    """Of forty runs, all are scored, or eight: the trend is known as well as by a table of the eight alone."""
    rng = np.random.default_rng(0)
    n = np.exp(rng.uniform(np.log(1e7), np.log(1e9), 40))
    table = pd.DataFrame({"N": n, "D": 20 * n * np.exp(rng.uniform(-1, 1, 40))})
    table["loss"] = 1.8 + 480 / table.N**0.35 + 2100 / table.D**0.37
    table["quiz"] = rng.binomial(200, 0.25 + 0.7 * special.expit(4 * (3.0 - table.loss))) / 200
    few = table.assign(quiz=table.quiz.where(table.index % 5 == 0))
    sigma = []
    for name, rows in (("whole", table), ("few", few)):
        rows.to_csv(tmp_path / f"{name}.csv", index=False)
        words = {"scores": ["quiz"], "chance": {"quiz": 0.25}, "items": {"quiz": 200}, "target": "accuracy:quiz"}
        sigma.append(next_runs(DesignSettings(runs=str(tmp_path / f"{name}.csv"), **words)).design.sigma)
    assert sigma[1] > 1.5 * sigma[0]


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("accuracy:guessing", "are at chance .*take target=loss"),
        ("accuracy:rising:16", r"is not measured \(task rising, 16 examples: does not fit n_ctx"),
        ("accuracy:rising:5", "was not asked with 5 examples; it was with 0, 4, 16"),
        ("accuracy:risin", "no task 'risin', did you mean rising?"),
    ],
)
def test_an_accuracy_without_a_trend_is_refused(target, sentence, store):
    root, _ = store
    with pytest.raises(UsageError, match=sentence):
        designing.main([f"runs={root}", f"target={target}"])


def test_what_a_score_tells_is_the_scatter_of_refits_with_it():
    """The doubt of the trend at the target now and with forty more scored runs, against fits to scores drawn anew."""
    rng = np.random.default_rng(0)
    losses, more, items, at = np.linspace(4.5, 3.4, 30), np.linspace(3.8, 3.2, 40), 400, 3.2
    every = np.concatenate([losses, more])

    def fitted(at_losses):
        right = 0.25 + 0.75 * special.expit(2.0 * (3.6 - at_losses))
        hits = rng.binomial(items, right).astype(float)
        return fit_bounded(-at_losses, hits, np.full(len(at_losses), items), floor=0.25)

    sure = Covariance(matrix=np.zeros((len(every) + 1, len(every) + 1)), noise=np.ones(len(every)))
    scored = np.arange(len(every)) < len(losses)
    found = ScoreCovariance.of(sure, fitted(losses), items, np.log(np.append(every, at)), scored, scored)
    before, gains = found.target_variance, found.gain()
    assert np.all(gains[scored] == 0), "what is known tells nothing more"
    found.condition([37])
    assert gains[37] == pytest.approx(np.log(before / found.target_variance))
    found.condition([i for i in np.flatnonzero(~scored) if i != 37])
    for told, seen in ((before, losses), (found.target_variance, every)):
        scatter = np.std([fitted(seen).at(np.array(-at)) for _ in range(40)])
        assert 1 / 1.5 < np.sqrt(told) / scatter < 1.5


def test_a_tables_scores_are_a_target_too(tmp_path):
    rng = np.random.default_rng(0)
    n, d = (axis.ravel() for axis in np.meshgrid([1e7, 3e7, 1e8, 3e8, 1e9], [5e8, 2e9, 8e9]))
    loss = 1.7 + 480 / n**0.34 + 2000 / d**0.37
    arc = 0.25 + 0.5 * special.expit(4 * (2.9 - loss)) + 0.01 * rng.standard_normal(15)
    path = tmp_path / "t.csv"
    pd.DataFrame({"N": n, "D": d, "loss": loss, "arc": arc}).to_csv(path, index=False)
    asked = DesignSettings(runs=str(path), scores=["arc"], chance={"arc": 0.25}, min_tokens=1, target="accuracy:arc")
    low, high = next_runs(asked).design.interval()
    assert 0.4 < low < high < 0.9
    with pytest.raises(UsageError, match="has no effect with target=loss"):
        next_runs(DesignSettings(runs=str(path), scores=["arc"]))
