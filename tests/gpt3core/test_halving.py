"""Half the micro-batch for want of memory: the same global batch, the same losses but for the last bits."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from gpt3core.errors import StoppedError
from gpt3core.numerics import Numerics
from gpt3core.parallel.layout import Layout, halved
from gpt3core.parallel.memory import USABLE, memory
from gpt3core.parallel.mesh import Mesh
from gpt3core.run import run
from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from gpt3core.train import process, resume
from tests.conftest import EVALS, make_run

TOLERANCE = 1e-5  # of a step's loss, nats per token: sums in another order, as between two layouts


@pytest.mark.parametrize(("size", "times", "left"), [(8, 1, 4), (8, 2, 2), (6, 1, 3), (6, 2, 1), (5, 1, 1), (1, 3, 1)])
def test_a_micro_batch_is_cut_into_equal_parts(size, times, left):
    assert halved(size, times) == left


def started_with(folder):
    events = [event for attempt in folder.attempts() for event in files.read_lines(attempt / "events.jsonl")]
    return [event["micro_batch"] for event in events if event["event"] == "start"]


def test_a_run_goes_on_with_half_its_micro_batch_to_the_same_losses(tales, isolated):
    spec = make_run(tales, steps=30)
    rows = spec.optim.batch_tokens // spec.model.n_ctx
    whole = run(spec, EVALS, isolated / "whole")
    calls = iter(range(100))

    def stopped():
        return next(calls) >= 12

    with pytest.raises(StoppedError):
        run(spec, EVALS, isolated / "halved", stop=stopped)
    ended = run(spec, EVALS, isolated / "halved", halvings=1)
    folder, undisturbed = (RunDir(isolated / name, spec.run_id) for name in ("halved", "whole"))
    assert started_with(folder)[1:] == [rows // 2]
    assert folder.micro_batch() == rows // 2
    assert (ended["tokens"], ended["steps"]) == (whole["tokens"], whole["steps"])
    here, there = folder.curve(), undisturbed.curve()
    assert here.tokens.tolist() == there.tokens.tolist(), "the same text, step by step"
    assert here.loss.tolist() == pytest.approx(there.loss.tolist(), abs=TOLERANCE)
    run(spec, EVALS, isolated / "halved", halvings=1)  # asked again, nothing is halved again
    assert folder.micro_batch() == rows // 2


@pytest.mark.parametrize(("share", "sequences"), [(0.25, 2), (0.5, 4), (1.0, 8), (2.0, 8)])
def test_runs_that_share_a_gpu_fit_it_together(share, sequences, tales, monkeypatch):
    spec = make_run(tales)
    words = {"sequences": 8, "numerics": Numerics(precision="fp32", kernel="sdpa")}
    spec = replace(spec, optim=replace(spec.optim, batch_tokens=8 * spec.model.n_ctx))

    def needed(size):
        return memory(spec.model, Layout(micro_batch=size), **words).total

    room = max(needed(sequences) / min(1, share), needed(8)) / USABLE  # of the whole GPU
    granted = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", granted.append)
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda: granted[-1])
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=room))
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: None)
    process.take_gpu(0, share)
    chosen = {"precision": "fp32", "kernel": "sdpa", "compile": "none"}
    size = resume._under_layout(chosen, spec, "cuda", Mesh())["micro_batch"]
    assert needed(size) <= granted[-1] * USABLE * room
    assert size >= sequences
