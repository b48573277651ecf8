"""The page Laws as a browser asks it, without one: what it says of a sweep that goes on, and before the first fit."""

import json
import shlex
import threading
import weakref
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest

from analysis.settings import StudySettings
from dashboards import live, memory, refit
from dashboards.pages import laws, shell
from dashboards.refit import LeftOut

pytestmark = pytest.mark.xdist_group("study")  # whose fit it shows


@pytest.fixture
def served(simulated, studied, monkeypatch):
    """An app over a study, its follower, and the settings that were fitted behind it."""
    following, made = live.Live(StudySettings(runs=str(simulated))), []
    following.view = live.View(number=1, name="laptop", study=studied)
    monkeypatch.setattr(refit, "cuts", lambda study: [])

    def fit(live, chosen, view):
        asked = refit.settings(live.given, chosen, set(view.study.everything.run_id))
        made.append(asked)
        return refit.Fit(asked=asked, study=view.study, pages=[], answer=[])

    monkeypatch.setattr(refit, "fit", fit)
    return shell.app(following), following, made


def answered(app, state, of, said):
    """What the page's callback sends; nothing where nothing changed."""
    key = next(key for key in app.callback_map if key.startswith("..laws-of.data"))
    outputs = [dict(zip(("id", "property"), part.split("."), strict=True)) for part in key.strip(".").split("...")]
    values = {**refit.STATE, "figure": laws.STATE["figure"], "cut": "", **state}
    given = [{"id": {"state": name}, "property": "value", "value": value} for name, value in values.items()]
    inputs = [one for one in given if one["id"]["state"] in refit.STATE]
    inputs += [{"id": name, "property": "n_intervals", "value": 0} for name in ("tick", "hurry")]
    body = {"output": key, "outputs": outputs, "inputs": inputs, "changedPropIds": ["tick.n_intervals"]}
    body["state"] = [
        *(one for one in given if one["id"]["state"] not in refit.STATE),
        {"id": "laws-of", "property": "data", "value": of},
        {"id": "laws-said", "property": "children", "value": said},
    ]
    answer = app.server.test_client().post("/_dash-update-component", json=body)
    assert answer.status_code in (200, 204), answer.data[:500]
    return {} if answer.status_code == 204 else json.loads(answer.data)["response"]


def ask(app, state, of=None, said=""):
    """What is shown after the page's callback, and what is said: [of, sentence], and whether nothing more comes."""
    found = answered(app, state, of, said)
    if not found:
        return of, said, True
    get = lambda name, what, kept: found.get(name, {}).get(what, kept)  # noqa: E731
    return get("laws-of", "data", of), get("laws-said", "children", said), not found["laws-said"]["aria-busy"]


def settled(app, state):
    for _ in range(400):
        of, said, done = ask(app, state)
        if done:
            return of, said
        threading.Event().wait(0.02)
    raise AssertionError("the page is still at it")


def test_the_newest_fit_is_shown_while_the_next_is_made(served, studied, monkeypatch):
    app, following, _ = served
    state, go, fit = {"law": "chinchilla"}, threading.Event(), refit.fit
    settled(app, state)

    def slow(*given):
        go.wait(20)
        return fit(*given)

    monkeypatch.setattr(refit, "fit", slow)
    following.view = replace(following.view, number=2)
    of, said, done = ask(app, state)
    assert (of[0], done) == (1, False), "a browser that comes now is shown what there is"
    runs = f"chinchilla, {len(studied.table)} of {len(studied.everything)} runs"
    assert said.startswith("Results were added: fitting them behind the page for 0 s.")
    assert said.endswith(f"What is shown is the fit before: {runs}.")
    go.set()
    of, said = settled(app, state)
    assert of[0] == 2
    assert said.endswith(f" s: {runs}.")


def test_the_same_runs_left_out_for_another_reason_are_not_fitted_again(served, studied):
    app, _, made = served
    run = studied.table.run_id.iloc[0]
    for reason in ("spiked", "looked at again"):
        settled(app, {"out": refit.left_out_text((LeftOut(reason=reason, runs=(run,)),))})
    assert [asked.exclude for asked in made] == [[run]]


def test_no_word_of_an_address_but_a_name_that_is_there_is_in_the_command(served, studied):
    """It is copied into a shell, in which a reason may end a comment or be none: it stands beside."""
    app, _, _ = served
    run, reason = studied.table.run_id.iloc[0], "x\r\nrm -rf ~ #\x1b[2J`id`"
    of, _ = settled(app, {"out": refit.left_out_text((LeftOut(reason=reason, runs=(run, "$(id)")),))})
    key = next(key for key in app.callback_map if "laws-command" in key)
    places = {"laws-answer": "data-said", "laws-out": "children", "laws-command": "children"}
    body = {
        "output": key,
        "outputs": [
            *({"id": name, "property": what} for name, what in places.items()),
            {"id": {"state": "figure"}, "property": "options"},
        ],
        "inputs": [{"id": "laws-of", "property": "data", "value": of}],
        "changedPropIds": ["laws-of.data"],
    }
    found = json.loads(app.server.test_client().post("/_dash-update-component", json=body).data)["response"]
    assert "rm -rf" in str(found["laws-out"])
    typed = found["laws-command"]["children"]
    assert shlex.split(typed)[-1] == f"exclude=[{run}]"
    assert "\n" not in typed
    assert "$" not in typed


def test_a_figure_and_a_cut_that_a_fit_has_not_are_said_above_the_page(served, monkeypatch):
    app, _, _ = served
    pages, cuts = [SimpleNamespace(slug=slug) for slug in ("frontier", "isoflop")], [cut(1e12), cut(4e12)]
    fit = refit.fit
    monkeypatch.setattr(refit, "fit", lambda *given: replace(fit(*given), pages=pages))
    monkeypatch.setattr(refit, "cuts", lambda study: cuts)
    _, said = settled(app, {"law": "chinchilla", "figure": "trunks\u202e", "cut": "2.1e12"})
    assert said.startswith("figure=trunks : of these runs there are frontier, isoflop; frontier is taken. "), (
        "and what turns a line around is not repeated"
    )
    assert " cut=2.1e12: the fits end at 1e12, 4e12 FLOPs; the nearest, 4e12, is taken. " in said
    for right in ({}, {"figure": "isoflop", "cut": "1.001e12"}, {"figure": "", "cut": ""}):
        _, said = settled(app, {"law": "chinchilla", **right})
        assert "taken" not in said


def cut(fitted_to):
    return refit.Cut(fitted_to=fitted_to, fitted=5, rows=pd.DataFrame())


def test_before_the_first_fit_and_where_it_failed_the_page_says_so(served):
    app, following, _ = served
    following.view = live.View()
    assert ask(app, {}) == (None, live.FITTING, True)
    following.view = live.View(problem="the store has no runs yet")
    assert ask(app, {}) == (None, "the store has no runs yet", True)
    assert laws.UNFITTED in str(laws.layout(following, laws.STATE)), "a slider of no cuts and a command of nothing"
    assert answered(app, {}, None, "")["laws-shown"]["className"] == laws.UNFITTED


def test_what_follows_a_fit_is_there_once_there_is_one(served):
    app, _, _ = served
    of, said = settled(app, {"law": "chinchilla"})
    assert answered(app, {"law": "chinchilla"}, None, said)["laws-shown"]["className"] == ""
    assert answered(app, {"law": "kaplan_n"}, of, said)["laws-shown"]["className"] == laws.OLDER


def test_what_was_fitted_already_waits_for_no_other_fit(served, monkeypatch):
    app, _, _ = served
    go, fit = threading.Event(), refit.fit
    monkeypatch.setattr(
        refit, "fit", lambda live, chosen, view: (chosen.law is None or go.wait(60)) and fit(live, chosen, view)
    )
    try:
        assert not ask(app, {"law": "chinchilla"})[2]
        of, _, done = ask(app, {})
        assert (of[1]["law"], done) == ("default", True)
    finally:
        go.set()


def test_a_study_is_gone_as_soon_as_the_next_is_shown(served, studied):
    app, following, _ = served
    following.view = replace(following.view, study=replace(studied))
    settled(app, {})
    before = weakref.ref(following.view.study)
    following.view = replace(following.view, number=2, study=studied)
    memory.give_back()
    assert before() is None
