"""The table of a store's runs: what it says is what other readers say, and only what changed is read again."""

import json
import os
import shlex
import shutil
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from analysis.runs import store
from gpt3core import costs
from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from gpt3core.store.sweepdir import SweepDir
from sweeps.watching import incidents, last_words, loss_trace, reproduce, run_table, standing, sweep_members
from sweeps.watching.run_table import RunTable
from tests.analysis.synthetic import make_store
from tests.sweeps.test_watching import ESCAPE, midway, said  # noqa: F401 (a fixture)

OF_OTHER_LADDERS = (
    ["recipe=laptop", "budgets=[1e11,1e12]"],
    ["recipe=gpt3", "name=laptop", "sizes=[125M,1.3B]"],
    ["recipe=depth", "name=laptop"],
)


@pytest.fixture
def root(simulated, tmp_path):
    """A copy of a finished sweep."""
    return shutil.copytree(simulated, tmp_path / "copy")


def test_finished_runs_are_those_of_the_tidy_table(root):
    view = RunTable(root).look()
    tidy = store.load(root).table.set_index("run_id")
    assert [row.run_id for row in view.rows] == sorted(tidy.index)
    for row in view.rows:
        known = tidy.loc[row.run_id]
        assert (row.status, row.sweep, row.size) == ("done", "laptop", known["size"])
        assert row.loss == known.loss
        assert row.n == known.params_nonembedding
        assert row.flops == pytest.approx(known.flops_model)
        assert (row.tokens, row.lr, row.seed, row.d_model) == (known.tokens, known.lr, known.seed, known.d_model)
        assert row.parameters == costs.params(RunDir(root, row.run_id).spec().model).total


def test_nothing_is_read_again_until_something_changes(root, monkeypatch):
    table = RunTable(root)
    first = table.look()
    opened = []
    monkeypatch.setattr(files, "read_json", lambda path: opened.append(path) or {})
    monkeypatch.setattr(run_table.metrics, "rows", lambda path, columns: opened.append(path) or [])
    assert table.look() is first
    assert opened == []


def test_a_new_run_a_result_and_one_that_goes_are_seen(root):
    run_id = RunTable(root).look().rows[0].run_id
    result = RunDir(root, run_id).path / "result.json"
    content = result.read_bytes()
    result.unlink()
    table = RunTable(root)
    before = table.look()
    assert before.row(run_id).status == "not ended"
    result.write_bytes(content)
    after = table.look()
    assert after.number == before.number + 1
    assert after.row(run_id).status == "done"
    assert [row for row in after.rows if row.run_id != run_id] == [row for row in before.rows if row.run_id != run_id]
    spec = RunDir(root, run_id).spec()
    other = replace(spec, seed=77)
    RunDir(root, other.run_id).create(other)
    assert table.look().row(other.run_id).seed == 77
    shutil.rmtree(root / "runs" / other.run_id)
    assert table.look().row(other.run_id) is None


def test_evaluations_are_read_a_few_at_a_look_and_all_in_the_end(root, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(run_table, "time", SimpleNamespace(monotonic=lambda: clock.now, time=time.time))
    rows = run_table.metrics.rows

    def slow(path, columns):
        clock.now += 0.3 * run_table.LOOK_SECONDS
        return rows(path, columns)

    monkeypatch.setattr(run_table.metrics, "rows", slow)
    table = RunTable(root)
    left = [table.look().unread for _ in range(8)]
    assert left[0] == len(table.view.rows) - 4
    assert left == sorted(left, reverse=True)
    assert left[-1] == 0
    assert all(row.loss is not None for row in table.view.rows)


def test_runs_under_way_waiting_and_failed_say_so(midway):  # noqa: F811
    root, cells = midway
    status = SweepDir(root, "laptop").status()
    lost = next(iter(status["waiting"][0]["runs"]))
    said(root, failed={lost: ESCAPE})
    table = RunTable(root)
    view = table.look()
    assert len(view.rows) <= len(cells.runs)
    by = {state: [row for row in view.rows if row.status == state] for state in ("done", "running", "failed")}
    assert len(by["done"]) == status["done"]
    assert all(row.loss == 4.0 for row in by["done"])
    assert {row.run_id for row in by["running"]} == set(status["running"])
    assert all(0 < row.share <= 1 and row.tokens_per_second > 0 for row in by["running"])
    if by["failed"]:
        assert "\x1b" not in by["failed"][0].note
        assert "[red]" in by["failed"][0].note
    said(root, pid=2**22 + 1)
    dead = table.look()
    assert not [row for row in dead.rows if row.status == "running"], "nobody drives it any more"


def test_of_a_log_only_what_is_new_is_read(root, monkeypatch):
    sweep = SweepDir(root, "laptop")
    ids = [path.name for path in (root / "runs").iterdir()]
    members = sweep_members.Members(root, "laptop")
    members.look(0.0)
    sweep.event("finished", run_id=ids[0], status="done", loss=3.5)
    parsed, lengths = files.parsed, []
    monkeypatch.setattr(files, "parsed", lambda data, having=(): lengths.append(len(data)) or parsed(data, having))
    assert members.look(0.0)
    assert members.members[ids[0]].loss == 3.5
    assert sum(lengths) < 200
    with open(sweep.path / "events.jsonl", "ab") as file:
        file.write(json.dumps({"event": "finished", "run_id": ids[1], "loss": 3.0}).encode())  # torn: no end of line
    assert members.look(0.0)
    assert members.members[ids[1]].loss is None
    with open(sweep.path / "events.jsonl", "ab") as file:
        file.write(b"\n")
    assert members.look(0.0)
    assert members.members[ids[1]].loss == 3.0


def test_a_file_of_a_sweep_that_could_not_be_read_is_read_at_the_next_look(root, monkeypatch):
    """The stamps of the others say nothing of it: a status that was torn, a log that did not answer."""
    sweep = SweepDir(root, "laptop")
    run_id = next(path.name for path in (root / "runs").iterdir())
    members = sweep_members.Members(root, "laptop")
    record = SweepDir.record

    def away(_):
        raise OSError("stale file handle")

    monkeypatch.setattr(SweepDir, "record", away)
    sweep.event("finished", run_id=run_id, status="done", loss=3.5)
    members.look(0.0)
    assert members.members == {}
    monkeypatch.setattr(SweepDir, "record", record)
    assert members.look(0.0)
    assert members.members[run_id].loss == 3.5
    assert not members.look(0.0), "nothing changed"


@pytest.mark.usefixtures("at_once")
def test_a_pipe_in_place_of_a_log_is_not_waited_for(root):
    log = SweepDir(root, "laptop").path / "events.jsonl"
    members = sweep_members.Members(root, "laptop")
    members.look(0.0)
    log.unlink()
    os.mkfifo(log)
    before = members.members
    assert not members.look(0.0)
    assert members.members == before
    assert last_words._text_tail(log, 5) == ()


def test_all_of_a_store_is_read_for_whoever_needs_all(root, monkeypatch):
    monkeypatch.setattr(run_table, "RUN_SECONDS", -1.0)  # one look gets no further
    assert RunTable(root).whole().unseen == len(list((root / "runs").iterdir()))
    looks = iter([-1.0, 9.0])
    found = RunTable._found

    def slow(table):
        monkeypatch.setattr(run_table, "RUN_SECONDS", next(looks, 9.0))
        return found(table)

    monkeypatch.setattr(RunTable, "_found", slow)
    view = RunTable(root).whole()
    assert (view.unseen, len(view.rows)) == (0, len(list((root / "runs").iterdir())))


@pytest.mark.parametrize("garbage", [b"", b"{", b"[1]", b'{"model": 3}', b'{"status": 7}'])
@pytest.mark.parametrize("name", ["spec.json", "result.json"])
def test_what_is_damaged_is_told_on_its_row_and_hides_no_other(root, name, garbage):
    run_id = next(path.name for path in (root / "runs").iterdir())
    path = RunDir(root, run_id).path / name
    path.write_bytes(garbage)
    view = RunTable(root).look()
    row = view.row(run_id)
    assert len(view.rows) == len(list((root / "runs").iterdir()))
    assert row.note or row.status not in ("", "done")
    assert sum(other.status == "done" and not other.note for other in view.rows) >= len(view.rows) - 1


@pytest.mark.parametrize("garbage", [b"{", b'{"running": [1], "waiting": {"a": 1}, "failed": 7, "time": "x"}'])
@pytest.mark.parametrize("name", ["status.json", "sweep.json", "events.jsonl"])
def test_a_damaged_sweep_leaves_its_runs(root, name, garbage):
    SweepDir(root, "laptop").write_status({"state": "driving", "time": 1.0})
    (root / "sweeps" / "laptop" / name).write_bytes(garbage)
    view = RunTable(root).look()
    assert all(row.loss is not None for row in view.rows)


def test_a_store_that_cannot_be_read_keeps_what_was_seen(root):
    table = RunTable(root)
    rows = table.look().rows
    (root / "runs").rename(root / "away")
    view = table.look()
    assert view.rows == rows
    assert "cannot be read now" in view.problem
    (root / "away").rename(root / "runs")
    assert table.look().problem == ""


def test_so_does_how_the_sweep_stands(root):
    """A run that cannot be seen is none that is not done."""
    assert standing.look(root, "laptop").remarks == ()
    (root / "runs").rename(root / "away")
    for _ in range(2):
        (remark,) = standing.look(root, "laptop").remarks
        assert remark.startswith(f"{root / 'runs'} cannot be read now (")
        assert remark.endswith("): how many runs are done is not known")
        (root / "runs").touch()
    (root / "runs").unlink()
    (root / "away").rename(root / "runs")
    found = standing.look(root, "laptop")
    assert (found.remarks, found.done) == ((), found.asked)


def test_a_specification_that_could_not_be_read_is_read_when_it_can_be(root):
    run = RunDir(root, next(path.name for path in (root / "runs").iterdir()))
    table, whole = RunTable(root), RunTable(root).look().row(run.run_id)
    (run.path / "spec.json").rename(run.path / "away")
    (run.path / "spec.json").mkdir()
    row = table.look().row(run.run_id)
    assert "cannot be read now" in row.note
    assert row.n is None
    (run.path / "spec.json").rmdir()
    (run.path / "away").rename(run.path / "spec.json")
    assert table.look().row(run.run_id) == whole
    number = table.view.number
    assert table.look().number == number


def test_links_that_lead_out_of_a_store_show_nothing_of_where_they_lead(root):
    runs = root / "runs"
    for name, to in (("etc", "/etc"), ("loop", runs), ("dangling", "nowhere")):
        (runs / name).symlink_to(to)
    (runs / "d9-x").mkdir()
    for name in ("spec.json", "result.json"):
        (runs / "d9-x" / name).symlink_to("/etc/passwd")
    view = RunTable(root).look()
    new = {row.run_id for row in view.rows} - {row.run_id for row in view.rows if row.status == "done"}
    assert new == {"d9-x"}, "a folder without a specification is no run"
    assert "root:" not in repr(view.row("d9-x"))
    assert "is not readable JSON" in view.row("d9-x").note


def test_a_curve_in_few_numbers_keeps_its_mean_and_the_later_attempt(root):
    run = RunDir(root, RunTable(root).look().rows[0].run_id)
    second = run.new_attempt()
    steps = list(range(6, 206))
    run.write_metrics(second, {"step": steps, "tokens": steps, "loss": [float(step) for step in steps]})
    curve = run.curve(("step", "loss"))
    found = loss_trace.losses(run, points=41)
    assert len(found) == 41
    assert sum(found) / 41 == pytest.approx(curve.loss.mean())  # 205 steps, five each
    before = loss_trace.stamp(run)
    run.event(second, "anomaly", step=9, reason="the loss is nan\x1b[2J", action="skip")
    assert loss_trace.stamp(run) != before
    assert incidents.sentences(incidents.read(run)) == ["anomaly at step 9: the loss is nan [2J; skip"]


@pytest.mark.parametrize(
    "settings",
    [
        ["recipe=laptop", "budgets=[1e11]", "replicas=2"],
        *(pytest.param(words, marks=pytest.mark.soak) for words in OF_OTHER_LADDERS),
    ],
)
def test_the_command_that_reproduces_a_run_asks_for_it_alone(isolated, settings):
    from sweeps.planning import grid, recipe

    root = isolated / "root"
    name = next((s.split("=")[1] for s in settings if s.startswith("recipe=")), "laptop")
    make_store(root, *settings[1:], asked=name, evals=False)
    sha = "0" * 64
    for row in RunTable(root).look().rows[:2]:
        command, remark = reproduce.command(root, row.run_id, "laptop")
        words = [word for word in shlex.split(command) if "=" in word and not word.startswith("ISOFLOP")]
        assert [run.run_id for run in grid.build(recipe.load(words), sha).runs] == [row.run_id]
        assert "alone" in remark
    assert reproduce.command(root, row.run_id, "")[0] == ""
    assert "is not a specification" in reproduce.command(root, "nobody", "laptop")[1]
