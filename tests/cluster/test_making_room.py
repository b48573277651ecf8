"""Real training makes room for a gang of higher priority: it writes its checkpoint, and goes on to the same bits."""

import threading
import time

import pytest

from gpt3core import run as runs
from gpt3core.data import corpus
from gpt3core.store import files
from gpt3core.store.proposals import Proposals
from gpt3core.store.rundir import RunDir
from gpt3core.store.sweepdir import SweepDir
from sweeps.driving import driver, taking
from sweeps.planning import grid, recipe
from sweeps.planning.grid import Grid
from sweeps.scheduling import scheduler
from tests.cluster.surviving import NOTED, Heard
from tests.conftest import write_corpus

pytestmark = [pytest.mark.cluster, pytest.mark.soak, pytest.mark.timeout(300)]
RECIPE = """
name: room
family: shapes
shapes: [{{n_layer: 2, d_model: 16, n_head: 2}}, {{n_layer: 1, d_model: 24, n_head: 2}}]
tokens: [4.0e+4, 1.2e+6]
min_tokens: 100
model: {{n_ctx: 32, band: 6}}
optim: {{batch_tokens_min: 384, batch_tokens_max: 384, lr_max: 0.003}}
evals: {{tasks: [], validation_tokens: 2048}}
precision: fp32
kernel: softmax
data: {{corpus: {text}, tokenizer: "gpt2:300", max_epochs: 1000}}
placement: {{checkpoint_seconds: 1000, preempt: true}}
placement_of: {{d24: {{workers: 3, cpus: 8, priority: 1}}}}
"""


def test_a_run_that_makes_room_for_a_gang_goes_on_to_the_same_bits(launcher, tmp_path, isolated, monkeypatch):
    """It is asked for while the other trains, and takes all three nodes; no checkpoint is due before that."""
    monkeypatch.setattr(scheduler, "WORTH_SECONDS", 1.0)  # that are worth a stop: the run takes twelve
    (tmp_path / "room.yaml").write_text(RECIPE.format(text=(text := write_corpus(tmp_path / "text", documents=1500))))
    chosen = recipe.load([f"recipe={tmp_path / 'room.yaml'}"])
    cells, root = grid.build(chosen, corpus.fingerprint(str(text))), tmp_path / "root"
    (low,) = (run for run in cells.runs if run.label == "d16" and run.tokens > 1e6)
    (gang,) = (run for run in cells.runs if run.label == "d24" and run.tokens < 1e6)
    sweep, run, heard = SweepDir(root, chosen.name), RunDir(root, low.run_id), Heard()

    def later():
        while not run.attempts() or not files.read_lines(run.attempts()[0] / "tail.jsonl"):
            time.sleep(0.05)
        RunDir(root, gang.run_id).create(gang)
        Proposals(sweep).ask(gang.run_id, cells.evals.eval_id)

    with sweep.owned():
        taken = taking.take(chosen, Grid(runs=[low], left=[], evals=cells.evals), sweep)
        threading.Thread(target=later, daemon=True).start()
        outcome = driver.Driver(chosen, taken, launcher, heard, entry=NOTED).drive()
    assert sorted(outcome.done) == sorted([low.run_id, gang.run_id]), (outcome, heard.lines)
    events = sweep.events()
    told = [(e["event"], e["run_id"]) for e in events if e["event"] in ("start", "preempt", "freed", "failed")]
    first, second = low.run_id, gang.run_id
    assert told == [
        *[("start", first), ("preempt", first), ("freed", first)],
        *[("start", second), ("freed", second), ("start", first), ("freed", first)],
    ]
    begun = [e["step"] for a in run.attempts() for e in files.read_lines(a / "events.jsonl") if e["event"] == "start"]
    assert begun[0] == 0 < begun[1] < low.steps, "it went on where it stopped"
    runs.run(low, cells.evals, tmp_path / "undisturbed")
    there = RunDir(tmp_path / "undisturbed", low.run_id)
    for column in ("loss", "grad_norm", "tokens"):
        assert run.curve()[column].tolist() == there.curve()[column].tolist()
    held_out = [each.evaluation(cells.evals.eval_id)["loss"].tolist() for each in (run, there)]
    assert held_out[0] == held_out[1]
