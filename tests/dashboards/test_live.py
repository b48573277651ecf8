"""What follows a store: it goes on whatever a look meets, says so, and reads again only what changed."""

import shutil

import pytest

from analysis.settings import StudySettings
from dashboards import live
from dashboards.live import Live, View
from gpt3core.errors import StoreError


@pytest.fixture
def root(simulated, tmp_path):
    return shutil.copytree(simulated, tmp_path / "copy")


def test_a_store_that_does_not_answer_is_said_and_looked_at_again(root, monkeypatch):
    following, fits, away = Live(StudySettings(runs=str(root))), [], [True]

    def refresh(_):
        if away:
            raise StoreError("s3://bucket/runs does not answer")

    monkeypatch.setattr(live.places, "refresh", refresh)
    monkeypatch.setattr(Live, "_fitted", lambda self: fits.append(1) or View(number=self.view.number + 1))
    following.look()
    assert following.view.problem == "s3://bucket/runs does not answer"
    away.clear()
    following.look()
    assert (following.view.number, following.view.problem) == (1, "")
    away.append(True)
    following.look()
    assert (following.view.number, following.view.problem) == (1, "s3://bucket/runs does not answer")
    away.clear()
    following.look()
    assert (following.view.problem, len(fits)) == ("", 1), "nothing was added: nothing is fitted"


def test_why_the_last_fit_failed_is_said_until_the_store_changes(root, monkeypatch):
    following = Live(StudySettings(runs=str(root)))
    monkeypatch.setattr(Live, "_fitted", lambda _: 1 / 0)
    following.look()
    following.look()
    assert following.view.problem == "not fitted: ZeroDivisionError: division by zero"
    monkeypatch.setattr(live, "_token", lambda _: {}[0])
    following.look()
    assert "KeyError" in following.view.problem
    monkeypatch.undo()
    monkeypatch.setattr(Live, "_fitted", lambda _: View(number=1))
    following.look()
    assert "ZeroDivisionError" in following.view.problem
