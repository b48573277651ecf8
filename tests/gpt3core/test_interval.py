"""How often a run is saved: little of its time, and Young's rule where failures are known."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from gpt3core.train import loop, saving
from gpt3core.train.interval import seconds_between
from tests.conftest import make_run
from tests.gpt3core.outcomes import run, stopped


@pytest.mark.parametrize("save", [0.0, 0.01, 1.0, 7.0, 600.0])
def test_saves_take_less_than_5_percent_of_the_time(save):
    every = seconds_between(save, least=10.0)
    assert save / (save + every) < 0.05
    assert every >= 10.0


def test_a_quick_save_leaves_what_was_asked_for():
    assert seconds_between(0.1, least=10.0) == 10.0


def test_youngs_interval_is_the_cheapest():
    """What saves and repeated work cost a second, d / T + T / (2 M), is least at the interval given."""
    save, mtbf = 60.0, 10 * 3600.0 * 24
    every = np.geomspace(100, 1e6, 2001)
    cost = save / every + every / (2 * mtbf)
    assert seconds_between(save, least=1.0, failures_every=mtbf) == pytest.approx(every[cost.argmin()], rel=0.01)
    assert seconds_between(save, least=1.0, failures_every=mtbf) == math.sqrt(2 * save * mtbf)


def test_a_run_whose_saves_are_slow_saves_seldom(tales, isolated, monkeypatch):
    """A clock on which a step takes a second and training waits for one at a save, whose writer takes two of the core.

    The first save is due after two seconds, the next ones 72 after the one before.
    """
    saves: list[int] = []
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    clock = SimpleNamespace(monotonic=lambda: now.seconds, thread_time=lambda: 2.0)
    monkeypatch.setattr(saving, "time", clock)
    update, begin = loop.Trainer._update, saving.Saves.begin

    def slow_update(self, lr):
        now.seconds += 1.0
        return update(self, lr)

    def slow_begin(self, step, *args, waited, **words):
        begin(self, step, *args, waited=waited + 1.0, **words)
        now.seconds += 1.0
        saves.append(step)
        self.wait()

    monkeypatch.setattr(loop.Trainer, "_update", slow_update)
    monkeypatch.setattr(saving.Saves, "begin", slow_begin)
    run(make_run(tales, steps=160), isolated, checkpoint_seconds=2.0)
    assert saves == [2, 73, 144, 160]


def test_the_micro_batch_is_recorded_and_kept(tiny_run, isolated):
    folder = RunDir(isolated, tiny_run.run_id)
    stopped(tiny_run, isolated, 3)
    record = files.read_object(folder.path / "numerics.json")
    assert record["micro_batch"] == 16_384 // 32
    files.write_json(folder.path / "numerics.json", {**record, "micro_batch": 2})
    assert run(tiny_run, isolated)["micro_batch"] == 2
    events = [event for attempt in folder.attempts() for event in files.read_lines(attempt / "events.jsonl")]
    assert [event["micro_batch"] for event in events if event["event"] == "start"] == [512, 2]
