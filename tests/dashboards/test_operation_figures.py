"""Figures of operation: what is drawn is what the history says; spikes are those that training itself would call so."""

import itertools
import json
import math
import time
from dataclasses import replace
from datetime import datetime

import numpy as np
import pandas as pd
import pytest

from dashboards.figures import timeline, usage
from dashboards.figures.spikes import spiked, spikes
from dashboards.figures.trunks import trunks
from gpt3core import costs
from gpt3core.anomaly import AnomalySpec
from gpt3core.store.rundir import RunDir
from gpt3core.train.anomaly import Guard
from sweeps.watching import history as past
from sweeps.watching import pace, speed, standing
from sweeps.watching.history import DONE, FAILED, RUNNING, STOPPED, Coming, Has, History, Stay
from sweeps.watching.incidents import Incident
from sweeps.watching.speed import Speed
from tests.conftest import make_run
from tests.dashboards.test_figure_rows import lost

pytestmark = pytest.mark.xdist_group("study")
EVIL = "<b>x</b>"


def stay(run_id, began, ended, **more):
    known = {"nodes": ("node-a",), "devices": 2.0, "usd_per_hour": 4.0, "how": DONE}
    return Stay(**{**known, "run_id": run_id, "began": began, "ended": ended, **more})


HISTORY = History(
    name="s",
    now=8000.0,
    unit="GPU",
    stays=(
        stay("d8-1", 1000.0, 3000.0, expected=2800.0),
        stay("d8-2", 2000.0, 4000.0, how=FAILED, reason=EVIL),
        stay("d16-1", 3000.0, 5000.0, nodes=("node-a", EVIL), devices=4.0),
        stay("d16-2", 5000.0, None, how=RUNNING),
    ),
    coming=(Coming(run_id="d16-3", starts=8500.0, ends=9500.0),),
    cluster=(Has(time=900.0, nodes=2, devices=4.0), Has(time=5000.0, nodes=1, devices=2.0)),
    drivers=(900.0, 4500.0),
    ends=9500.0,
    to_come={"hours": 1.0, "usd": 2.0},
    limit={"hours": 9.0},
)


def bars(page):
    return [t for t in page.figure.data if t.type == "bar" and t.base is not None]


def test_what_comes_before_the_first_run_is_no_run():
    prepared = replace(HISTORY, stays=(stay(past.PREPARATION, 950.0, 990.0, nodes=()), *HISTORY.stays))
    with_it, without = (timeline.timeline(history) for history in (prepared, HISTORY))
    assert with_it.about == without.about
    assert list(with_it.figure.layout.yaxis.ticktext) == [past.PREPARATION, *without.figure.layout.yaxis.ticktext]
    assert "over 4 starts." in usage.spending(prepared).about
    of_runs = {"d8-1": Speed(flops_per_second=1e9)}
    assert "told of 1 of 4 starts" in usage.speed(prepared, of_runs).about


def test_a_bar_is_a_stay_on_a_node_and_none_lies_over_another():
    page = timeline.timeline(HISTORY, {"d8": 1e3, "d16": 1e4})
    drawn = [(y, base.timestamp(), x / 1000) for t in bars(page) for y, base, x in zip(t.y, t.base, t.x, strict=True)]
    assert sorted((base, x) for _, base, x in drawn) == [
        *[(1000, 2000), (2000, 2000), (3000, 2000), (3000, 2000), (5000, 3000), (8500, 1000)]
    ], "the gang is on both of its nodes, and what runs reaches to now"
    for lane in {y for y, *_ in drawn}:
        inside = sorted((base, base + x) for y, base, x in drawn if y == lane)
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(inside))
    (ticks,) = [t for t in page.figure.data if t.name == "expected end"]
    assert [x.timestamp() for x in ticks.x] == [2800]
    assert ticks.text[0].startswith("<b>d8-1</b>")
    assert list(page.rows.how) == ["done", "failed", "done", "running", "to come"]
    text = page.figure.to_json()
    assert "<b>x" not in text.replace("<b>d", "")
    assert "1 of 1 that ended well took longer" in page.about
    assert "Drivers: 2, the last since" in page.about


def test_devices_and_cost_are_those_of_the_stays():
    page = usage.utilisation(HISTORY)
    held, there = page.figure.data
    assert list(held.y) == [2, 4, 6, 4, 2, 2]
    assert list(there.y) == [4, 2, 2]
    hours = (2000 * 2 + 2000 * 2 + 2000 * 4 + 3000 * 2) / 3600
    assert f"{hours * 3600 / (4 * 4000 + 2 * 3000):.0%}" in page.about
    cost = usage.spending(HISTORY)
    taken, expected = cost.figure.data
    assert taken.y[-1] == pytest.approx(hours)
    assert list(expected.y) == pytest.approx([hours, hours + 1])
    assert f"{hours + 1:.3g} GPU-hours" in cost.about
    empty = replace(HISTORY, stays=(), coming=(), cluster=(), ends=None, to_come=None, limit=None)
    for draw in (timeline.timeline, usage.utilisation, usage.spending):
        assert draw(empty).rows.empty


def test_of_many_stays_the_last_ones_are_drawn_and_all_are_rows():
    many = tuple(stay(f"d8-{i}", 10.0 * i, 10.0 * i + 5) for i in range(timeline.MOST + 100))
    page = timeline.timeline(replace(HISTORY, stays=many, coming=()))
    assert sum(len(t.y) for t in bars(page)) == timeline.MOST
    assert len(page.rows) == timeline.MOST + 100
    assert "the last 2,000 of 2,100" in page.about


def test_spikes_are_those_that_a_run_with_the_rule_leaves_out(tales):
    random = np.random.default_rng(3)
    losses = 3 + 2 * np.exp(-np.arange(600) / 80) + 0.02 * random.standard_normal(600)
    losses[[150, 151, 300, 480]] += [2.5, 0.1, 2.0, 0.3]
    losses[400] = math.nan
    rule = AnomalySpec(policy="skip", spike=9.0, limit=100)
    guard = Guard(replace(make_run(tales, steps=600), anomaly=rule), {})
    by_guard = [guard.judge(step, loss, 1.0) is not None for step, loss in enumerate(losses.tolist())]
    assert np.flatnonzero(by_guard).tolist() == [300, 400, 480], "a jump within the fall is none"
    assert spiked(losses).tolist() == by_guard


def test_a_run_shows_its_spikes_restarts_and_what_it_went_back_from():
    steps = np.arange(1, 1001)
    loss = 3 + 0.01 * np.sin(steps)
    loss[699] = 4.5
    curve = pd.DataFrame({"step": steps, "loss": loss, "grad_norm": 1 + 0.01 * np.cos(steps)})
    met = [
        Incident(what="start", attempt=1, time=0.0, step=0, said="a"),
        Incident(what="rolled back", attempt=1, time=1.0, step=400),
        Incident(what="start", attempt=2, time=2.0, step=600, said=EVIL, lost=7),
    ]
    page = spikes("d8-1", curve, met, [[(401, 3.5), (402, 3.6)]])
    named = {t.name: t for t in page.figure.data if t.name and t.xaxis in (None, "x")}
    assert (list(named["spike"].x), list(named["spike"].y)) == ([700], [4.5]), "as it was, not as a mean"
    assert list(named["restart"].x) == [600]
    assert "7 steps done again" in named["restart"].text[0]
    assert EVIL not in named["restart"].text[0]
    assert list(named["gone back from"].y) == [3.5, 3.6]
    assert list(named["rolled back"].x) == [400]
    assert {shape.x0 for shape in page.figure.layout.shapes} == {600}
    assert "1 of the loss, 0 of the gradient norm" in page.about
    assert page.summary.step.tolist() == [0, 400, 600, 700]
    losses = page.rows[page.rows.what == "loss"]
    line = page.figure.data[0]
    assert (list(losses.step), list(losses.value)) == (list(line.x), list(line.y)), "the rows are the points drawn"
    assert spikes("d8-1", curve.iloc[:0]).rows.empty


def test_a_run_shows_its_noise_scale_beside_its_batch_where_it_was_measured():
    steps = np.arange(1, 101)
    scale = np.where(steps % 10 == 0, 500.0 * steps, math.nan)
    curve = pd.DataFrame({"step": steps, "loss": 3.0, "grad_norm": 1.0, "tokens": steps * 2048, "noise_scale": scale})
    page = spikes("d8-1", curve)
    drawn = {t.name: (list(t.x), list(t.y)) for t in page.figure.data if t.yaxis == "y3"}
    measured = list(range(10, 101, 10))
    assert drawn == {
        "noise scale": (measured, [500.0 * step for step in measured]),
        "batch": (measured, [2048.0] * 10),
    }
    for name, (x, y) in drawn.items():
        rows = page.rows[page.rows.what == name]
        assert (rows.step.tolist(), rows.value.tolist()) == (x, y)
    assert (
        "Its gradient noise scale was 50,000 tokens when it was last measured, and its batch 0.041 of it." in page.about
    )
    assert not [t for t in spikes("d8-1", curve.assign(noise_scale=math.nan)).figure.data if t.yaxis == "y3"]


def test_a_long_run_is_drawn_as_densely_late_as_early():
    """Its axis is linear: of 100,000 steps each tenth has its part of the points, and the extremes."""
    steps = np.arange(1, 100_001)
    loss = 3 + 0.01 * np.random.default_rng(0).standard_normal(len(steps))
    loss[91_234] = 9.0
    met = [Incident(what="start", attempt=2, time=2.0, step=50_000)]
    page = spikes("d8-1", pd.DataFrame({"step": steps, "loss": loss, "grad_norm": loss}), met)
    line = page.figure.data[0]
    assert len(line.x) <= 2000
    assert {50_000, 50_001, 91_235} <= set(line.x), "both sides of the restart, and the spike"
    assert np.histogram(line.x, bins=10, range=(0, 100_000))[0].min() > 100


def test_what_is_to_come_is_counted_from_the_drivers_last_word():
    """A driver that fell silent at 6,500 has not been told of what its runs took since; at 8,000 it is overdue."""
    silent = replace(HISTORY, spoke=6500.0, ends=7500.0)
    _, expected = usage.spending(silent).figure.data
    then = (2000 * 2 + 2000 * 2 + 2000 * 4 + 1500 * 2) / 3600
    assert list(expected.y) == pytest.approx([then, then + 1])
    assert [x.timestamp() for x in expected.x] == [6500, 7500]
    about = usage.spending(silent).about
    assert f"Expected: {then + 1:.3g} GPU-hours" in about
    assert "overdue by 8:20" in about


def test_the_interval_of_the_end_is_drawn_along_the_line_to_it():
    """Time and cost that are to come are off by one factor, as the table says of the time."""
    going = replace(HISTORY, off_by=2.0, spoke=8000.0)
    taken, _, inside = usage.spending(going).figure.data
    then = taken.y[-1]
    assert list(inside.y) == pytest.approx([then + 0.5, then + 1, then + 2])
    assert [x.timestamp() for x in inside.x] == [8000 + 750, 8000 + 1500, 8000 + 3000]
    assert list(inside.marker.symbol) == ["line-ns", "circle", "line-ns"]
    assert f"90%: in 12:30 to 50:00, {then + 0.5:.3g} GPU-hours" in usage.spending(going).about
    silent = usage.spending(replace(HISTORY, off_by=2.0, spoke=6500.0))
    expected, inside = silent.figure.data[1:]
    assert [x.timestamp() for x in inside.x] == [6500 + 1500, 6500 + 3000, 6500 + 6000], "along that line"
    assert (inside.x[1], inside.y[1]) == (expected.x[-1], expected.y[-1])
    assert "90%: in 0:00 to 1:15:00" in silent.about, "from now on"
    *_, wide = usage.spending(replace(going, off_by=25.0)).figure.data
    assert max(wide.y) == pytest.approx(then + 3)
    assert wide.marker.symbol[-1] == "arrow-bar-right", "it goes on beyond what is drawn"


def test_a_sweep_that_has_not_begun_shows_when_its_runs_should_run():
    coming = tuple(Coming(run_id=f"d8-{i}", starts=8000.0 + 100 * i, ends=8100.0 + 100 * i) for i in range(3))
    planned = replace(HISTORY, stays=(), cluster=(), coming=coming, waiting=40, limit=None)
    page = timeline.timeline(planned, {"d8": 1e3})
    assert [(b.timestamp(), x / 1000) for t in bars(page) for b, x in zip(t.base, t.x, strict=True)] == [
        *((8000, 100), (8100, 100), (8200, 100))
    ]
    assert "nothing has started." in page.about
    assert "Outlined: when 3 of the 40 runs that wait" in page.about
    assert list(page.rows.expected_seconds) == [100.0] * 3
    assert list(usage.spending(planned).figure.data[-1].y) == [0.0, 1.0]


def test_utilisation_is_that_of_the_devices_held_together():
    speeds = {
        "d8-1": Speed(flops_per_second=2e12, mfu=0.2),
        "d16-1": Speed(flops_per_second=1.2e13, mfu=0.6),
        "d16-2": Speed(flops_per_second=6e12, mfu=0.6),
    }
    page = usage.speed(HISTORY, speeds)
    rows = page.rows.assign(at=[datetime.fromisoformat(time).timestamp() for time in page.rows.time]).set_index("at")
    peak = 5e12  # of a device: each of these speeds over its share of the peak of its devices
    assert rows.mfu[1000.0] == pytest.approx(2e12 / (2 * peak))
    assert rows.mfu[3000.0] == pytest.approx(1.2e13 / (4 * peak))
    assert rows.mfu[5000.0] == pytest.approx(6e12 / (2 * peak))
    assert list(rows.devices) == [2.0, 4.0, 2.0, 2.0]
    ended = usage.speed(replace(HISTORY, stays=HISTORY.stays[:1]), speeds).figure.data[0]
    assert list(ended.y[:2]) == pytest.approx([20.0, 20.0])
    assert [x.timestamp() for x in ended.x] == [1000, 3000, 3000], "a step is drawn to its end"
    assert "told of 3 of 4 starts" in page.about
    both = speed.over_time(
        replace(HISTORY, stays=(HISTORY.stays[0], stay("d16-1", 2000.0, 5000.0, devices=4.0))), speeds
    )
    assert both[1].mfu == pytest.approx((2e12 + 1.2e13) / (6 * peak))
    trained = replace(HISTORY, stays=HISTORY.stays[:1])
    asked = replace(HISTORY, stays=(*trained.stays, stay("d8-1", 6000.0, 7000.0)))
    assert speed.over_time(asked, speeds) == speed.over_time(trained, speeds), "questions train nothing"
    slow = {name: replace(one, mfu=None) for name, one in speeds.items()}
    unrated = usage.speed(HISTORY, slow)
    assert list(unrated.figure.data[0].y) == pytest.approx([2e3, 1.2e4, 6e3, 6e3])
    assert "The peak of these GPUs is not known" in unrated.about


def test_speeds_are_those_of_results_and_of_the_drivers_last_word(tmp_path):
    path = tmp_path / "runs" / "d8-1" / "result.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"flops_per_second": 2e12, "mfu": 0.2}')
    live = standing.Live(
        **{"run_id": "d16-2", "phase": "training", "share": 0.5, "loss": 3.0, "tokens_per_second": 1e5},
        **{"flops_per_second": 6e12, "mfu": 0.6, "stopping": False},
        **dict.fromkeys(("since", "ends", "heartbeat", "checkpoint")),
    )
    known = {}
    found = speed.of_runs(tmp_path, HISTORY.stays, [live], known)
    assert found == {"d8-1": Speed(flops_per_second=2e12, mfu=0.2), "d16-2": Speed(flops_per_second=6e12, mfu=0.6)}
    path.unlink()
    assert speed.of_runs(tmp_path, HISTORY.stays, [], known) == {"d8-1": found["d8-1"]}, "a result is read once"


def test_a_device_that_goes_from_one_run_to_the_next_is_held_once():
    handed = replace(HISTORY, stays=(stay("d8-1", 1000.0, 2000.02), stay("d8-2", 2000.0, 3000.0)))
    assert past.in_use(handed) == [(1000.0, 2.0), (2000.0, 2.0), (3000.0, 0.0)]


def left(run, attempt, began, step, lines):
    """An attempt's log: when it began at which step, and (step, tokens per second of the run until then)."""
    folder = run.path / f"attempt-{attempt:03d}"
    folder.mkdir(parents=True)
    start = {"event": "start", "time": began, "step": step}
    (folder / "events.jsonl").write_text(json.dumps(start) + "\n")
    told = [{"phase": "training", "step": step, "tokens_per_second": speed} for step, speed in lines]
    (folder / "tail.jsonl").write_text("".join(json.dumps(line) + "\n" for line in told))


def test_a_gang_that_shrank_is_as_well_used_as_before(tales, tmp_path):
    """Of four devices two are left, and it trains half as fast, from a checkpoint 10 steps before its end on."""
    spec = make_run(tales, steps=100)
    run, step = RunDir(tmp_path, spec.run_id), spec.tokens_at(1)
    run.create(spec)
    left(run, 1, 1000.0, 0, [(10, step), (40, step)])
    left(run, 2, 2000.0, 30, [(50, step * 50 / 70), (100, step * 100 / 170)])
    of_step = costs.train_flops(spec.model, step)
    peak = of_step / 4 / 0.5
    spent = {"train_seconds": 30 + 140, "device_seconds": 4 * 30 + 2 * 140}  # without the 10 steps that were lost
    mfu = of_step * 100 / (spent["device_seconds"] * peak)
    result = {"flops_per_second": of_step * 100 / 170, "mfu": mfu, "devices": 2, **spent}
    (run.path / "result.json").write_text(json.dumps(result))
    stays = (stay(spec.run_id, 990.0, 1045.0, devices=4.0, how=STOPPED), stay(spec.run_id, 1995.0, 2200.0))
    found = speed.of_runs(tmp_path, stays, [], {})
    assert [(s.began, s.ended) for s in found[spec.run_id].along] == [
        *((1000, 1010), (1010, 1040)),
        *((2000, pytest.approx(2040)), (pytest.approx(2040), pytest.approx(2140))),
    ]
    along = {at.time: at for at in speed.over_time(replace(HISTORY, stays=stays), found)}
    for began in (1000.0, 1010.0, 2000.0):
        assert along[began].mfu == pytest.approx(0.5), "by what each attempt had"
    assert along[2000.0].flops_per_second == pytest.approx(of_step / 2)
    assert [along[began].mfu for began in (990.0, 1995.0)] == [0.0, 0.0], "it starts"
    assert (along[1045.0].devices, along[1045.0].mfu) == (0.0, None)
    assert "as its logs place it" in usage.speed(replace(HISTORY, stays=stays), found).about
    blind = {spec.run_id: replace(found[spec.run_id], along=())}
    late = tuple(replace(s, began=s.began + 3600, ended=s.ended + 3600) for s in found[spec.run_id].along)
    skewed = {spec.run_id: replace(found[spec.run_id], along=late)}
    assert speed.over_time(replace(HISTORY, stays=stays), skewed) == speed.over_time(
        replace(HISTORY, stays=stays), blind
    ), "a machine whose clock is an hour off"
    assert len({round(at.mfu, 9) for at in speed.over_time(replace(HISTORY, stays=stays), blind) if at.devices}) == 1


def test_of_a_long_log_some_lines_are_read_and_nothing_is_lost(tales, tmp_path):
    spec = make_run(tales, steps=2000)
    run, step = RunDir(tmp_path, spec.run_id), spec.tokens_at(1)
    run.create(spec)
    seconds = {i: i / 2 + max(0, i - 1000) / 2 for i in range(1, 2001)}  # half as fast from the middle on
    left(run, 1, 1000.0, 0, [(i, step * i / until) for i, until in seconds.items()])
    along = pace.read(run)
    assert 10 < len(along) <= pace.LINES + 1
    assert (along[0].began, along[-1].ended) == (1000.0, pytest.approx(1000 + seconds[2000]))
    assert along[0].flops_per_second == pytest.approx(2 * along[-1].flops_per_second)
    assert sum(s.flops_per_second * (s.ended - s.began) for s in along) == pytest.approx(
        costs.train_flops(spec.model, spec.tokens)
    )


def test_times_of_rows_are_moments_wherever_they_are_read(monkeypatch):
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        pages = [draw(HISTORY) for draw in (timeline.timeline, usage.utilisation, usage.spending)]
    finally:
        monkeypatch.undo()
        time.tzset()
    for page, column in zip(pages, ("began", "time", "time"), strict=True):
        moments = [datetime.fromisoformat(text) for text in page.rows[column]]
        assert all(moment.utcoffset() for moment in moments)
        assert moments[0].timestamp() == 1000


def test_branches_begin_where_their_own_steps_do(studied):
    """Of three runs of a size two start from the longest, after 400 and 700 of its 1,000 steps of 100 tokens."""
    ids = list(studied.everything.run_id[:4])
    trunk, early, late, alone = ids
    table = studied.runs.table.set_index("run_id", drop=False)
    table["parent"] = pd.Series({early: f"{trunk}@400", late: f"{trunk}@700"}, dtype="string")
    everything = studied.everything[studied.everything.run_id.isin(ids)].set_index("run_id", drop=False)
    everything.loc[ids, "D"] = [100_000.0, 50_000.0, 80_000.0, 1e9]
    study = replace(studied, runs=replace(studied.runs, table=table), everything=everything)

    def curve(first, last):
        steps = np.arange(first, last + 1)
        return pd.DataFrame({"tokens": 100 * steps, "loss": 5 - steps / 1000})

    losses = {trunk: curve(1, 1000), early: curve(401, 500), late: curve(701, 800), alone: curve(1, 10)}
    page = trunks(study, losses)
    rings = next(t for t in page.figure.data if t.name == "a branch begins")
    assert sorted(rings.x) == [40_000, 70_000]
    assert f"<b>{late}</b><br>begins from <b>{trunk}</b>" in rings.text[list(rings.x).index(70_000)]
    assert set(page.rows.run_id) == {trunk, early, late}
    assert not lost(page), "handed out"
    thick = {t.name for t in page.figure.data if t.mode == "lines" and t.line.width > 2}
    assert thick == {trunk}
    assert "120k tokens in place of 230k (48% less)" in page.about
    assert trunks(studied, losses) is None, "no run started from another"
