"""Half the micro-batch for want of memory: the same global batch, the same losses but for the last bits."""

import pytest

from gpt3core.errors import StoppedError
from gpt3core.parallel.layout import halved
from gpt3core.run import run
from gpt3core.store import files
from gpt3core.store.rundir import RunDir
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
