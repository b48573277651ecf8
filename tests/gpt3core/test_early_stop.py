"""Early stopping: when a run ends, what is left of it, the same bits however it was interrupted, and no second try."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from gpt3core import run as runs
from gpt3core import schedule
from gpt3core.anomaly import AnomalySpec
from gpt3core.evals import held_out
from gpt3core.options import Options
from gpt3core.parallel.layout import Layout
from gpt3core.store import files
from gpt3core.store.rundir import STOPPED_EARLY, RunDir
from gpt3core.train import loop
from gpt3core.train.early_stop import EarlyStop
from tests.conftest import EVALS, make_run
from tests.gpt3core.outcomes import outcome, run, stopped
from tests.gpt3core.poison import poisoned

LOSSES = [5.0, 4.0, 4.2, 3.9, 3.9, 4.0, 3.0, 2.0]  # the third after the fourth (its lowest) is the sixth


@pytest.fixture
def patient(tales):
    """A run that is looked at after every two steps, and stops after two looks in vain."""
    return replace(make_run(tales), options=Options(stop_every=256, stop_patience=2, stop_validation_tokens=2048))


@pytest.fixture
def told(monkeypatch):
    """Validation losses as they are told, at every step the same ones."""
    measured = []

    def held_out(here):
        measured.append(here.step)
        return LOSSES[here.step // 2 - 1]

    monkeypatch.setattr(runs, "_held_out", held_out)
    return measured


def test_a_run_ends_when_its_validation_loss_has_not_fallen_for_so_many_looks(patient, told, isolated):
    result = run(patient, isolated)
    assert told == [2, 4, 6, 8, 10, 12], "two looks after the lowest, and no later"
    assert (result["status"], result["steps"], result["tokens"]) == (STOPPED_EARLY, 12, 12 * 128)
    folder = RunDir(isolated, patient.run_id)
    assert folder.checkpoint_steps()[-1] == 12, "its weights are kept"
    assert folder.evaluated(EVALS.eval_id), "and measured"
    seen = folder.curve().validation_loss
    assert seen.dropna().tolist() == LOSSES[:6]
    assert (np.flatnonzero(seen.notna()) + 1).tolist() == told
    (event,) = [e for e in files.read_lines(folder.attempts()[0] / "events.jsonl") if e["event"] == "stopped early"]
    assert (event["step"], event["lowest"]) == (12, 3.9)


def test_it_is_never_trained_again_and_more_may_be_measured_of_it(patient, told, isolated, monkeypatch):
    first = run(patient, isolated)
    monkeypatch.setattr(loop.Trainer, "_update", lambda *_: pytest.fail("trained"))
    assert run(patient, isolated) == first
    runs.run(patient, replace(EVALS, items=9), isolated)
    assert RunDir(isolated, patient.run_id).result() == first


@pytest.mark.parametrize("after", [1, 7, 11])
def test_an_interrupted_run_stops_where_it_would_have(patient, told, isolated, after):
    run(patient, isolated / "whole")
    stopped(patient, isolated / "parts", after)
    run(patient, isolated / "parts")
    ends = []
    for name in ("whole", "parts"):
        folder = RunDir(isolated / name, patient.run_id)
        weights = folder.checkpoint(12) / "model-00000.safetensors"
        ends.append((weights.read_bytes(), folder.curve().drop(columns="attempt").to_csv(), folder.result()["steps"]))
    assert ends[0] == ends[1]


def test_it_looks_at_the_loss_that_an_evaluation_reports_and_its_weights_are_those_of_the_run_without(tales, isolated):
    """A run that might stop and does not has the bits of one that never would."""
    plain = make_run(tales)
    may = replace(plain, options=Options(stop_every=128 * 15, stop_patience=2, stop_validation_tokens=2048))
    assert may.run_id != plain.run_id
    for spec in (plain, may):
        run(spec, isolated)
    looked = RunDir(isolated, may.run_id).curve().validation_loss.iloc[-1]
    held_out = [RunDir(isolated, spec.run_id).evaluation(EVALS.eval_id)["loss"][0] for spec in (plain, may)]
    assert looked == held_out[0] == held_out[1]
    assert outcome(isolated, may)[1] == outcome(isolated, plain)[1]


def test_a_loss_that_is_no_number_is_never_the_lowest():
    early = EarlyStop(Options(stop_every=1, stop_patience=2), None)
    early.look(float("nan"))
    early.look(float("inf"))
    assert early.stopped
    assert early.lowest is None
    assert EarlyStop(Options(stop_every=1, stop_patience=2), early.state()).stopped
    assert not EarlyStop(Options(), early.state()).stopped, "off is off"


IMPATIENT = Options(stop_every=1024, stop_patience=1, stop_validation_tokens=512)
BACK = AnomalySpec(policy="rollback", back=4, ahead=2)


def test_weights_spoilt_before_a_look_are_gone_back_from_and_no_reason_to_stop(tales, isolated, monkeypatch):
    spec = replace(make_run(tales, steps=12), options=IMPATIENT, anomaly=BACK)
    rate, spoilt = schedule.learning_rate, []

    def once(optim, step):
        if step == 7 and not spoilt:
            return spoilt.append(step) or math.inf
        return rate(optim, step)

    monkeypatch.setattr(schedule, "learning_rate", once)
    result = run(spec, isolated)
    assert (result["status"], result["steps"], result["roll_backs"]) == ("done", 12, 1)


def test_a_step_that_is_gone_back_from_is_not_looked_at(tales, isolated, monkeypatch):
    spec = replace(make_run(tales, steps=12), options=IMPATIENT, anomaly=BACK)
    looks = iter((5.0, 6.0))
    monkeypatch.setattr(runs, "_held_out", lambda _: next(looks))
    with poisoned([4 * 7 + 1], math.nan):
        result = run(spec, isolated)
    assert (result["status"], result["steps"], result["roll_backs"]) == ("done", 12, 1)
    assert next(looks) == 6.0, "one look at step 8, when it was there to stay"


def test_all_evaluations_of_a_run_ask_one_whole_model(monkeypatch):
    """Which is in its first answers once: a rank that is stuck there has an hour."""
    monkeypatch.setattr(loop, "Whole", lambda *_: object())
    here = object.__new__(loop.Trainer)
    here.held, here.spec, here.mesh = None, SimpleNamespace(model=None), SimpleNamespace(layout=Layout(tensor=2))
    assert here.answers is here.answers


def test_windows_of_a_look_are_those_of_the_evaluation(patient, isolated):
    RunDir(isolated, patient.run_id).create(patient)
    here = loop.Trainer(patient, isolated)
    here.model.init_weights(0)
    expected = held_out.measure(here.model, here.data, patient.model.n_ctx, 2048)["loss"]
    assert runs._held_out(here) == expected
