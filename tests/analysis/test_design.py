"""What to run next: against closed forms, and the command."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from analysis import design as command
from analysis import laws
from analysis.estimation import design, information
from analysis.runs import candidates
from analysis.runs.selection import select
from analysis.settings import RunSettings
from gpt3core import costs
from gpt3core.errors import UsageError
from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from tests.analysis.synthetic import make_store
from tests.analysis.test_laws_and_solver import TRUE
from tests.commands import called

FINISHED = [(1e7, 1e8), (1e7, 1e9), (3e7, 3e8), (3e7, 3e9), (1e8, 1e9), (1e8, 4e9)]


def runs(cells, loss=True):
    n, d = np.array(cells, float).T
    table = pd.DataFrame({"N": n, "D": d, "C": 6 * n * d, "cost": 6 * n * d})
    if loss:
        table["loss"] = TRUE["E"] + TRUE["A"] / n ** TRUE["alpha"] + TRUE["B"] / d ** TRUE["beta"]
    return table


def grid():
    return runs([(n, n * m) for n in (1e7, 3e7, 1e8, 3e8, 1e9) for m in (5, 20, 80)], loss=False)


def test_a_measured_run_conditions_as_a_gaussian_does():
    """Against numpy's block formula, and one by one against all at once."""
    theta, prior = information.posterior_mode(laws.CHINCHILLA, runs(FINISHED), 1e22)
    both = [information.Covariance.of(laws.CHINCHILLA, theta, prior, grid(), (1e10, 2e11)) for _ in range(2)]
    matrix, noise = both[0].matrix.copy(), both[0].noise
    gain = both[0].gain()
    both[0].condition([2])
    both[0].condition([7])
    both[1].condition([2, 7])
    np.testing.assert_allclose(both[0].matrix, both[1].matrix, rtol=1e-6, atol=1e-12)
    precision = np.linalg.inv(matrix + 1e-9 * np.eye(len(matrix)))
    for i in (2, 7):
        precision[i, i] += 1 / noise[i]
    assert both[1].target_variance == pytest.approx(np.linalg.inv(precision)[-1, -1], rel=1e-2)
    alone = information.Covariance.of(laws.CHINCHILLA, theta, prior, grid(), (1e10, 2e11))
    before = alone.target_variance
    alone.condition([7])
    assert gain[7] == pytest.approx(np.log(before / alone.target_variance))


def test_the_prior_gradient_is_the_finite_difference():
    prior = information.Prior.of(laws.OVER_TRAINING, runs(FINISHED))
    theta = prior.mode()
    evaluate = prior.with_data(laws.OVER_TRAINING.on({"N": np.array([1e8]), "D": np.array([1e10])}))
    value, gradient = evaluate(theta[None])
    np.testing.assert_allclose(value[0, 1:], prior.mean, rtol=1e-9)
    for k in range(len(theta)):
        step = np.zeros(len(theta))
        step[k] = 1e-6
        slope = (evaluate((theta + step)[None])[0] - evaluate((theta - step)[None])[0]) / 2e-6
        np.testing.assert_allclose(gradient[0, k], slope[0], rtol=1e-5, atol=1e-7)


def test_information_is_bought_where_the_target_is_and_never_twice():
    found = design.propose(runs(FINISHED), grid(), compute=1e22, batch=4)
    assert len({p.index for p in found.proposals}) == 4
    intervals = [p.interval for p in found.proposals]
    assert intervals == sorted(intervals, reverse=True)
    assert found.everything <= intervals[-1] < 1
    assert max(p.n for p in found.proposals) >= 3e8, "a larger model than any that was run"
    assert found.worth


@pytest.mark.parametrize("target", ["loss", "n_star"])
def test_standard_errors_of_the_loss_count(target):
    """Equal ones change nothing; a run that is badly measured tells less, and its loss moves the target less."""
    made = runs([*FINISHED, (3e8, 3e9), (3e8, 1e10), (1e9, 6e9)])

    def of(table):
        return design.propose(table, grid(), compute=1e21, target=target)

    plain, alike = of(made), of(made.assign(loss_se=0.01 * made.loss))
    assert (alike.centre, alike.sigma) == pytest.approx((plain.centre, plain.sigma), rel=1e-6)
    last = made.index == made.index[-1]
    off = made.assign(loss=made.loss * np.where(last, 1.02, 1.0), loss_se=made.loss * np.where(last, 0.2, 0.002))
    badly = of(off)
    assert badly.sigma > of(off.assign(loss_se=np.nan, loss=made.loss)).sigma
    assert abs(badly.centre - plain.centre) < 0.5 * abs(of(off.assign(loss_se=np.nan)).centre - plain.centre)


def test_runs_in_flight_count_without_their_outcome():
    best = design.propose(runs(FINISHED), grid(), compute=1e22).proposals[0]
    running = grid().iloc[[best.index]]
    after = design.propose(
        runs(FINISHED), grid().drop(index=best.index).reset_index(drop=True), compute=1e22, running=running
    )
    assert (after.proposals[0].n, after.proposals[0].d) != (best.n, best.d)
    second = design.propose(runs(FINISHED), grid(), compute=1e22, batch=2).proposals[1]
    assert (after.proposals[0].n, after.proposals[0].d) == (second.n, second.d)


def test_a_run_that_ended_is_not_proposed_again_and_another_seed_of_it_is():
    made = runs(FINISHED)
    both = pd.concat([grid(), made[["N", "D", "C", "cost"]]], ignore_index=True)
    found = design.propose(made, both, compute=1e22, batch=99)
    assert sorted(p.index for p in found.proposals) == _not_made(both, made)
    seeded = design.propose(made.assign(seed=0), made.assign(seed=1), compute=1e22, batch=99)
    assert len(seeded.proposals) == len(made)
    nothing = design.propose(made, made, compute=1e22)
    assert (nothing.proposals, nothing.everything, nothing.worth) == ([], 1.0, False)


def _not_made(candidates, made):
    known = set(zip(made.N, made.D, strict=True))
    return [i for i, cell in enumerate(zip(candidates.N, candidates.D, strict=True)) if cell not in known]


def test_counts_may_be_whole_numbers():
    """6ND of large runs is beyond 64 bits."""
    large = runs([(100 * n, 1000 * d) for n, d in FINISHED])
    whole = large.astype({"N": "int64", "D": "int64"})
    for target in ("loss", "n_star"):
        found = [design.propose(table, grid(), compute=1e25, target=target) for table in (large, whole)]
        assert found[0].everything == pytest.approx(found[1].everything)


@pytest.mark.parametrize("compute", [-1.0, 0.0, float("nan"), float("inf")])
def test_a_target_is_a_positive_number_of_flops(compute):
    with pytest.raises(UsageError, match="FLOPs, positive"):
        design.propose(runs(FINISHED), grid(), compute=compute)


def test_when_nothing_is_left_to_learn_it_says_stop():
    cheap = runs([(1e7, 1.1e8), (1.1e7, 1e8)], loss=False)
    found = design.propose(runs(FINISHED), cheap, compute=1e22)
    assert not found.worth
    assert found.everything > design.STOP


def test_a_run_that_ended_without_a_loss_tells_nothing_and_is_not_proposed_again():
    lost = grid().iloc[[design.propose(runs(FINISHED), grid(), compute=1e22).proposals[0].index]]
    never = design.propose(runs(FINISHED), grid(), compute=1e22, batch=99)
    for ended in (lost.assign(loss=np.nan, status="done"), lost.assign(loss=9.0, status="diverged")):
        finished = pd.concat([runs(FINISHED).assign(status="done"), ended])
        found = design.propose(finished, grid(), compute=1e22, batch=99)
        assert len(found.proposals) == len(never.proposals) - 1
        assert (lost.N.iloc[0], lost.D.iloc[0]) not in {(p.n, p.d) for p in found.proposals}
        without = grid().drop(index=lost.index)
        same = design.propose(runs(FINISHED), without, compute=1e22, batch=99)
        assert found.everything == pytest.approx(same.everything), "what it might have taught is not known"


def test_a_run_in_flight_counts_as_made_and_a_lost_one_does_not():
    best = grid().iloc[[design.propose(runs(FINISHED), grid(), compute=1e22).proposals[0].index]]
    left = grid().drop(index=best.index).reset_index(drop=True)
    lost = design.propose(pd.concat([runs(FINISHED), best.assign(loss=np.nan)]), left, compute=1e22)
    flying = design.propose(runs(FINISHED), left, compute=1e22, running=best)
    assert lost.everything < flying.everything, "less is left to learn once the best run is counted as made"


def test_runs_without_a_loss_alone_are_too_few():
    finished = runs(FINISHED).assign(loss=[2.5, *[np.nan] * 5])
    with pytest.raises(ValueError, match="1 run ended with a loss: two are needed"):
        design.propose(finished, grid(), compute=1e22)


@pytest.mark.soak
def test_a_store_says_which_runs_diverged_failed_or_are_in_flight(isolated, capsys):
    root = isolated / "root"
    ids = make_store(root)
    diverged, failed, flying = ids[0], ids[5], ids[9]
    result = RunDir(root, diverged).path / "result.json"
    result.write_text(json.dumps({**json.loads(result.read_text()), "status": "diverged"}))
    for run_id in (failed, flying):
        (RunDir(root, run_id).path / "result.json").unlink()
    log = root / "sweeps" / "laptop" / "events.jsonl"
    files.append_line(log, {"time": 2.0, "event": "failed", "run_id": flying})
    files.append_line(log, {"time": 3.0, "event": "start", "run_id": flying})
    files.append_line(log, {"time": 4.0, "event": "failed", "run_id": failed})
    selected = select(RunSettings(runs=str(root)))
    every = {run_id: RunDir(root, run_id).spec() for run_id in ids}
    grid = pd.DataFrame(
        {
            "N": [float(costs.params(s.model).nonembedding) for s in every.values()],
            "D": [s.tokens for s in every.values()],
        }
    )
    grid.to_csv(isolated / "g.csv", index=False)
    known = candidates.costed(selected, candidates.read(isolated / "g.csv", {}, selected)[0])
    assert known.unit == "hours", "the store's runs say how many tokens a second they took"
    status = dict(zip(known.finished.run_id, known.finished.status, strict=True))
    assert status == {i: "out" if i == diverged else "done" for i in ids if i not in (failed, flying)}
    assert list(known.running.run_id) == [flying]
    out = isolated / "o"
    words = [f"runs={root}", f"candidates={isolated / 'g.csv'}", "batch=99", f"out={out}"]
    assert command.main(words) == 0
    proposed = {(p["n"], p["d"]) for p in json.loads((out / "design.json").read_text())["proposals"]}
    again = RunDir(root, failed).spec()
    assert proposed == {(costs.params(again.model).nonembedding, again.tokens)}, "all others ended or are in flight"


def test_the_size_can_be_the_target_and_nonsense_cannot():
    found = design.propose(runs(FINISHED), grid(), compute=1e22, target="n_star", batch=2)
    assert found.everything < 1
    with pytest.raises(ValueError, match="allowed are loss, n_star"):
        design.propose(runs(FINISHED), grid(), compute=1e22, target="fame")
    with pytest.raises(ValueError, match="two are needed"):
        design.propose(runs(FINISHED[:1]), grid(), compute=1e22)


def test_the_command(tmp_path):
    runs(FINISHED)[["N", "D", "loss"]].to_csv(tmp_path / "t.csv", index=False)
    grid()[["N", "D"]].assign(gpu_hours=1.0).to_csv(tmp_path / "g.csv", index=False)
    words = ["runs=t.csv", "candidates=g.csv", "target_compute=1e22", "batch=2", "out=o"]
    process = [sys.executable, "-m", "analysis.design", *words]
    done = subprocess.run(process, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "go on" in done.stdout
    document = json.loads((tmp_path / "o" / "design.json").read_text())
    assert len(document["proposals"]) == 2
    for words, sentence in (
        (["runs=t.csv", "target_compute=-1"], "target_compute=-1.0: FLOPs, positive"),
        (["runs=t.csv", "out=g.csv"], "out=g.csv: a file is there; name a folder"),
        (["runs=t.csv", "target_compute=0"], "target_compute=0.0: FLOPs, positive"),
        (["runs=t.csv", "worth=0"], "worth=0.0: the most that"),
        (["runs=t.csv", "usd_per_hour=3"], "these runs do not say their hours"),
        (["runs=t.csv", "target=accuracy:arithmetic"], "has no scores"),
        (["runs=t.csv", "candidates=g.csv", "largest=1e20"], "largest=1e+20 has no effect"),
        (["runs=t.csv", "candidates=none.csv"], "there is no file"),
        (["runs=t.csv", "candidates=g.csv", "stop=2"], "between 0 and 1"),
        (["runs=t.csv", "candidates=g.csv", "target=fame"], "allowed are loss"),
    ):
        done = called(command.main, words, tmp_path)
        assert done.returncode == 2
        assert sentence in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
