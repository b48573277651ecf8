"""What the pages of runs and sweeps are made of, without a browser: runs beside each other, one opened, curves."""

import base64
import io
import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import threading
import time
import xml.etree.ElementTree as ET
from dataclasses import replace

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import csv
from pyarrow import parquet as pq

from dashboards import curve_export, one_run, side_by_side, watch
from gpt3core import spec as specs
from gpt3core.errors import StoreError
from gpt3core.store.rundir import RunDir
from gpt3core.store.sweepdir import SweepDir
from gpt3core.words import duration
from sweeps.watching import said, standing
from sweeps.watching.run_table import RunTable
from tests.sweeps.test_watching import midway  # noqa: F401 (a fixture)
from tests.sweeps.test_watching import said as write_status


@pytest.fixture
def root(simulated, tmp_path):
    """A copy of a finished sweep."""
    return shutil.copytree(simulated, tmp_path / "copy")


def test_runs_beside_each_other_show_what_differs_and_only_that(root):
    rows = RunTable(root).look().rows
    runs = [RunDir(root, row.run_id) for row in (rows[0], rows[5], rows[9])]
    found = side_by_side.compare(runs)
    flat = [specs.flat(specs.as_dict(run.spec())) for run in runs]
    differing = {name for name in flat[0] if len({repr(one[name]) for one in flat}) > 1}
    told = {line.field: line.values for line in (*found.weights, *found.beside)}
    assert differing <= set(told)
    assert {line.field for line in found.same} == set(flat[0]) - differing
    assert told["tokens"] == tuple(f"{one['tokens']:,}" for one in flat)
    assert "budget_flops" in {line.field for line in found.beside}, "a budget has no say in the weights"
    same = side_by_side.compare([runs[0], runs[0]])
    assert (same.weights, same.beside) == ((), ())


def test_an_opened_run_tells_its_scores_its_log_and_what_it_met(root):
    row = RunTable(root).look().rows[0]
    run = RunDir(root, row.run_id)
    attempt = run.attempts()[-1]
    for i in range(one_run.MOST_SAID + 5):
        run.event(attempt, "note", number=i)
    run.event(attempt, "anomaly", step=7, reason="<script>alert(1)</script>", action="skip")
    found = one_run.read(root, row)
    assert (len(found.said), found.unsaid) == (one_run.MOST_SAID, 6)
    assert found.met == ("anomaly at step 7: <script>alert(1)</script>; skip",)
    table = run.evaluation(next((run.path / "evals").glob("*.parquet")).stem)
    assert found.held_out.startswith(f"loss {table.loss[0]:.4f} ± {table.loss_se[0]:.4f}")
    asked = table[table.task != "held_out"]
    assert [cells[0] for cells in found.measured] == list(asked.task)
    assert [cells[1] for cells in found.measured] == [str(shots) for shots in asked.shots]
    assert ("status", "done") in found.facts
    (run.path / "evals" / "torn.parquet").write_bytes(b"PAR1")
    assert one_run.read(root, row).held_out == found.held_out


def test_names_from_an_address_are_looked_up_and_never_opened():
    known = ["d8-aaaaaaaaaaaa", "d16-bbbbbbbbbbbb"]
    asked = ["d16-bbbbbbbbbbbb", "../../etc/passwd", "", "d16-bbbbbbbbbbbb", "d8"]
    assert one_run.names(asked, known) == (["d16-bbbbbbbbbbbb"], ["../../etc/passwd", "d8"])


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_exported_curves_are_the_stores_row_for_row(root, kind):
    ids = [row.run_id for row in RunTable(root).look().rows]
    twice = RunDir(root, ids[2])
    steps = list(range(8, 14))  # a second attempt that goes on from step 7
    columns = {"step": steps, "tokens": [100 * s for s in steps], "loss": [1 / s for s in steps]}
    twice.write_metrics(twice.new_attempt(), {**columns, "lr": [1e-3] * 6, "grad_norm": [float("nan")] * 6})
    shutil.rmtree(RunDir(root, ids[4]).path / "attempt-001")
    data = io.BytesIO(b"".join(curve_export.stream(root, [*ids, "nobody"], kind)))
    table = (csv.read_csv if kind == "csv" else pq.read_table)(data).to_pandas()
    known = [RunDir(root, run_id).curve(("step", "tokens", "loss", "lr")).assign(run_id=run_id) for run_id in ids]
    expected = pd.concat(known, ignore_index=True)
    pd.testing.assert_frame_equal(
        table[["step", "tokens", "loss", "lr", "run_id"]], expected, check_dtype=False, check_exact=True
    )
    assert table[table.run_id == ids[2]].grad_norm.notna().sum() == 7, "the later attempt's rows hold"


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_run_that_cannot_be_exported_is_named_in_the_file(root, kind):
    """Damaged, or with a column that is none of its kind: the file says which, and has all of the others."""
    ids = [row.run_id for row in RunTable(root).look().rows][:4]
    first = RunDir(root, ids[0]).attempts()[-1] / "metrics"
    next(first.iterdir()).write_bytes(b"PAR1")
    odd = next((RunDir(root, ids[2]).attempts()[-1] / "metrics").iterdir())
    table = pq.read_table(odd)
    words = table.set_column(table.column_names.index("loss"), "loss", pa.array(["high"] * len(table)))
    pq.write_table(words.replace_schema_metadata(None), odd)
    data = io.BytesIO(b"".join(curve_export.stream(root, ids, kind)))
    found = (csv.read_csv if kind == "csv" else pq.read_table)(data).to_pandas()
    assert found[found.step.isna()].run_id.tolist() == [ids[0], ids[2]]
    assert found[found.step.notna()].run_id.unique().tolist() == [ids[1], ids[3]]


def test_an_export_of_a_store_that_cannot_be_read_whole_is_refused(root, monkeypatch):
    from analysis.settings import StudySettings
    from dashboards.live import Live
    from dashboards.pages import shell

    client = shell.app(Live(StudySettings(runs=str(root)))).server.test_client()
    whole = client.get("/runs/curves.csv")
    assert (whole.status_code, whole.data.count(b"\n")) == (200, 1 + 10 * len(RunTable(root).look().rows))
    os.rename(root / "runs", root / "away")
    (root / "runs").write_text("")
    refused = client.get("/runs/curves.csv")
    assert refused.status_code == 503
    assert b"cannot be read now" in refused.data


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_process_of_its_own_makes_the_same_file(root, kind):
    ids = [row.run_id for row in RunTable(root).look().rows]
    assert b"".join(curve_export.by_a_process(root, ids, kind)) == b"".join(curve_export.stream(root, ids, kind))


def test_a_reader_who_leaves_ends_the_process_of_the_export(root, monkeypatch):
    started = []
    start = subprocess.Popen
    monkeypatch.setattr(curve_export.subprocess, "Popen", lambda *a, **k: started.append(start(*a, **k)) or started[-1])
    monkeypatch.setattr(curve_export.sys, "executable", "/bin/sh")
    monkeypatch.setattr(curve_export, "COMMAND", ("-c", "echo begun; sleep 600"))
    for begun in (True, False):
        pieces = curve_export.by_a_process(root, [], "csv")
        assert not begun or next(pieces)
        pieces.close()
        assert started.pop().returncode == -signal.SIGKILL


def test_an_export_that_fails_is_no_whole_file(root, monkeypatch):
    monkeypatch.setattr(curve_export.sys, "executable", "/bin/sh")
    monkeypatch.setattr(curve_export, "COMMAND", ("-c", "echo half; exit 3"))
    pieces = curve_export.by_a_process(root, ["x"], "csv")
    assert next(pieces)
    with pytest.raises(StoreError, match="ended with status 3"):
        next(pieces)


@pytest.mark.parametrize(("shell", "why"), [("/bin/sh", b"ended with status 3"), ("/bin/none", b"No such file")])
def test_an_export_that_cannot_begin_is_refused_in_a_sentence(root, monkeypatch, shell, why):
    from analysis.settings import StudySettings
    from dashboards.live import Live
    from dashboards.pages import shell as pages

    client = pages.app(Live(StudySettings(runs=str(root)))).server.test_client()
    monkeypatch.setattr(curve_export.sys, "executable", shell)
    monkeypatch.setattr(curve_export, "COMMAND", ("-c", "exit 3"))
    refused = client.get("/runs/curves.csv")
    assert refused.status_code == 503
    assert why in refused.data


def test_an_export_asks_for_no_larger_pipe_than_a_user_may_have(root, monkeypatch):
    """The kernel refuses one where pipes of that user hold enough pages."""
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    monkeypatch.setattr(curve_export.sys, "executable", "/bin/sh")
    monkeypatch.setattr(curve_export, "COMMAND", ("-c", "echo whole"))
    assert b"".join(curve_export.by_a_process(root, [], "csv")) == b"whole\n"


def test_an_export_is_sent_as_it_is_read(root, monkeypatch):
    monkeypatch.setattr(curve_export, "CHUNK_ROWS", 25)
    ids = [row.run_id for row in RunTable(root).look().rows]
    pieces = list(curve_export.stream(root, ids, "parquet"))
    assert len(pieces) == -(-10 * len(ids) // 30) + (10 * len(ids) % 30 == 0)
    assert len(pq.read_table(io.BytesIO(b"".join(pieces)))) == 10 * len(ids)


def test_a_sweep_is_watched_without_reading_what_did_not_change(midway, monkeypatch):  # noqa: F811
    root, _ = midway
    write_status(root)
    running = standing.look(root, "laptop").running
    for live in running:
        run = RunDir(root, live.run_id)
        attempt = run.attempts()[-1] if run.attempts() else run.new_attempt()
        run.write_metrics(attempt, {"step": [1, 2, 3], "tokens": [1, 2, 3], "loss": [4.0, 3.0, 3.5]})
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.0)
    following = watch.Watch(root)
    assert following.names() == ["laptop"]
    first = following.look("laptop")
    assert {run_id: under.losses for run_id, under in first.under.items()} == {
        live.run_id: (4.0, 3.0, 3.5) for live in running
    }
    monkeypatch.setattr(watch.loss_trace, "losses", lambda run: pytest.fail("nothing changed"))
    second = following.look("laptop")
    assert second.under == first.under
    assert second.standing.time > first.standing.time


def test_readers_of_two_sweeps_do_not_read_anew_what_the_other_has(midway, monkeypatch):  # noqa: F811
    root, _ = midway
    write_status(root)
    shutil.copytree(root / "sweeps" / "laptop", root / "sweeps" / "other")
    looks, reads = [], []
    look, read = standing.look, watch.history.read
    monkeypatch.setattr(standing, "look", lambda *given: looks.append(given[1]) or look(*given))
    monkeypatch.setattr(watch.history, "read", lambda *given: reads.append(given[1].name) or read(*given))
    following = watch.Watch(root)
    first = [following.past(name) for name in ("laptop", "other")]
    again = [following.past(name) for name in ("laptop", "other")]
    assert again == first
    assert (looks, reads) == (["laptop", "other"], ["laptop", "other"])
    assert first[0].number != first[1].number
    monkeypatch.setattr(watch, "SWEEPS", 1)
    following.past("laptop")
    assert following.past("other").number == 3, "let go of, read anew, and drawn anew"


def test_many_pages_share_one_look(midway, monkeypatch):  # noqa: F811
    root, _ = midway
    looks = []
    look = standing.look
    monkeypatch.setattr(standing, "look", lambda *given: looks.append(given) or look(*given))
    following = watch.Watch(root)
    pages = [threading.Thread(target=following.look, args=("laptop",)) for _ in range(5)]
    for page in pages:
        page.start()
    for page in pages:
        page.join()
    assert len(looks) == 1


def test_a_clock_that_is_set_back_does_not_stop_the_page_for_as_long(root, monkeypatch):
    pytest.importorskip("dash")
    from dashboards import live
    from dashboards.pages import shell

    following, clock = watch.Watch(root), time.time
    before = following.look("laptop").standing, following.past("laptop").number
    monkeypatch.setattr(time, "time", lambda: clock() - 3600)
    after = following.look("laptop").standing, following.past("laptop").number
    assert after[0].time < before[0].time
    assert after[1] == before[1], "what is over stays as it was read"
    assert shell.said(live.View(number=1, made=clock(), fitting=clock())).endswith("fitting new results for 0 s")


def test_a_sparkline_is_a_picture_of_its_values():
    address = watch.sparkline([3.0, 1.0, 2.0])
    drawn = ET.fromstring(base64.b64decode(address.removeprefix("data:image/svg+xml;base64,")))
    points = [tuple(map(float, point.split(","))) for point in drawn[0].get("points").split()]
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    heights = [y for _, y in points]
    assert heights[0] < heights[2] < heights[1], "the lowest value is at the bottom"
    assert watch.sparkline([3.0]) == watch.sparkline([]) == ""
    assert watch.sparkline([2.0, 2.0])


def test_an_end_is_told_with_the_interval_that_ended_runs_bear_out(midway):  # noqa: F811
    root, _ = midway
    write_status(root, eta_seconds=1000.0, estimates={"runs": 5, "first": 1.0, "first_error": 0.2, "error": 0.1})
    sweep = standing.look(root, "laptop")
    low, high = said.left_between(sweep)
    left = sweep.ends - sweep.time
    # errors of a normal distribution whose absolute values have the median 0.1
    normal = statistics.NormalDist()
    factor = math.exp(0.1 * normal.inv_cdf(0.95) / normal.inv_cdf(0.75))
    assert (low, high) == pytest.approx((left / factor, left * factor), rel=1e-5)
    assert f"90%: {duration(low)} to {duration(high)}" in said.ends(sweep)
    silent = replace(sweep, spoke=sweep.time - 600.0, ends=sweep.time + 400.0)
    assert said.left_between(silent) == pytest.approx((1000 / factor - 600, 1000 * factor - 600), rel=1e-5)
    write_status(root, eta_seconds=1000.0, estimates={"runs": 2, "first": 1.0, "error": 0.1})
    assert said.left_between(standing.look(root, "laptop")) is None
    late = replace(sweep, ends=sweep.time - 90.0)
    assert said.left_between(late) is None
    assert said.ends(late).startswith(f"overdue by {said.duration(90.0)}: ")
    assert "90%" not in said.ends(late)
    SweepDir(root, "laptop").write_status({"state": "ended", "time": 1.0})
    assert said.ends(standing.look(root, "laptop")) == ""


@pytest.mark.parametrize(
    "query",
    ["", "?sort=x,-loss&page=-3&columns=7&group=z&run=../x&chosen=,,a", "?columns=[[1]]&page=99999999999&filter=%22"],
)
def test_a_page_takes_any_address(root, query):
    pytest.importorskip("dash")
    from analysis.settings import StudySettings
    from dashboards.live import Live
    from dashboards.pages import runs, shell, sweep

    live = Live(StudySettings(runs=str(root)))
    for page in (runs, sweep):
        assert page.layout(live, shell.taken(page, live, query)[0]).to_plotly_json()
        assert page.layout(live, shell.filled(page.STATE, query)[0]).to_plotly_json()
    assert set(runs.shown_columns('["loss",3,"colour",["n"]]')) == {"loss"}
    table = Live(StudySettings(runs=str(root / "runs.csv")))
    assert "table" in str(runs.layout(table, runs.STATE))
    assert "table" in str(sweep.layout(table, sweep.STATE))


def test_a_sweep_is_drawn_with_its_reasons_as_text(midway):  # noqa: F811
    pytest.importorskip("dash")
    from dashboards.pages import sweep

    root, _ = midway
    write_status(root, failed={"d8-aaaaaaaaaaaa": "<b>out</b> of memory"}, damage=["a disk is full"])
    shown = str(sweep.drawn(watch.Watch(root).look("laptop")))
    for words in (
        "2 of 11 done",
        "<b>out</b> of memory",
        "a disk is full",
        "taken: ",
        "Running (2)",
        "ends in",
        "Failed, waiting",
    ):
        assert words in shown
    assert "/runs?run=d8-aaaaaaaaaaaa" in shown, "a run that failed is opened by a click"
    assert any(other.when for other in said.others(standing.look(root, "laptop")) if other.state == "waiting")
    write_status(root, pid=2**22 + 1)
    waiting = [other for other in said.others(standing.look(root, "laptop")) if other.state == "waiting"]
    assert {other.when for other in waiting} == {""}, "nothing starts without a driver"


def test_a_filter_whose_answer_a_tick_overtook_is_applied_by_the_tick(root):
    pytest.importorskip("dash")
    import dash

    from analysis.settings import StudySettings
    from dashboards.live import Live
    from dashboards.pages import runs

    app = dash.Dash("test", suppress_callback_exceptions=True)
    app.layout = dash.html.Div()
    runs.register(app, Live(StudySettings(runs=str(root))))
    asked = app.server.test_client()
    wanted = next(d for d in asked.get("/_dash-dependencies").json if "runs-table.data" in d["output"])

    def answer(**values):
        """What the table's callback says to the clock."""
        sides = {}
        for side in ("inputs", "state"):
            names = [json.loads(p["id"])["state"] if p["id"][0] == "{" else p["property"] for p in wanted[side]]
            sides[side] = [{**p, "value": values.get(name)} for p, name in zip(wanted[side], names, strict=True)]
        outputs = [
            dict(zip(("id", "property"), o.rsplit(".", 1), strict=True)) for o in wanted["output"][2:-2].split("...")
        ]
        for side in (outputs, *sides.values()):
            for part in side:
                part["id"] = json.loads(part["id"]) if part["id"][0] == "{" else part["id"]
        body = {"output": wanted["output"], "outputs": outputs, "changedPropIds": ["tick.n_intervals"], **sides}
        return asked.post("/_dash-update-component", json=body)

    shown = answer().json["response"]["runs-shown"]["data"]
    seen = {"data": shown, "page": "1"}
    assert answer(**seen).status_code == 204, "nothing is sent where nothing changed"
    found = answer(**seen, filter="size=d64").json["response"]["runs-table"]["data"]["rows"]
    assert {row["id"].split("-")[0] for row in found} == {"d64"}
    beyond = answer(page="9").json["response"]
    assert beyond["runs-table"]["data"]["page"] == beyond["runs-table"]["data"]["pages"] == 1
    assert " page=9: there is 1; the last one is shown" in str(beyond["runs-count"]["children"])
    assert beyond['{"state":"page"}'] == {"value": "9"}, "it is still asked for: more runs may come"
    seen = {"data": beyond["runs-shown"]["data"], "page": "9"}
    assert answer(**seen).status_code == 204
