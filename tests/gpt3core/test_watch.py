"""The rank that does not come is named, with real processes that stop or loop."""

import contextlib
import inspect
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from queue import SimpleQueue

import pytest
import torch

from gpt3core import pulse
from gpt3core import run as runs
from gpt3core.errors import PeerError
from gpt3core.model.gpt import Block
from gpt3core.parallel import gradients, mesh, processor, watch
from gpt3core.parallel.layout import Layout
from gpt3core.parallel.parallelize import parallelize
from gpt3core.parallel.parts import part_of
from gpt3core.sizes import nano
from gpt3core.store.rundir import RunDir
from gpt3core.train.objective import Examples
from gpt3core.train.readback import Readback
from tests.conftest import EVALS, make_run
from tests.gpt3core import ranks

pytestmark = pytest.mark.xdist_group("ranks")  # one fork server serves them all
LIMIT = 4.0  # a rank without a processor for so long would be named too


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


def _found(bad, stop, pids, layout=None, inside=None):
    """What ranks of a gang were told: all of them, or rank 0, which ends the others as the driver does."""
    pids.mkdir()
    if bad is not None and not stop:
        size = 3 if layout is None else layout.world_size
        told = ranks.run(_loops, size, bad, pids, layout, inside)
    else:
        told = ranks.run(_watched, 3, bad, stop, pids)
    return [said for said in told if said is not None]


def _named(folder, *cases):
    """That the bad rank of each case is named within the limit: of gangs beside one another, for all of them wait."""
    with ThreadPoolExecutor(len(cases)) as pool:
        asked = [pool.submit(_found, *case[:2], folder / str(i), *case[2:-1]) for i, case in enumerate(cases)]
    for (bad, *_, sentence), found in zip(cases, asked, strict=True):
        assert found.result()
        for said, named, seconds in found.result():
            assert f"rank {bad} {sentence}" in said
            assert named == bad
            assert LIMIT < seconds < 20 * LIMIT, "six where nothing else runs; without a watch it would be two hours"


SILENT, AWAY = "has shown no sign of life", "has not come to a collective"


def test_a_stopped_or_looping_rank_is_named_within_the_limit(isolated):
    _named(
        isolated,
        (1, True, SILENT),
        (0, True, SILENT),
        (1, "as it joins", SILENT),
        (1, False, AWAY),
        (1, False, Layout(tensor=2), AWAY),
    )


@pytest.mark.soak
def test_a_rank_that_does_not_come_to_a_pass_is_named_within_the_limit(isolated):
    _named(isolated, (1, False, Layout(pipeline=2), AWAY), (1, False, Layout(data=2, shard=2), AWAY))


def test_of_ranks_that_are_well_none_is_named(isolated):
    assert _found(None, False, isolated / "well") == []


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


@pytest.mark.soak
@pytest.mark.parametrize(
    "layout",
    [Layout(tensor=2), Layout(pipeline=2), Layout(data=2, shard=2), Layout(context=2), Layout(tensor=2, pipeline=2)],
    ids=Layout.describe,
)
def test_a_rank_that_is_stuck_inside_a_pass_of_a_shared_model_is_named_within_the_limit(isolated, layout):
    bad = layout.world_size - 1
    _named(isolated, *((bad, False, layout, half, AWAY) for half in ("forward", "backward")))


def test_the_processors_time_is_that_of_all_that_a_process_has_started_too():
    before, burn = processor.seconds(), "import time\nwhile time.process_time() < 0.1: pass\ninput()"
    under = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    with subprocess.Popen([sys.executable, "-c", under], stdin=subprocess.PIPE, text=True) as child:
        while processor.seconds() - before < 0.1:
            time.sleep(0.01)
        child.communicate("over\n")
    assert processor.seconds() - before > 0.1, "when it has ended too"


@pytest.mark.parametrize("told", ["", "self/stat"])
def test_where_a_system_does_not_tell_what_a_process_started_it_is_as_if_it_always_worked(told, isolated, monkeypatch):
    """As on macOS, and on a Linux kernel that lists no children."""
    if told:
        (isolated / told).parent.mkdir(parents=True)
        (isolated / told).touch()
    monkeypatch.setattr(processor, "PROCESSES", isolated)
    monkeypatch.setattr(time, "monotonic", lambda: 7e9)
    assert processor.seconds() == 7e9


def _works_a_little():
    """A tenth of a processor for longer than any rank is waited for that takes none."""
    end = time.monotonic() + 3 * LIMIT
    while time.monotonic() < end:
        time.sleep(0.09)
        until = time.thread_time() + 0.01
        while time.thread_time() < until:
            pass


IN_A_FIRST_STEP = {
    "stopped": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "in a loop that takes no processor": _loop,
    "at work": _works_a_little,
    "waiting for a process that is at work": lambda: subprocess.run(
        [
            sys.executable,
            "-c",
            f"import time; LIMIT = {LIMIT}\n{inspect.getsource(_works_a_little)}\n_works_a_little()",
        ],
        check=True,
    ),
}


def _begins(rank, size, address, where, folder):
    """Ranks in their first step, where the last one is for long or for ever; what the first one is told."""
    watch.STILL_SECONDS, told, over = LIMIT, [], threading.Event()
    (folder / str(rank)).write_text(str(os.getpid()))
    pulse.HERE.begin(lambda said, named: (told.append((said, named)), over.set()))

    def work():
        joined = mesh.joined(rank, size, address, "cpu", hang_seconds=LIMIT)
        with contextlib.suppress(PeerError), joined as here, pulse.busy("in its first step", computes=True):
            if rank == size - 1:
                IN_A_FIRST_STEP[where]()
            here.agree(False)
        over.set()

    threading.Thread(target=work, daemon=True).start()
    if rank == 0:
        over.wait(30)
        (folder / "over").touch()
        if where == "stopped":
            os.kill(int((folder / str(size - 1)).read_text()), signal.SIGKILL)
    while not (folder / "over").exists():
        time.sleep(0.05)
    return told


@pytest.mark.soak
@pytest.mark.parametrize("where", IN_A_FIRST_STEP)
def test_a_rank_in_its_first_step_is_stuck_when_it_takes_no_processor(isolated, where):
    told, *_ = ranks.run(_begins, 3, where, isolated, seconds=40)
    words = {"stopped": "rank 2 has shown no sign of life", "in a loop that takes no processor": "in its first step"}
    assert [named for _, named in told] == [2] * (where in words)
    assert all(words[where] in said for said, _ in told)


def _claims_slowly(rank, size, address, root, spec):
    """As where the run's former holder has gone silent, and is waited for; what a rank is told."""
    told, claim = [], RunDir.claimed
    pulse.HERE.begin(lambda said, named: told.append(said))

    def slow(*words):
        time.sleep(1.5 * LIMIT)
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
    """As on a machine whose last rank takes longer for a step than any is waited for at first, and at answers more.

    All are seen after the passes too, where the watch looks twice a second.
    """
    told, block, passes, reduced = [], Block.forward, Counter(), gradients._reduce
    pulse.HERE.begin(lambda said, named: told.append(said))

    def slow(self, *args, **words):
        passes[torch.is_grad_enabled()] += rank == size - 1
        if passes[True] % 2 and torch.is_grad_enabled():  # one of the two of a step
            time.sleep(1.25 * LIMIT)
        elif passes[False] == 1 and not torch.is_grad_enabled():
            time.sleep(2 * LIMIT)
        return block(self, *args, **words)

    def seen(*args, **words):
        time.sleep(1.0)
        return reduced(*args, **words)

    Block.forward, gradients._reduce = slow, seen
    with mesh.joined(rank, size, address, "cpu", layout=layout, hang_seconds=LIMIT) as here:
        runs.run(spec, replace(EVALS, tasks=(), validation_tokens=256), root, mesh=here, checkpoint_seconds=1.0)
    return told, passes[True]


@pytest.mark.soak
def test_ranks_that_wait_long_for_one_that_works_are_no_hang(tales, isolated):
    cuts = Layout(pipeline=2, micro_batch=2), Layout(data=2, shard=2, micro_batch=2)
    with ThreadPoolExecutor(len(cuts)) as pool:
        asked = [
            pool.submit(ranks.run, _works_slowly, 2, isolated / str(i), make_run(tales, steps=2), cut)
            for i, cut in enumerate(cuts)
        ]
    assert [found.result() for found in asked] == [[([], 0), ([], 4)]] * 2
