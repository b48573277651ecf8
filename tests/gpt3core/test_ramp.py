"""The batch grows linearly in tokens: against the line it follows, and as a run trains it."""

from dataclasses import replace

import numpy as np
import pytest

from gpt3core.model.gpt_spec import GPTSpec
from gpt3core.options import Options
from gpt3core.parallel.layout import Layout
from gpt3core.ramp import Ramp
from gpt3core.spec import OptimSpec
from gpt3core.store.rundir import RunDir
from tests.conftest import make_run, write_corpus
from tests.gpt3core.outcomes import outcome, run, stopped
from tests.gpt3core.test_layouts import assert_equal, cut, make_spec

GPT3 = Ramp(batch_tokens=3_145_728, start=32_768, tokens=12_000_000_000)  # the 175B: 3.2M after 12B


@pytest.fixture
def ramped(tales):
    """Batches of one to four sequences over the first 960 tokens."""
    spec = make_run(tales, steps=30)
    optim = replace(spec.optim, ramp_start=32, ramp_tokens=960)
    return replace(spec, optim=optim, tokens=optim.ramp.tokens_at(40))


@pytest.mark.parametrize("ramp", [GPT3, Ramp(batch_tokens=96, start=32, tokens=500)])
def test_a_batch_is_the_lines_value_in_whole_first_batches(ramp):
    tokens = step = 0
    while tokens < 1.2 * ramp.tokens:
        share = min(1.0, tokens / ramp.tokens)
        line = ramp.start + (ramp.batch_tokens - ramp.start) * share
        assert ramp.batch_at(step) == ramp.start * int(line / ramp.start + 1e-9)
        assert ramp.tokens_at(step) == tokens
        assert ramp.steps_within(tokens) == step
        assert ramp.steps_within(tokens + ramp.batch_at(step) - 1) == step
        tokens, step = tokens + ramp.batch_at(step), step + 1
    assert ramp.batch_at(step) == ramp.batch_tokens


@pytest.mark.parametrize("tokens", [1, 100, 1000])
def test_a_ramp_shorter_than_its_batches_skips_some(tokens):
    ramp = Ramp(batch_tokens=4096, start=64, tokens=tokens)
    batches = [ramp.batch_at(step) for step in range(40)]
    assert batches == sorted(batches)
    assert batches[-1] == 4096
    assert [ramp.tokens_at(step) for step in range(41)] == [0, *np.cumsum(batches)]


def test_without_a_ramp_all_batches_are_alike():
    ramp = OptimSpec(lr=1, batch_tokens=128, warmup_tokens=0, decay_tokens=1).ramp
    assert [ramp.batch_at(step) for step in (0, 1, 10**9)] == [128] * 3
    assert ramp.tokens_at(10**9) == 128 * 10**9


def test_a_ramped_run_sees_every_sequence_once_in_order(ramped, isolated, monkeypatch):
    from gpt3core.data.loader import Loader

    seen, batch = [], Loader.batch
    monkeypatch.setattr(Loader, "batch", lambda self, *place: seen.append(place) or batch(self, *place))
    run(ramped, isolated)
    sizes = [last - first for first, last in seen]
    assert sizes == sorted(sizes)
    assert set(sizes) == {1, 2, 3, 4}
    assert [first for first, _ in seen] == [0, *(last for _, last in seen[:-1])]
    assert 32 * seen[-1][1] == ramped.tokens
    curve = RunDir(isolated, ramped.run_id).curve()
    assert curve.tokens.tolist() == [ramped.tokens_at(step) for step in range(1, 41)]


def test_a_ramped_run_resumes_in_the_midst_of_its_ramp_to_the_same_bits(ramped, isolated):
    run(ramped, isolated / "whole")
    for after in (3, 9):
        stopped(ramped, isolated / "parts", after)
    run(ramped, isolated / "parts")
    assert outcome(isolated / "parts", ramped) == outcome(isolated / "whole", ramped)


@pytest.mark.soak
@pytest.mark.xdist_group("ranks")  # one fork server serves them all
def test_a_ramped_run_goes_on_by_other_layouts_to_the_losses_of_one_process(isolated, tmp_path):
    """With all that is drawn or masked by a sequence's number and place: dropout, the rate's noise, documents."""
    spec = make_spec(write_corpus(tmp_path / "text"))
    optim = replace(spec.optim, ramp_start=64, ramp_tokens=900, batch_tokens=256)
    options = Options(dropout=0.1, label_smoothing=0.1, lr_noise=0.1)
    model = replace(spec.model, document_end=300)
    spec = replace(spec, optim=optim, tokens=optim.ramp.tokens_at(11), model=model, options=options)
    assert {optim.ramp.batch_at(step) for step in range(11)} == {64, 128, 192, 256}
    cut(isolated / "one", spec, Layout())
    layouts = Layout(data=2), Layout(tensor=2), Layout(pipeline=2), Layout(context=2), Layout(data=2, shard=2)
    for layout in layouts[:-1]:
        assert {kind for kind, _ in cut(isolated / "cut", spec, layout, 2)} == {"StoppedError"}
    cut(isolated / "cut", spec, layouts[-1])
    assert_equal(isolated / "cut", isolated / "one", spec)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"ramp_start": 32}, "a ramp needs both"),
        ({"ramp_tokens": 960}, "a ramp needs both"),
        ({"ramp_start": 48, "ramp_tokens": 960}, "batch_tokens=128 is no multiple of it"),
        ({"ramp_start": -32, "ramp_tokens": 960}, "ramp_start"),
    ],
)
def test_a_ramp_that_cannot_be_is_refused(changed, sentence):
    with pytest.raises(ValueError, match=sentence):
        OptimSpec(lr=1, batch_tokens=128, warmup_tokens=0, decay_tokens=1, **changed)


def test_batches_hold_whole_sequences_and_runs_whole_batches(ramped):
    assert isinstance(ramped.model, GPTSpec)
    with pytest.raises(ValueError, match="ramp_start=16 is not a whole number of sequences"):
        replace(ramped, optim=replace(ramped.optim, ramp_start=16), tokens=ramped.optim.batch_tokens * 100 + 960)
    with pytest.raises(ValueError, match=f"{ramped.tokens} are"):
        replace(ramped, tokens=ramped.tokens + 1)
