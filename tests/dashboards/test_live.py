"""What follows a store: it goes on whatever a look meets, says so, and reads again only what changed."""

import gc
import os
import shutil
import weakref
from dataclasses import replace

import pytest

from analysis.settings import StudySettings
from dashboards import live
from dashboards.live import Live, View
from dashboards.pages import shell
from dashboards.watch import Watch
from gpt3core.errors import StoreError
from gpt3core.store.rundir import RunDir


@pytest.fixture
def root(simulated, tmp_path):
    return shutil.copytree(simulated, tmp_path / "runs.v2")


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
    assert following.view.problem.startswith("not fitted: ZeroDivisionError: division by zero (dashboards/live.py:")
    monkeypatch.setattr(live, "_token", lambda _: {}[0])
    following.look()
    assert "KeyError" in following.view.problem
    monkeypatch.undo()
    monkeypatch.setattr(Live, "_fitted", lambda _: View(number=1))
    following.look()
    assert "ZeroDivisionError" in following.view.problem
    said = []
    monkeypatch.setattr(live, "_token", lambda _: (9, 9))
    monkeypatch.setattr(Live, "_fitted", lambda self: said.append(self.view.problem) or View(number=1))
    following.look()
    assert said == [""], "while it is fitted anew nothing is wrong any more"


def test_a_store_changes_with_every_result_and_evaluation(root):
    run, seen = RunDir(root, next((root / "runs").iterdir()).name), []
    result = (run.path / "result.json").read_bytes()
    for change in (
        lambda: None,
        (run.path / "result.json").unlink,
        lambda: (run.path / "result.json").write_bytes(result),
        lambda: run.write_evaluation("another", {"task": ["held_out"], "loss": [1.0]}),
        lambda: os.utime(run.path / "evals", ns=(0, 10**18)),  # as rsync -a leaves it
        lambda: os.utime(run.path / "evals", ns=(0, 10**18 + 1)),
        lambda: shutil.rmtree(root),
    ):
        change()
        seen.append(live._token(root))
    assert len(set(seen)) == len(seen)
    assert live._token(root) == seen[-1]


def test_of_the_curves_those_are_read_that_are_asked_for_and_again_when_they_changed(root, monkeypatch):
    from analysis.runs.selection import select
    from dashboards import data

    runs, read, reader = select(StudySettings(runs=str(root))).runs, [], data.Reader(root)
    curve = data.store.curve
    monkeypatch.setattr(data.store, "curve", lambda *given: read.append(given[1]) or curve(*given))
    first, asked = data.losses(runs, reader), list(runs.table.run_id[1:4])
    assert (list(first), read) == (list(runs.table.run_id), [])
    before = [first[name] for name in asked]
    assert read == asked
    changed = RunDir(root, asked[1])
    changed.write_metrics(changed.new_attempt(), {"step": [9], "tokens": [900], "loss": [1.5]})
    read.clear()
    after = [data.losses(runs, reader)[name] for name in asked]
    assert read == [asked[1]]
    assert [new.equals(old) for new, old in zip(after, before, strict=True)] == [True, False, True]
    fewer = data.losses(replace(runs, table=runs.table.head(2)), reader)
    assert asked[2] not in fewer
    with pytest.raises(KeyError):
        fewer[asked[2]]


def test_of_many_curves_the_last_ones_are_kept(root, monkeypatch):
    from analysis.runs.selection import select
    from dashboards import data

    monkeypatch.setattr(data, "KEPT", 2)
    runs, reader = select(StudySettings(runs=str(root))).runs, data.Reader(root)
    shown = data.losses(runs, reader)
    for name in runs.table.run_id[:3]:
        kept = reader.points(name)
        assert reader.points(name) is kept
    assert reader.points(runs.table.run_id[2]) is kept
    assert not shown[runs.table.run_id[0]].empty


def test_a_curve_that_cannot_be_read_is_said_and_takes_no_page_away(root, studied):
    from dashboards import data
    from dashboards.figures.curves import curves

    runs = replace(studied.runs, source=root)
    damaged, gone = runs.table.run_id[:2]
    for part in (RunDir(root, damaged).attempts()[0] / "metrics").iterdir():
        part.write_bytes(part.read_bytes()[:100])
    shutil.rmtree(RunDir(root, gone).attempts()[0] / "metrics")
    found = data.losses(runs)
    assert [name for name, curve in found.items() if curve.empty] == [damaged, gone]
    assert "2 of 24 runs have no curve, or one that cannot be read." in curves(studied, found).about


def test_curves_that_are_kept_from_fit_to_fit_gather_no_notes_of_views(root):
    from analysis.runs.selection import select
    from dashboards import data

    def noted():
        return sum(type(one) is weakref.ReferenceType for one in gc.get_objects())

    runs, reader, held = select(StudySettings(runs=str(root))).runs, data.Reader(root), []
    for _ in range(2):
        for _ in range(2):
            for curve in data.losses(runs, reader).values():
                assert not curve[["tokens", "loss"]].iloc[1:].tokens.empty  # what figures do
        held.append(noted())
    assert held[1] - held[0] < len(runs.table)


def test_modules_are_no_part_of_what_cycles_are_sought_in(root, monkeypatch):
    """Every request waits for it, once a fit: it went through 140,000 objects of modules that stay."""
    following, sought = Live(StudySettings(runs=str(root))), []

    def looked(_):
        sought.append(len(gc.get_objects()))
        raise SystemExit

    monkeypatch.setattr(Live, "look", looked)
    try:
        with pytest.raises(SystemExit):
            following._follow()
    finally:
        gc.unfreeze()
    assert sought[0] < 10_000


def test_a_store_that_is_away_is_not_taken_for_a_table(root):
    following = Live(StudySettings(runs=str(root)))
    shutil.rmtree(root)
    for page in shell.PAGES:
        shown = str(page.layout(following, shell.taken(page, following, "")[0]))
        assert "come from a table" not in shown, page.PATH
        assert "or a file of" not in shown, page.PATH
        assert "There are no two to compare" not in shown, page.PATH
    with pytest.raises(StoreError, match="holds no isoflop store"):
        Watch(root).names()
