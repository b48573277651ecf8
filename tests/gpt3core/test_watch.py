"""The rank that does not come is named: by signs in the pure judge, and with real processes that stop or loop."""

import contextlib
import functools
import os
import signal
import threading
import time
from dataclasses import replace
from queue import SimpleQueue

import pytest
import torch

from gpt3core import pulse
from gpt3core import run as runs
from gpt3core.errors import PeerError
from gpt3core.model.gpt import Block
from gpt3core.parallel import gradients, mesh
from gpt3core.parallel.layout import Layout
from gpt3core.parallel.parallelize import parallelize
from gpt3core.parallel.parts import part_of
from gpt3core.parallel.watch import Judge, Sign
from gpt3core.sizes import nano
from gpt3core.store.rundir import RunDir
from gpt3core.train.objective import Examples
from gpt3core.train.readback import Readback
from tests.conftest import EVALS, make_run
from tests.gpt3core import ranks

pytestmark = pytest.mark.xdist_group("ranks")  # one fork server serves them all
LIMIT = 2.0


def judged(signs, seconds, limit=10.0):
    """The verdict after so long of signs: ``signs(rank, now)`` once a second, None for no sign, "left" at its end."""
    judge = Judge(ranks=range(3), limit=limit, began=0.0)
    for now in range(int(seconds) + 1):
        for rank in range(3):
            said = signs(rank, now)
            if said == "left":
                judge.left(rank)
            elif said is not None:
                judge.heard(rank, said, float(now))
    return judge.verdict(float(seconds)), judge.silent(float(seconds))


def sign(now, *, gates=0, beats=0, waiting=False, works=False, **words):
    return Sign(tick=now, gates=gates, beats=beats, waiting=waiting, works=works, **words)


@pytest.mark.parametrize(
    ("second", "verdict"),
    [
        (lambda now: sign(now, beats=now), ""),  # it works, and says so
        (lambda now: sign(now, beats=7) if now <= 20 else None, "rank 1 has shown no sign of life for 12 s"),
        (lambda now: None, "rank 1 has shown no sign of life for 32 s"),
        (lambda now: sign(now, beats=7), "rank 1 has not come to a collective for 32 s, and ranks 0, 2 wait for it"),
        (lambda now: sign(now, beats=7, doing="preparing the text"), ""),
        (lambda now: sign(now, gates=3, waiting=True), "rank 1 waits in an earlier collective than the others"),
        (lambda now: sign(now, gates=4, waiting=True), "all ranks have waited in the same collective for 32 s"),
        (lambda now: "left", "all ranks have waited"),
    ],
)
def test_the_rank_that_others_wait_for_is_named(second, verdict):
    def signs(rank, now):
        return second(now) if rank == 1 else sign(now, gates=4, waiting=True)

    said, _ = judged(signs, 32)
    assert said.startswith(verdict)
    assert bool(said) == bool(verdict)


def test_what_says_that_it_is_long_is_waited_for_an_hour():
    def signs(rank, now):
        return sign(now, doing="compiling") if rank == 1 else sign(now, gates=4, waiting=True)

    assert judged(signs, pulse.LONG_SECONDS - 1)[0] == ""
    assert "rank 1 has not come to a collective for 3605 s, where it is compiling" in judged(signs, 3605)[0]


@pytest.mark.parametrize(
    ("second", "verdict"),
    [
        (lambda now: sign(now, gates=4, beats=7), "rank 1 has not come to a collective for 32 s, and ranks 0, 2"),
        (lambda now: sign(now, gates=4, waiting=True, works=True), "all ranks have waited in the same collective"),
        (lambda now: sign(now, gates=4, waiting=True, works=True, doing="in its first step"), ""),
        (lambda now: sign(now, gates=4, waiting=True, works=True, usual=9.0), ""),  # a GPU's step is one wait
        (lambda now: sign(now, gates=4, waiting=True, works=True, usual=7.0), "all ranks have waited in the same"),
        (lambda now: sign(now, gates=3, waiting=True, works=True), "rank 1 waits in an earlier collective"),
        (lambda now: sign(now, gates=3, waiting=True, works=True, doing="in its first step"), ""),
        (lambda now: sign(now, gates=5, waiting=True), "rank 0 has not come to a collective for 32 s, and rank 1 "),
    ],
)
def test_in_a_pass_with_collectives_inside_or_for_a_gpu_a_rank_waits_or_works(second, verdict):
    def signs(rank, now):
        return second(now) if rank == 1 else sign(now, gates=4, waiting=True, works=True)

    said, _ = judged(signs, 32)
    assert said.startswith(verdict)
    assert bool(said) == bool(verdict)


@pytest.mark.parametrize(
    ("slow", "since", "verdict"),
    [
        (1, 12, "rank 1 has not come to a collective for 12 s, where it is at gpt.py:7, and ranks 0, 2 wait for it"),
        (1, 10, ""),
        (20, 79, ""),  # of ranks between whose collectives lie twenty seconds
        (20, 82, "rank 1 has not come to a collective for 82 s, where it is at gpt.py:7, and ranks 0, 2 wait for it"),
    ],
)
def test_a_rank_that_is_stuck_inside_a_pass_is_told_from_those_that_wait_for_it_there(slow, since, verdict):
    """All are in the same pass, and begin a collective every so many seconds; rank 1 stops after the hundredth."""

    def signs(rank, now):
        begun = min(now, 100) // slow
        return sign(now, gates=4, beats=begun, waiting=True, works=rank == 1, line="gpt.py:7" if rank == 1 else "")

    assert judged(signs, 100 + since)[0] == verdict


def test_a_first_step_says_how_long_the_next_may_be_unless_it_compiles():
    """In the first step a rank computes for half a minute between two collectives, in the second a little longer."""

    def signs(rank, now, doing):
        first = now < 31
        if rank == 1 and first and doing:
            return sign(now, gates=4, doing=doing)  # it is not in the pass while it compiles
        said = "in its first step" if first else ""
        return sign(now, gates=4, beats=int(now >= 30), waiting=True, works=rank == 1, doing=said)

    assert judged(lambda rank, now: signs(rank, now, ""), 30 + 45)[0] == ""
    assert judged(lambda rank, now: signs(rank, now, ""), 30 + 125)[0].startswith("rank 1 has not come")
    assert judged(lambda rank, now: signs(rank, now, "compiling"), 30 + 15)[0].startswith("rank 1 has not come")


def test_what_compiles_inside_a_pass_is_not_waiting_there():
    here = pulse.Pulse()
    with here.at_gate(works=True):
        with here.busy("compiling"):
            assert (here.waiting, here.working, here.doing) == (0, 0, "compiling")
        assert (here.waiting, here.working, here.doing) == (1, 1, "")


def test_ranks_that_work_in_large_pieces_are_waited_for_four_times_as_long():
    """Passes of half a minute, in which all wait for one another, are no hang at a limit of ten seconds."""

    def signs(rank, now):
        return sign(now, gates=min(now, 300) // 30, waiting=True)

    assert judged(signs, 300 + 119)[0] == ""
    assert judged(signs, 300 + 122)[0].startswith("all ranks have waited in the same collective for 122 s")


def test_a_long_pause_is_remembered_for_sixteen_times_as_long():
    """A hiccup of twenty seconds among quick collectives; ranks hang a while later."""

    def signs(rank, now, quick):
        return sign(now, gates=0 if now < 20 else min(now, 20 + quick), waiting=True)

    assert judged(functools.partial(signs, quick=300), 320 + 12)[0] == ""
    said, _ = judged(functools.partial(signs, quick=340), 360 + 12)
    assert said.startswith("all ranks have waited in the same collective for 12 s")


def test_quick_collectives_at_the_end_of_a_step_do_not_make_its_long_pieces_forgotten():
    """Micro-batches of half a minute, then sums of many buckets; rank 1 is slower, and the others wait for it."""

    judge = Judge(ranks=range(3), limit=10.0, began=0.0)
    for now in range(3 * 145):
        step, second = divmod(now, 120 + 25)
        sums = max(0, second - 120)
        for rank in range(3):
            beats = step * 30 + sums + (second // 30 if rank == 1 else 0)
            judge.heard(rank, sign(now, gates=step, beats=beats, waiting=rank != 1 or sums > 0), float(now))
        assert step == 0 or judge.verdict(float(now)) == ""


def test_what_was_said_to_be_long_does_not_make_a_hang_last_longer():
    """Ten minutes in which one rank prepares a text and the other waits for it, steps of 20 s, then a hang."""

    def signs(rank, now):
        if now < 600:
            return sign(now, gates=1, waiting=rank != 1, doing="preparing the text" if rank == 1 else "")
        return sign(now, gates=min(now, 700) // 20, waiting=True)

    assert judged(signs, 700 + 79, limit=45)[0] == ""
    assert judged(signs, 700 + 82, limit=45)[0].startswith("all ranks have waited in the same collective for 82 s")


def test_a_rank_that_sees_one_other_only_says_whether_that_one_lives():
    judge = Judge(ranks=range(1), limit=10.0, began=0.0)
    for now in range(100):
        judge.heard(0, sign(now, gates=4, waiting=True), float(now))
    assert judge.silent(99.0) == ""
    assert "rank 0" in judge.silent(120.0)


def test_of_a_rank_in_a_collective_inside_a_pass_it_is_sure_that_it_waits():
    here = pulse.Pulse()
    with here.at_gate(works=True):
        assert here.waiting == here.working == 1
        with here.at_gate():
            assert (here.waiting, here.working) == (2, 1)
    assert (here.waiting, here.working, here.gates) == (0, 0, 2)


class _Event:
    """One of a GPU whose work never ends; what the watch is told meanwhile."""

    def synchronize(self):
        self.where = pulse.HERE.waiting, pulse.HERE.working


def test_a_wait_for_a_gpu_is_one_for_other_ranks(monkeypatch):
    told, event = Readback("cuda"), _Event()
    told._waiting.append(({"step": 1, "tokens": 1, "lr": 1.0}, torch.zeros(4), event))
    assert len(told.read(everything=True)) == 1
    assert event.where == (1, 1)
    assert (pulse.HERE.waiting, pulse.HERE.working) == (0, 0)


def _gates(rank, size, address):
    """Collectives that a stage counts: sums of more buckets than others have, and of what the ends alone share."""
    with mesh.joined(rank, size, address, "cpu", layout=Layout(pipeline=size)) as here:
        mesh.BUCKET = 4
        before = pulse.HERE.gates
        mesh.sum_([torch.ones(3)] * 4, None)
        gradients._reduce(torch.nn.Module(), here, None, averaged=False)
        return pulse.HERE.gates - before


def test_stages_of_a_pipeline_count_the_same_collectives():
    assert ranks.run(_gates, 3) == [2, 2, 2]


def _pass(here, inside=None):
    """A forward and backward pass of a model that these ranks share, as a function of nothing.

    Args:
        inside: is called in the midst of the forward and of the backward pass, with which it is.
    """
    spec = nano(16, n_layer=2, n_head=4, n_ctx=16, vocab_size=32, attention="dense", band=4)
    held = parallelize(spec, here, kernel="softmax", device="cpu")
    held.model.init_weights(0, part_of)

    def between(_, __, output):
        inside("forward")
        output.register_hook(lambda _: inside("backward"))

    if inside is not None:
        list(held.model.blocks.values())[-1].register_forward_hook(between)
    ids = torch.zeros(1, 16 // here.layout.context, dtype=torch.long)
    return lambda: held.backward([Examples(inputs=ids, targets=ids, mask=None)] * 2, 1.0)


def _loop():
    while True:
        time.sleep(0.01)


def _watched(rank, size, address, bad, stop, pids, layout=None, inside=None):
    """Ranks that meet again and again, at a vote or inside a pass; one of them stops, or loops, after a while.

    What a rank is told, or None.

    Args:
        inside: in which half of a pass that rank loops; None for before it.
    """
    (pids / str(rank)).write_text(str(os.getpid()))
    told, ended, at = SimpleQueue(), SimpleQueue(), [0]

    def between(half):
        if rank == bad and at[0] == 10 and half == inside:
            _loop()

    if rank == bad and stop == "as it joins":
        mesh.require_same = lambda *_: os.kill(os.getpid(), signal.SIGSTOP)
    pulse.HERE.begin(lambda said, named: told.put((said, named)))

    def work():
        try:
            with mesh.joined(rank, size, address, "cpu", layout=layout, hang_seconds=LIMIT) as here:
                meet = _pass(here, between) if layout else lambda: here.agree(False)
                for turn in range(20):
                    at[0] = turn
                    if rank == bad and turn == 10 and inside is None:
                        if stop:
                            os.kill(os.getpid(), signal.SIGSTOP)
                        _loop()
                    meet()
                    pulse.beat()
        except PeerError:  # whoever was told first has ended another rank
            pass
        finally:
            ended.put(None)

    threading.Thread(target=work, daemon=True).start()
    began, said = time.monotonic(), None
    while told.empty() and ended.empty():
        time.sleep(0.02)
    if not told.empty():
        said = *told.get(), time.monotonic() - began
        with contextlib.suppress(ProcessLookupError):
            if stop:
                os.kill(int((pids / str(bad)).read_text()), signal.SIGKILL)
    return said


@pytest.mark.parametrize(
    ("bad", "stop", "layout", "sentence"),
    [
        (1, True, None, "rank 1 has shown no sign of life"),
        (0, True, None, "rank 0 has shown no sign of life"),
        (1, "as it joins", None, "rank 1 has shown no sign of life"),
        (1, False, None, "rank 1 has not come to a collective"),
        (1, False, Layout(tensor=2), "rank 1 has not come to a collective"),
        pytest.param(1, False, Layout(pipeline=2), "rank 1 has not come to a collective", marks=pytest.mark.soak),
        pytest.param(1, False, Layout(data=2, shard=2), "rank 1 has not come", marks=pytest.mark.soak),
        (None, True, None, ""),
    ],
    ids=[
        "stopped",
        "the first stopped",
        "stopped as it joins",
        "in a loop",
        "of a tensor group",
        "of a pipeline",
        "of shards",
        "well",
    ],
)
def test_a_stopped_or_looping_rank_is_named_within_the_limit(isolated, bad, stop, layout, sentence):
    if bad is not None and not stop:
        found = _told_by_rank_0(isolated, bad, layout)
    else:
        found = [said for said in ranks.run(_watched, 3, bad, stop, isolated, seconds=40) if said is not None]
    assert bool(found) == (bad is not None)
    for said, named, seconds in found:
        assert sentence in said
        assert named == bad
        assert LIMIT < seconds < 5 * LIMIT


def _loops(rank, size, address, bad, pids, layout, inside=None):
    """As above, and whoever is told ends the others, as the driver does."""
    how = rank, size, address, bad, False, pids, layout, inside
    if rank != 0:
        threading.Thread(target=_watched, args=how, daemon=True).start()
        while not (pids / "told").exists():
            time.sleep(0.05)
        return None
    try:
        return _watched(*how)
    finally:
        (pids / "told").touch()


def _told_by_rank_0(folder, bad, layout, inside=None):
    size = 3 if layout is None else layout.world_size
    return [said for said in ranks.run(_loops, size, bad, folder, layout, inside, seconds=40) if said is not None]


@pytest.mark.soak
@pytest.mark.parametrize("inside", ["forward", "backward"])
@pytest.mark.parametrize(
    "layout",
    [Layout(tensor=2), Layout(pipeline=2), Layout(data=2, shard=2), Layout(context=2), Layout(tensor=2, pipeline=2)],
    ids=Layout.describe,
)
def test_a_rank_that_is_stuck_inside_a_pass_of_a_shared_model_is_named_within_the_limit(isolated, layout, inside):
    bad = layout.world_size - 1
    ((said, named, seconds),) = _told_by_rank_0(isolated, bad, layout, inside)
    assert f"rank {bad} has not come to a collective" in said
    assert named == bad
    assert LIMIT < seconds < 5 * LIMIT


def _claims_slowly(rank, size, address, root, spec):
    """As where the run's former holder has gone silent, and is waited for; what a rank is told."""
    told, claim = [], RunDir.claimed
    pulse.HERE.begin(lambda said, named: told.append(said))

    def slow(*words):
        time.sleep(2 * LIMIT)
        return claim(*words)

    RunDir.claimed = slow
    with mesh.joined(rank, size, address, "cpu", hang_seconds=LIMIT) as here:
        runs.run(spec, replace(EVALS, tasks=(), validation_tokens=256), root, mesh=here)
    return told


@pytest.mark.soak
def test_a_rank_that_waits_for_a_runs_former_holder_is_no_hang(isolated, tiny_run):
    found = ranks.run(_claims_slowly, 2, isolated, tiny_run)
    assert all(isinstance(told, list) for told in found), found
    assert "has not come to a collective" not in str(found)


def _works_slowly(rank, size, address, root, spec, layout):
    """As on a machine whose last rank takes longer for a block than any is waited for at first, and at answers more."""
    told, block = [], Block.forward
    pulse.HERE.begin(lambda said, named: told.append(said))

    def slow(self, *args, **words):
        if rank == size - 1:
            time.sleep(1.25 * LIMIT if torch.is_grad_enabled() else 3 * LIMIT)
        return block(self, *args, **words)

    Block.forward = slow
    with mesh.joined(rank, size, address, "cpu", layout=layout, hang_seconds=LIMIT) as here:
        runs.run(spec, replace(EVALS, tasks=(), validation_tokens=256), root, mesh=here, checkpoint_seconds=1.0)
    return told


@pytest.mark.soak
@pytest.mark.parametrize("layout", [Layout(pipeline=2, micro_batch=2), Layout(data=2, shard=2, micro_batch=2)], ids=str)
def test_ranks_that_wait_long_for_one_that_works_are_no_hang(tales, isolated, layout):
    assert ranks.run(_works_slowly, 2, isolated, make_run(tales, steps=3), layout) == [[], []]
