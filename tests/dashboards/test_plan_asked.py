"""The page Plan as a browser asks it, without one: what it says at first, then, and how quickly."""

import json
import threading
import time
from dataclasses import replace

import pytest

from analysis.output import evidence
from analysis.settings import StudySettings
from dashboards import live, plan
from dashboards.pages import plan as page
from dashboards.pages import shell
from gpt3core.errors import UsageError

pytestmark = pytest.mark.xdist_group("study")  # whose fit it shows


@pytest.fixture(scope="module")
def served(simulated, studied):
    """An app over a study that is fitted already, and what follows it."""
    following = live.Live(StudySettings(runs=str(simulated)))
    following.view = live.View(number=1, name="laptop", study=studied)
    return shell.app(following), following


def ask(app, state, tick=0, had=None):
    """What the page's callback answers; None where the browser has it already."""
    key = next(key for key in app.callback_map if "plan-said" in key)
    outputs = [dict(zip(("id", "property"), part.split("."), strict=True)) for part in key.strip(".").split("...")]
    values = {**page.STATE, **state}
    inputs = [{"id": {"state": name}, "property": "value", "value": values[name]} for name in page.STATE]
    inputs += [{"id": clock, "property": "n_intervals", "value": tick} for clock in ("tick", "hurry")]
    body = {"output": key, "outputs": outputs, "inputs": inputs, "changedPropIds": ["hurry.n_intervals"]}
    body["state"] = [{"id": "plan-said", "property": "data", "value": had}]
    answer = app.server.test_client().post("/_dash-update-component", json=body)
    assert answer.status_code in (200, 204), answer.data[:500]
    return json.loads(answer.data)["response"] if answer.status_code == 200 else None


def settled(app, state):
    """The page once nothing more comes."""
    for tick in range(400):
        said = ask(app, state, tick)
        if "being computed" not in str(said) and "drawn anew" not in str(said):
            return said
        threading.Event().wait(0.05)
    raise AssertionError("the page is still at it")


def test_it_says_what_goes_on_then_the_answer_and_sends_nothing_twice(served, studied):
    app, following = served
    at = {"compute": repr(studied.predictions[0].compute)}
    first = str(ask(app, at))
    assert page.DRAWING in first
    assert "python -m analysis.design" in first, "the command needs no waiting for"
    said = settled(app, at)
    assert f"{studied.predictions[0].loss:.3f} (" in str(said)
    assert "python sweeps/sizes.py" in str(said), "and what runs the proposals"
    behind = following.sets.address(evidence.of_prediction(studied, optimal=True))
    assert str(said).count(behind) >= 3, "loss, N* and D* lead to the runs that say so"
    assert ask(app, at, had=said["plan-said"]["data"]) is None


def test_a_click_is_answered_at_once_with_the_proposals_behind_it(served, studied):
    app, _ = served
    settled(app, {})
    highest = plan.highest_compute(studied)
    spent = []
    for i in range(12):
        began = time.thread_time()
        said = str(ask(app, {"compute": f"{highest * (3 + i):.3g}", "gpu": "A100"}))
        spent.append(time.thread_time() - began)
        assert "best size N*" in said
        assert "A100" in said
    assert sorted(spent)[-2] < 0.3, f"CPU-seconds of a click: {spent}"


def test_what_an_address_says_wrongly_is_said_as_text(served):
    app, _ = served
    said = settled(app, {"gpu": "<img src=x onerror=alert(1)>", "compute": "1e99"})
    assert "gpu=<img src=x" in said["plan-wrong"]["children"]
    assert "1e99" in said["plan-wrong"]["children"]
    assert "H100" in str(said["plan-answer"])


def test_the_last_outlook_stands_while_the_next_is_made(served, studied, monkeypatch):
    """Of a sweep that goes on: neither the answer nor the figure goes away when results are added."""
    app, following = served
    settled(app, {})
    view, go = following.view, threading.Event()
    outlook = plan.outlook

    def slow(study):
        go.wait(20)
        return outlook(study)

    def refused(*_):
        raise UsageError("nothing more to run")

    monkeypatch.setattr(plan, "outlook", slow)
    monkeypatch.setattr(plan, "design", refused)
    try:
        following.view = replace(view, number=2)
        said = str(ask(app, {}))
        assert page.DRAWING in said
        assert f"What is shown is of {len(studied.table)} runs." in said
        assert "best size N*" in said
        assert "python sweeps/sizes.py" in said
        drawn = figure(app)
        assert drawn["plan-figure-shown"]["data"][1][0] == 1
        assert drawn["plan-figure"]["figure"]["data"]
        go.set()
        said = str(settled(app, {}))
        assert "Not proposed: nothing more to run. What is shown was proposed before results were added." in said
        assert "python sweeps/sizes.py" in said
        assert figure(app)["plan-figure-shown"]["data"][1][0] == 2
    finally:
        go.set()
        following.view = view


def figure(app):
    """What the figure's callback answers to a browser that has nothing yet."""
    key = next(key for key in app.callback_map if "plan-figure-shown" in key)
    outputs = [dict(zip(("id", "property"), part.split("."), strict=True)) for part in key.strip(".").split("...")]
    inputs = [{"id": {"state": name}, "property": "value", "value": value} for name, value in page.STATE.items()]
    inputs += [{"id": clock, "property": "n_intervals", "value": 0} for clock in ("tick", "hurry")]
    body = {"output": key, "outputs": outputs, "inputs": inputs, "changedPropIds": ["hurry.n_intervals"]}
    body["state"] = [{"id": "plan-figure-shown", "property": "data", "value": None}]
    return json.loads(app.server.test_client().post("/_dash-update-component", json=body).data)["response"]


def test_without_a_study_the_page_says_why_it_is_empty(served):
    app, following = served
    view = following.view
    try:
        following.view = replace(view, study=None)
        assert ask(app, {})["plan-wrong"]["children"] == live.FITTING
        following.view = replace(view, study=None, problem="the table has no column of losses")
        assert ask(app, {})["plan-wrong"]["children"] == "the table has no column of losses"
        assert page.layout(following, page.STATE) is not None
    finally:
        following.view = view
