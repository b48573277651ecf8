"""What a step says arrives later than it is said: no wait in a step, and nothing lost or misplaced by the delay."""

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gpt3core import pulse, schedule
from gpt3core.data.loader import Batch
from gpt3core.errors import StoppedError
from gpt3core.parallel.layout import Layout
from gpt3core.parallel.mesh import Mesh
from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from gpt3core.train import loop, readback, resume
from gpt3core.train.batches import Batches
from tests.gpt3core.outcomes import outcome, run, weights

WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique_dim"}


class Asked(TorchDispatchMode):
    """Every operator that ran, by name."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def behind(monkeypatch):
    """The host one step ahead of what it reads, as on a GPU."""
    monkeypatch.setitem(readback.LAG, "cpu", 1)


@pytest.mark.parametrize("kernel", ["softmax", "sdpa"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_no_operator_of_a_step_brings_a_value_to_the_host(tiny_run, isolated, kernel, precision):
    spec = replace(tiny_run, kernel=kernel, precision=precision)
    RunDir(isolated, spec.run_id).create(spec)
    here = loop.Trainer(spec, isolated)
    here.batches = replace(here.batches, micro_batch=3)
    here._update(1e-3)
    with Asked() as asked:
        said = here._update(1e-3)
        assert said.shape == (4,)
    assert "mm" in asked.names or "addmm" in asked.names
    assert not WAITS & set(asked.names)
    with Asked() as asked:
        said[0].item()
    assert WAITS & set(asked.names), "what would have shown a wait"


def test_what_a_replica_sends_to_a_gpu_lies_in_one_piece_of_pinned_memory(monkeypatch):
    """Of its rows among those of others a copy would be made in other memory, for which the host waits."""
    sent = []

    class Pinned:
        def __init__(self, rows):
            sent.append(rows)

        def to(self, device, *, non_blocking):
            assert (device, non_blocking) == ("cuda", True)
            return sent[-1]

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda rows: Pinned(rows))
    mesh = Mesh(rank=1, world_size=2, layout=Layout(data=2))
    monkeypatch.setattr(Mesh, "place", lambda self, axis: int(axis == "replicate"))
    tokens = np.arange(4 * 6).reshape(4, 6)
    loader = SimpleNamespace(batch=lambda first, last: Batch(tokens=tokens, mask=np.ones((4, 5), dtype=np.bool_)))
    dealt = Batches(loader=loader, objective="next_token", mesh=mesh, device="cuda", micro_batch=1)
    inputs = torch.cat([some.inputs for some in dealt.take(0, 4).examples])
    assert inputs.tolist() == tokens[1::2, :-1].tolist()
    assert [rows.is_contiguous() for rows in sent] == [True]


def test_a_run_that_reads_late_has_the_same_bits(tiny_run, isolated, behind, monkeypatch):
    run(tiny_run, isolated / "late")
    monkeypatch.setitem(readback.LAG, "cpu", 0)
    run(tiny_run, isolated / "soon")
    assert outcome(isolated / "late", tiny_run) == outcome(isolated / "soon", tiny_run)


def test_a_stop_is_honoured_one_step_late_with_every_row_of_the_curve(tiny_run, isolated, behind):
    count = itertools.count(1)
    with pytest.raises(StoppedError):
        run(tiny_run, isolated, stop=lambda: next(count) >= 5)
    folder = RunDir(isolated, tiny_run.run_id)
    assert folder.checkpoint_steps()[-1] == 6
    assert folder.curve()["step"].tolist() == [1, 2, 3, 4, 5, 6]
    run(tiny_run, isolated)
    run(tiny_run, isolated / "whole")
    assert weights(isolated, tiny_run) == weights(isolated / "whole", tiny_run)


@pytest.mark.parametrize("lag", [0, 1])
def test_a_divergence_is_recorded_where_it_happened(tiny_run, isolated, monkeypatch, lag):
    monkeypatch.setitem(readback.LAG, "cpu", lag)
    rate = schedule.learning_rate
    monkeypatch.setattr(schedule, "learning_rate", lambda spec, step: math.inf if step == 7 else rate(spec, step))
    result = run(tiny_run, isolated)
    folder = RunDir(isolated, tiny_run.run_id)
    (event,) = [e for e in files.read_lines(folder.attempts()[0] / "events.jsonl") if e["event"] == "diverged"]
    assert (result["status"], result["steps"], event["step"]) == ("diverged", 9, 9), "step 8's update broke the weights"
    assert folder.curve()["step"].tolist() == list(range(1, 10))
    assert not folder.checkpoint_steps()


def test_nothing_is_read_before_it_may_be():
    late = readback.Readback("cuda")
    for step in range(1, 4):
        late.add(torch.tensor([1.0 * step, 0.5, step == 2, 0]), step=step, tokens=step * 10, lr=0.1)
        assert [told.step for told in late.read()] == ([step - 1] if step > 1 else [])
    (last,) = late.read(everything=True)
    assert (last.step, last.tokens, last.loss, last.stop, last.due, last.finite) == (3, 30, 3.0, False, False, True)
    assert late.read(everything=True) == []


def test_what_is_long_before_the_first_step_says_so(tiny_run, isolated, monkeypatch):
    """Kernels are timed, and compiled, while other ranks wait for the choice."""
    seen, chosen = [], resume.arithmetic
    monkeypatch.setattr(resume, "arithmetic", lambda *asked: seen.append(pulse.HERE.doing) or chosen(*asked))
    RunDir(isolated, tiny_run.run_id).create(tiny_run)
    loop.Trainer(tiny_run, isolated)
    assert seen == ["choosing its arithmetic"]
    assert not pulse.HERE.doing


def test_a_host_that_waits_for_a_step_waits_for_all_ranks_but_in_the_first_which_may_compile():
    seen, here = [], pulse.HERE
    there = SimpleNamespace(synchronize=lambda: seen.append((here.waiting, here.doing, here.computes)))
    reading = readback.Readback("cpu")
    for step in (1, 2):
        reading.add(torch.zeros(4), step=step, tokens=0, lr=0.0)
        known, said, _ = reading._waiting.pop()
        reading._waiting.append((known, said, there))
        reading.read()
    assert seen == [(1, "in its first step", False), (1, "", False)]
