"""Trials of Ray Tune that wait on runs: what they mean, ask, tell and stop. No Ray runs here."""

import pytest
from ray import tune
from ray.tune.result import DONE, TRAINING_ITERATION

from gpt3core.data import corpus
from gpt3core.errors import UsageError
from gpt3core.evals.spec import HELD_OUT
from gpt3core.store.proposals import Proposals
from gpt3core.store.rundir import RunDir, open_root
from gpt3core.store.sweepdir import SweepDir
from sweeps.cluster import tune as door
from sweeps.cluster.tune import Door, RunFailedError, Trial
from sweeps.planning import grid, recipe
from tests.conftest import write_corpus

SETTINGS = (
    "recipe=smoke",
    "name=tuned",
    "evals.tasks=[addition_2]",
    "evals.shots=[0,1]",
    "evals.validation_tokens=4096",
)
ONE = {"widths": 8, "budgets": 1e10}


@pytest.fixture
def shared(isolated, known_text):
    """A search's door, without a Ray behind it."""
    text = f"data.corpus={write_corpus(isolated / 'text', documents=50)}"
    chosen = recipe.load([*SETTINGS, text])
    return Door(
        settings=(*SETTINGS, text),
        root=open_root(isolated / "root", create=True),
        name="tuned",
        corpus_sha256=corpus.fingerprint(chosen.data.corpus),
        evals=grid.evaluation(chosen),
        reports=4,
        variables={},
    )


@pytest.fixture
def driven(monkeypatch):
    """No driver is started; who would have asked for one is counted."""
    asked = []
    monkeypatch.setattr(Trial, "_ensure", lambda self: asked.append(self._run.run_id))
    monkeypatch.setattr(door, "PATIENCE_SECONDS", 0.0)
    return asked


def trial(shared, config):
    made = object.__new__(Trial)  # Tune's own start needs a Ray
    made.setup(config, shared)
    return made


def train(run, share, *, done=False, evals=None):
    """Steps of a run up to a share of its tokens, as its trainer writes them."""
    spec = run.spec()
    attempt = (run.attempts() or [run.new_attempt()])[-1]
    before = len(run.curve())
    steps = list(range(before + 1, round(spec.steps * share) + 1))
    run.write_metrics(
        attempt,
        {"step": steps, "tokens": [spec.tokens_at(s) for s in steps], "loss": [5 - s / spec.steps for s in steps]},
    )
    if done:
        table = {"task": [HELD_OUT, "addition_2", "addition_2"], "shots": [0, 0, 1], "accuracy": [None, 0.25, 0.5]}
        table |= {"loss": [3.5, None, None], "loss_se": [0.01, None, None], "bits_per_byte": [2.0, None, None]}
        run.write_evaluation(evals.eval_id, table)
        run.finish({"status": "done", "steps": spec.steps})


def test_a_trial_tells_the_same_points_whenever_it_looks(shared, driven):
    made = trial(shared, ONE)
    run = RunDir(shared.root, made._run.run_id)
    assert Proposals(SweepDir(shared.root, "tuned")).asked() == {run.run_id: shared.evals.eval_id}
    first = made.step()
    assert (first["status"], first[TRAINING_ITERATION], first.get(DONE)) == ("waiting", 0, None)
    train(run, 0.6)
    told = [made.step() for _ in range(2)]
    assert [t[TRAINING_ITERATION] for t in told] == [1, 2]
    assert told[1]["tokens"] == pytest.approx(made._run.tokens / 2, rel=0.02)
    assert [t["loss"] for t in told] == pytest.approx([5 - 1 / 8, 5 - 3 / 8], abs=0.01), "the mean of each part"
    again = made.step()
    assert again == told[1], "no news: the same again"
    train(run, 1.0, done=True, evals=shared.evals)
    assert made.step()[TRAINING_ITERATION] == 3
    final = made.step()
    assert final[DONE]
    assert (final["loss"], final["status"], final[TRAINING_ITERATION]) == (3.5, "done", 4)
    assert (final["score/addition_2/0"], final["score/addition_2/1"]) == (0.25, 0.5)
    made.cleanup()
    assert SweepDir(shared.root, "tuned").stop_requests() == set()
    # another trial of the same run asks for nothing, and tells the same points
    late = trial(shared, {"widths": 8, "budgets": [1e10]})
    replay = [late.step() for _ in range(4)]
    assert [r["loss"] for r in replay[:2]] == [t["loss"] for t in told]
    assert replay[3] == final
    assert len(driven) == 0 or set(driven) == {run.run_id}


def test_a_trial_that_is_stopped_holds_its_run_and_one_that_comes_back_lets_it_go_on(shared, driven, tmp_path):
    sweep = SweepDir(shared.root, "tuned")
    made = trial(shared, ONE)
    run = RunDir(shared.root, made._run.run_id)
    train(run, 0.3)
    made.step()
    made.save_checkpoint(str(tmp_path))
    made.cleanup()
    assert sweep.stop_requests() == {run.run_id}
    back = trial(shared, ONE)
    assert sweep.stop_requests() == set()
    back.load_checkpoint(str(tmp_path))
    train(run, 0.6)
    assert back.step()[TRAINING_ITERATION] == 2, "what was told before the pause is not told again"
    other = trial(shared, {**ONE, "widths": 16})
    with pytest.raises(UsageError, match="do not change while it trains, so PopulationBasedTraining"):
        other.load_checkpoint(str(tmp_path))
    assert back.reset_config({**ONE, "widths": 16}), "the process is reused for another trial"
    assert sweep.stop_requests() == {run.run_id}
    assert back._run.run_id == other._run.run_id


def test_a_run_that_cannot_end_ends_its_trial(shared, driven):
    made = trial(shared, ONE)
    proposals = Proposals(SweepDir(shared.root, "tuned"))
    proposals.answer(made._run.run_id, "failed", "out of luck")
    with pytest.raises(RunFailedError, match="failed: out of luck"):
        made.step()
    made.cleanup()
    assert SweepDir(shared.root, "tuned").stop_requests() == set()
    again = trial(shared, ONE)
    assert proposals.answered(made._run.run_id) is None, "it is asked anew"
    proposals.answer(made._run.run_id, "pruned", "no value")
    assert (again.step()["status"], again._over) == ("pruned", True)


def test_a_trial_is_one_run(shared, driven):
    with pytest.raises(UsageError, match=r"describes 4 \(.*narrow its sizes and budgets, or let the space pick one"):
        door.one_run(shared, {})
    every = grid.build(recipe.load(shared.settings), shared.corpus_sha256).runs
    assert [door.one_run(shared, {"run": run.run_id}) for run in every] == every
    with pytest.raises(UsageError, match="run=d8-nothing: the recipe tuned has no such run"):
        door.one_run(shared, {"run": "d8-nothing"})
    nested = door.one_run(shared, {**ONE, "optim": {"lr_max": 0.004}})
    assert nested.optim.lr == 0.004
    assert nested == door.one_run(shared, {**ONE, "optim.lr_max": 0.004})


@pytest.mark.parametrize(
    ("space", "settings", "said"),
    [
        ({"optim.lrmax": tune.loguniform(1e-3, 1e-1)}, (), "unknown key 'optim.lrmax', did you mean optim.lr_max"),
        ({"optim": {"lr_mx": tune.grid_search([1])}}, (), "unknown key 'optim.lr_mx'"),
        ({"evals.items": tune.choice([1, 2])}, (), "evals.items holds for the whole sweep"),
        ({"data.corpus": tune.choice(["a", "b"])}, (), "data.corpus holds for the whole sweep"),
        ({"placement.workers": 2}, (), "placement.workers holds for the whole sweep"),
        ({"extend": True}, (), "extend holds for the whole sweep"),
        ({"seed": tune.choice([1, 2])}, ("seed=3",), "seed is in the settings and in the space"),
        ({}, ("adaptive=true",), "adaptive=true: Tune's searcher says which runs there are"),
        ({}, ("optim.lrmax=1",), "did you mean optim.lr_max"),
    ],
)
def test_what_no_search_can_have_is_said_before_anything_starts(space, settings, said):
    with pytest.raises(UsageError) as error:
        door.trainable("recipe=smoke", *settings, space=space)
    assert said in str(error.value)
