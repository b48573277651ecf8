"""What the store tells without a cluster: sweeps.status, sweeps.diff and sweeps.logs as a user calls them."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from rich.console import Console

from gpt3core import spec as specs
from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from gpt3core.store.sweepdir import SweepDir
from sweeps import diff, logs, status
from sweeps.planning import grid, recipe
from sweeps.watching import follow, last_words, page, standing
from tests.commands import called
from tests.sweeps.fake_cluster import FakeCluster, drive, ids
from tests.sweeps.timed_cluster import Timed, World, driven
from tests.test_house import CODE

ESCAPE = "[red]\x1b[2J[/tmp/x] boom\nsecond line"


@pytest.fixture
def midway(isolated, monkeypatch):
    """A sweep whose driver was killed while two runs were under way and others waited."""
    with monkeypatch.context() as patched:
        world, root = World(patched), isolated / "root"
        chosen = recipe.load(["recipe=laptop", "budgets=[1e11,3.16e11]", "limit.hours=10"])
        cells = grid.build(chosen, "0" * 64)

        class Killed(BaseException):
            pass

        def kill(found):
            if world.now > 1025:
                raise Killed

        cluster = Timed(world, root, lambda run: 20.0)
        with pytest.raises(Killed):
            driven(chosen, cells, root, cluster, watch=kill)
    return root, cells


def said(root, name="laptop", **changes):
    """status.json as its driver would have written it now."""
    sweep = SweepDir(root, name)
    sweep.write_status({**sweep.status(), "time": time.time(), "pid": os.getpid(), **changes})


def run(main, *words, cwd):
    return called(main, list(words), cwd)


# -------------------------------------------------------------------------------------------------------------- status


def test_a_sweep_under_way_is_told_whole(midway):
    root, cells = midway
    said(root)
    found = json.loads(run(status.main, f"runs={root}", "--json", cwd=root).stdout)
    assert found["driver"] == "driving"
    assert found["asked"] == len(cells.runs)
    assert found["done"] + found["counts"]["running"] + found["counts"]["waiting"] == found["asked"]
    assert [live["phase"] for live in found["running"]] == ["training"] * 2
    live = found["running"][0]
    assert live["tokens_per_second"] > 0
    assert live["flops_per_second"] > 0
    assert live["ends"] > live["since"]
    starts = [start for group in found["waiting"] for start in group["starts"]]
    assert all(start >= live["since"] for start in starts)
    assert starts == sorted(starts) or len(found["waiting"]) > 1
    assert found["taken"]["hours"] > 0
    assert found["to_come"]["hours"] > 0
    assert found["limit"] == {"hours": 10}
    assert found["finished"][0]["loss"] == 4.0


@pytest.mark.parametrize(("width", "height"), [(80, 40), (60, 12), (200, 60)])
def test_a_page_fits_its_terminal_and_takes_no_words_for_markup(midway, width, height):
    root, _ = midway
    reasons = {f"d8-{i:012x}": f"{ESCAPE} {i} " + "x" * 300 for i in range(30)}
    said(root, failed=reasons, waiting=[{"reason": ESCAPE, "count": 3, "runs": ["d8-a"], "starts": [None]}] * 40)
    found = standing.look(root, "laptop")
    console = Console(width=width, height=height, record=True, force_terminal=True, color_system=None)
    console.print(page.page(found, width=width, lines=height - 1))
    text = console.export_text()
    assert len(text.splitlines()) <= height - 1
    assert max(map(len, text.splitlines())) <= width
    assert "\x1b[2J" not in text
    assert "[red]" in text and (height < 40 or "failed, waiting" in text)
    assert "2/11 done" in text or "done" in text.splitlines()[0]


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_a_run_under_way_is_one_line_of_whole_cells_with_a_bar(midway, width):
    root, _ = midway
    beside = SweepDir(root, "laptop").status()["under_way"]
    said(root, under_way={run_id: {**more, "resumed": 0.39} for run_id, more in beside.items()})
    found = standing.look(root, "laptop")
    console = Console(width=width, record=True, force_terminal=True, color_system=None)
    console.print(page.page(found, width=width))
    lines = console.export_text().splitlines()
    for live in found.running:
        (line,) = [line for line in lines if line.startswith(live.run_id)]
        assert "…" not in line
        assert "━" in line
        assert "resumed at 39%" in line
    head = next(line for line in lines if line.startswith("running"))
    assert ("GFLOP/s" in head) == (width >= 120)
    assert "ends in" in head


@pytest.mark.parametrize("width", [60, 80, 200])
def test_several_sweeps_are_rows_of_whole_cells(width):
    counts = {"running": 12, "waiting": 1000}
    sweeps = [
        standing.Standing(
            **{"name": name, "time": 0.0, "driver": driver, "asked": 1240, "done": 123, "counts": counts, "ends": 4e3},
            **{"taken": {"hours": 123_456.0}, "unit": "GPU"},
        )
        for name, driver in (("laptop", "driving"), ("laptop-finetuned-copy", "interrupted"))
    ]
    console = Console(width=width, record=True, force_terminal=True, color_system=None)
    console.print(page.overview(sweeps, width=width))
    text = console.export_text()
    assert "…" not in text
    assert text.count("123/1240") == 2
    assert text.count("laptop-finetuned-copy") == 1
    assert ("123,456 GPU-h" in text) == (width == 200)


def test_a_pipe_gets_no_colours_and_whole_reasons(midway):
    root, _ = midway
    said(root, failed={"d8-aaaaaaaaaaaa": "why it failed, at length: " + "word " * 60 + "end"})
    environment = {**os.environ, "PYTHONPATH": str(CODE), "TERM": "xterm-256color"}
    environment.pop("COLUMNS", None)
    words = [sys.executable, "-m", "sweeps.status", f"runs={root}"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment, cwd=CODE)
    assert "\x1b" not in done.stdout
    assert "end" in done.stdout
    narrow = subprocess.run(
        words, capture_output=True, text=True, check=True, cwd=CODE, env={**environment, "COLUMNS": "80"}
    )
    assert max(map(len, narrow.stdout.splitlines())) <= 80


def test_dead_silent_and_ended_drivers_are_told_apart(midway):
    root, _ = midway
    said(root, pid=2**22 + 1)
    assert "DEAD" in run(status.main, f"runs={root}", cwd=root).stdout
    said(root, time=time.time() - 300)
    assert "SILENT" in run(status.main, f"runs={root}", cwd=root).stdout
    said(root, state="ended")
    assert "driver: ended 0" in run(status.main, f"runs={root}", cwd=root).stdout
    said(root, state="failed")
    assert "driver: ended by an error" in run(status.main, f"runs={root}", cwd=root).stdout


def test_what_runs_did_without_their_driver_is_counted(midway):
    root, _ = midway
    said(root, pid=2**22 + 1)
    before = standing.look(root, "laptop")
    one = before.running[0].run_id
    RunDir(root, one).finish({"status": "done"})
    after = standing.look(root, "laptop")
    assert (after.done, after.counts["running"]) == (before.done + 1, before.counts["running"] - 1)
    assert [live.run_id for live in after.running] == [live.run_id for live in before.running[1:]]
    assert after.done + sum(after.counts.values()) == after.asked


def test_an_unreadable_log_hides_no_other_sweep(midway):
    root, _ = midway
    SweepDir(root, "other").path.mkdir()
    SweepDir(root, "other").write_record(SweepDir(root, "laptop").record())
    (root / "sweeps" / "other" / "events.jsonl").mkdir()  # a read of it fails, for root too
    out = run(status.main, f"runs={root}", cwd=root)
    assert (out.returncode, "laptop" in out.stdout, "other" in out.stdout) == (0, True, True)


@pytest.mark.parametrize(
    "garbage", [b"", b"{", b"[1]", b'{"running": [1], "waiting": {"a": 1}, "failed": 7, "time": "x"}']
)
@pytest.mark.parametrize("name", ["status.json", "sweep.json", "events.jsonl"])
def test_damaged_files_leave_out_what_they_would_have_told(midway, name, garbage):
    root, _ = midway
    (root / "sweeps" / "laptop" / name).write_bytes(garbage)
    assert run(status.main, f"runs={root}", "name=laptop", cwd=root).returncode == 0
    json.loads(run(status.main, f"runs={root}", "name=laptop", "--json", cwd=root).stdout)


@pytest.mark.parametrize("number", ["NaN", "1e400", "-1e308", "1" + "0" * 400])
def test_numbers_that_are_none_are_as_if_they_were_not_there(midway, number):
    root, _ = midway
    folder = root / "sweeps" / "laptop"
    was = json.loads((folder / "status.json").read_text())
    hurt = {
        **was,
        "asked": 0,
        "done": 0,
        "time": 0,
        "pid": 0,
        "eta_seconds": 0,
        "counts": dict.fromkeys(was["counts"], 0),
    }
    (folder / "status.json").write_text(json.dumps(hurt).replace(": 0,", f": {number},"))
    with open(folder / "events.jsonl", "a") as log:
        log.write(
            f'{{"event": "finished", "run_id": "{next(iter(was["running"]))}", "time": {number}, "loss": {number}}}\n'
        )
    whole = run(status.main, f"runs={root}", "name=laptop", "--json", cwd=root)
    json.loads(whole.stdout, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))
    for main, words in ((status.main, ()), (logs.main, (next(iter(was["running"])),))):
        assert run(main, f"runs={root}", *words, cwd=root).returncode == 0


@pytest.mark.parametrize(
    "asked", [{"pruned": [1]}, {"few_shot": {"a": "x"}}, {"numerics": 7}, {"evals": {"items": float("inf")}}]
)
def test_a_damaged_record_is_said_in_a_sentence(midway, asked):
    root, _ = midway
    record = root / "sweeps" / "laptop" / "sweep.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), **asked}))
    out = run(status.main, f"runs={root}", cwd=root)
    assert (out.returncode, "sweep.json is not a sweep's record" in " ".join(out.stdout.split())) == (0, True)


def test_several_sweeps_are_a_table_and_names_are_checked(midway):
    root, _ = midway
    SweepDir(root, "other").path.mkdir()
    SweepDir(root, "other").write_record(SweepDir(root, "laptop").record())
    out = run(status.main, f"runs={root}", cwd=root)
    assert out.returncode == 0
    assert all(word in out.stdout for word in ("laptop", "other", "name=SWEEP"))
    assert len(json.loads(run(status.main, f"runs={root}", "--json", cwd=root).stdout)) == 2
    wrong = run(status.main, f"runs={root}", "name=laptpo", cwd=root)
    assert (wrong.returncode, "did you mean laptop" in wrong.stderr) == (2, True)
    for words in (["--jsn"], ["names=x"], ["what"], ["--watch", "--json"], ["name=a", "name=b"]):
        assert run(status.main, f"runs={root}", *words, cwd=root).returncode == 2
    assert run(status.main, f"runs={root / 'nowhere'}", cwd=root).returncode == 2


def test_watching_follows_until_the_sweep_has_ended(midway):
    root, _ = midway
    said(root)
    console = Console(width=100, record=True, force_terminal=False)
    naps = []

    def sleep(seconds):
        naps.append(seconds)
        if len(naps) == 1:
            (root / "sweeps" / "laptop" / "status.json").unlink()  # it may vanish
        elif len(naps) == 2:
            (root / "sweeps" / "laptop" / "status.json").write_bytes(b"{")
        else:
            files.write_json(root / "sweeps" / "laptop" / "status.json", {"state": "ended", "time": time.time()})

    follow.follow(console, lambda width, lines: status._page(root, ["laptop"], width, lines), sleep=sleep)
    text = console.export_text()
    assert len(naps) == 3
    assert "none has spoken" in text
    assert "driver: ended" in text


def test_a_thousand_and_more_runs_keep_the_status_small(isolated, monkeypatch):
    world, root = World(monkeypatch), isolated / "root"
    chosen = recipe.load(["recipe=smoke", "limit.hours=0.001"])
    cells = grid.build(chosen, "0" * 64)
    cells = replace(cells, runs=[replace(run, seed=seed) for seed in range(500) for run in cells.runs])
    outcome, _ = driven(chosen, cells, root, Timed(world, root, lambda run: 1e4))
    assert len(outcome.beyond) == 2000
    path = SweepDir(root, chosen.name).path / "status.json"
    assert path.stat().st_size < 150_000
    found = standing.look(root, chosen.name, world.time())
    assert found.counts["held"] == 2000


# ---------------------------------------------------------------------------------------------------------------- diff


def test_two_runs_differ_by_what_changes_the_weights(smoke):
    drive(smoke, FakeCluster(smoke[2]))
    root, runs = smoke[2], smoke[1].runs
    a = runs[0]
    b = next(run for run in runs if run.budget_flops != a.budget_flops)
    c = next(run for run in runs if run.model.d_model != a.model.d_model)
    out = run(diff.main, a.run_id, c.run_id, f"runs={root}", cwd=root)
    assert out.returncode == 1
    assert f"width (model.d_model): {a.model.d_model} in A, {c.model.d_model} in B" in out.stdout
    assert "two runs" in out.stdout
    found = json.loads(run(diff.main, a.run_id, b.run_id, f"runs={root}", "--json", cwd=root).stdout)
    assert not found["same"]
    assert {d["field"] for d in found["hashed"]} == {line.split(":")[0] for line in specs.explain(a, b)}
    assert "budget_flops" in {d["field"] for d in found["beside"]}


def test_one_run_in_two_stores_is_one_run_whatever_differs_beside(smoke, tmp_path):
    root, spec = smoke[2], smoke[1].runs[0]
    drive(smoke, FakeCluster(root))
    moved = replace(spec, data=replace(spec.data, corpus="/elsewhere"))
    other = RunDir(tmp_path / "other", spec.run_id)
    other.create(moved)
    other.finish({"status": "done", "precision": "bf16"})
    other.event(other.new_attempt(), "start", precision="bf16", step=0)
    RunDir(root, spec.run_id).event(RunDir(root, spec.run_id).new_attempt(), "start", precision="fp32", step=0)
    out = run(diff.main, str(RunDir(root, spec.run_id).path), str(other.path), cwd=root)
    assert out.returncode == 0
    assert "the same run, in two stores" in out.stdout
    assert "where the text lies (data.corpus): starter in A, /elsewhere in B" in out.stdout
    assert "precision that it has (precision): fp32 in A, bf16 in B" in out.stdout
    assert "evaluations made" in out.stdout


def test_words_that_name_no_two_runs_are_refused(smoke, tmp_path):
    root = smoke[2]
    drive(smoke, FakeCluster(root))
    one = ids(smoke)[0]
    for words, expected in (
        ([one], "1 of two runs"),
        ([one, "d99-000"], "no run of"),
        ([one, str(tmp_path)], "no run's folder"),
        ([one, one, one], "takes"),
    ):
        out = run(diff.main, *words, f"runs={root}", cwd=root)
        assert out.returncode == 2
        assert expected in out.stderr


# ---------------------------------------------------------------------------------------------------------------- logs


@pytest.fixture
def failed(smoke, tmp_path, monkeypatch):
    """A run with two attempts, a traceback, a tail, and the output of its worker."""
    root, one = smoke[2], ids(smoke)[0]
    drive(smoke, FakeCluster(root, lambda run_id, n: "fatal" if run_id == one else "done"))
    folder = RunDir(root, one)
    for number in range(2):
        attempt = folder.new_attempt()
        folder.event(attempt, "start", step=5 * number, host=os.uname().nodename, pid=4242 + number)
        for step in range(3):
            files.append_line(
                attempt / "tail.jsonl",
                {"phase": "training", "step": step, "steps": 9, "loss": 5.0, "tokens_per_second": 1e3},
            )
    SweepDir(root, smoke[0].name).event("failed", run_id=one, error=ESCAPE, fatal=True, traceback="Traceback\n  boom")
    session = tmp_path / "ray" / "logs"
    session.mkdir(parents=True)
    (session / "worker-0a-01-4243.err").write_text("fine so far\nTerminated: out of memory\n")
    monkeypatch.setattr(last_words, "LOGS", (str(session),))
    return root, one


def test_a_run_s_events_and_its_worker_s_last_words(failed):
    root, one = failed
    out = run(logs.main, one, f"runs={root}", "--tail", "2", cwd=root)
    assert out.returncode == 0
    for words in ("FAILED (for good", "boom", "attempt 1  start", "attempt 2  start", "step 2 of 9", "out of memory"):
        assert words in out.stdout
    assert "step 0 of 9" not in out.stdout, "two lines were asked for"
    assert "\x1b" not in out.stdout
    first = run(logs.main, one, f"runs={root}", "attempt=1", cwd=root).stdout
    assert "attempt 1  start" in first
    assert "attempt 2" not in first
    assert "out of memory" not in first


def test_unknown_runs_and_attempts_name_the_nearest(failed):
    root, one = failed
    near = run(logs.main, one[:-2] + "zz", f"runs={root}", cwd=root)
    assert (near.returncode, one in near.stderr) == (2, True)
    for words, expected in (
        ([one, "--attempt", "7"], "it has 1, 2"),
        ([one, "--tail=x"], "whole number"),
        ([one, "--tail"], "needs a value"),
        ([], "which run"),
    ):
        out = run(logs.main, f"runs={root}", *words, cwd=root)
        assert (out.returncode, expected in out.stderr) == (2, True), out.stderr


def test_following_a_run_ends_with_it(failed, capsys):
    root, one = failed
    folder, naps = RunDir(root, one), []

    def sleep(seconds):
        naps.append(seconds)
        if len(naps) == 1:
            folder.event(folder.attempts()[-1], "rolled back", step=3)
        else:
            folder.finish({"status": "done"})

    logs.follow(root, folder, None, sleep=sleep)
    out = capsys.readouterr().out
    assert "rolled back: step 3" in out
    assert len(naps) == 2
