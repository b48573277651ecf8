"""Runs that begin alike: a branch ends with the bits of the run trained alone, and only its cost is smaller."""

from dataclasses import replace

import pytest

from gpt3core import run as runs
from gpt3core import schedule, trunk
from gpt3core.errors import StoreError
from gpt3core.numerics import Numerics
from gpt3core.spec import OptimSpec
from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from gpt3core.trunk import Prefix
from tests.conftest import EVALS, make_run
from tests.gpt3core.outcomes import outcome, run, stopped

STEPS = 40


@pytest.fixture
def long_run(tales):
    return of_length(tales, STEPS)


def ending(root, spec, step=16):
    """What must be the same to the bit of a run that did the steps after this one itself."""
    *same, _ = outcome(root, spec)
    curve = RunDir(root, spec.run_id).curve().drop(columns="attempt")
    return same, curve[curve.step > step].to_csv(index=False)


def of_length(tales, steps, **changed):
    """A run of so many steps whose last fifth is its decay, and whose warm-up is everybody's."""
    base, tokens = make_run(tales, steps=steps), steps * 128
    optim = replace(
        base.optim, schedule="wsd", warmup_tokens=5 * 128, stable_tokens=steps * 4 // 5 * 128, decay_tokens=tokens
    )
    return replace(base, optim=replace(optim, **changed))


def test_the_learning_rate_of_wsd_is_constant_then_falls_as_its_papers_say():
    spec = OptimSpec(
        lr=1.0, batch_tokens=1, warmup_tokens=10, schedule="wsd", stable_tokens=60, decay_tokens=100, final_fraction=0
    )
    rates = [schedule.learning_rate(spec, step) for step in range(120)]
    assert rates[:9] == pytest.approx([i / 10 for i in range(1, 10)])
    assert set(rates[9:60]) == {1.0}
    assert rates[60:100] == pytest.approx([1 - i / 40 for i in range(1, 41)])
    assert set(rates[100:]) == {0.0}
    root = replace(spec, decay_shape="1-sqrt", final_fraction=0.1)
    rates = [schedule.learning_rate(root, step) for step in range(120)]
    assert rates[60:100] == pytest.approx([0.1 + 0.9 * (1 - (i / 40) ** 0.5) for i in range(1, 41)])


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"schedule": "line"}, "allowed are cosine, wsd, linear"),
        ({"schedule": "wsd", "decay_shape": "sqrt"}, "allowed are linear, 1-sqrt"),
        ({"schedule": "wsd", "stable_tokens": 200}, "stable_tokens=200: it must lie in 0..100"),
        ({"schedule": "wsd", "stable_tokens": 5}, "warmup_tokens=10: it must lie in 0..5"),
        ({"stable_tokens": 50}, "of wsd only"),
        ({"decay_shape": "1-sqrt"}, "of wsd only"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(changed, sentence):
    with pytest.raises(ValueError, match=sentence):
        OptimSpec(**{"lr": 1.0, "batch_tokens": 1, "warmup_tokens": 10, "decay_tokens": 100, **changed})


def test_steps_in_common_are_those_with_equal_learning_rates(tales):
    long, short = of_length(tales, 40), of_length(tales, 20, decay_shape="1-sqrt")

    def rates(spec):
        return [schedule.learning_rate(spec.optim, step) for step in range(spec.steps)]

    equal = [a == b for a, b in zip(rates(long), rates(short), strict=False)]
    assert trunk.steps_in_common(long, short) == equal.index(False) == 16
    for other in (
        replace(short, seed=1),
        of_length(tales, 20, warmup_tokens=128),
        of_length(tales, 20, lr=0.02),
        replace(short, precision="auto"),
        make_run(tales, steps=20),
    ):
        assert trunk.steps_in_common(long, other) == 0


@pytest.mark.parametrize("steps", [20, 30])
def test_a_branch_ends_with_the_bits_of_the_run_trained_alone(tales, long_run, isolated, steps):
    short = of_length(tales, steps)
    alone = isolated / "alone"
    run(short, alone)
    step = trunk.steps_in_common(long_run, short)
    shared = isolated / "shared"
    run(long_run, shared, keep=[step])
    result = run(short, shared, prefix=Prefix(run_id=long_run.run_id, step=step))
    assert ending(shared, short, step) == ending(alone, short, step)
    assert result["trunk"] == f"{long_run.run_id}@{step}"
    assert RunDir(shared, short.run_id).curve()["step"].tolist() == list(range(step + 1, steps + 1))


def test_a_branch_that_is_stopped_goes_on_from_its_own_checkpoint(tales, long_run, isolated):
    short, alone, shared = of_length(tales, 20), isolated / "alone", isolated / "shared"
    run(short, alone)
    run(long_run, shared, keep=[16])
    stopped(short, shared, 2, prefix=Prefix(run_id=long_run.run_id, step=16))
    result = run(short, shared)  # whoever resumes it need not know of the trunk
    assert (ending(shared, short), result["trunk"]) == (ending(alone, short), f"{long_run.run_id}@16")


@pytest.mark.soak
def test_a_longer_run_goes_on_from_where_the_longest_began_its_decay(tales, long_run, isolated):
    longer, alone, shared = of_length(tales, 60), isolated / "alone", isolated / "shared"
    run(longer, alone)
    run(long_run, shared)
    run(longer, shared, prefix=Prefix(run_id=long_run.run_id, step=32))
    assert ending(shared, longer, 32) == ending(alone, longer, 32)


def test_a_branch_has_the_arithmetic_of_its_trunk(tales, isolated):
    long, short = (replace(of_length(tales, steps), kernel="auto") for steps in (40, 20))
    sdpa, softmax = (Numerics(precision="fp32", kernel=kernel) for kernel in ("sdpa", "softmax"))
    run(long, isolated, keep=[16], suggested=sdpa)
    result = run(short, isolated, suggested=softmax, prefix=Prefix(run_id=long.run_id, step=16))
    assert result["kernel"] == "sdpa"


@pytest.mark.parametrize("harm", ["gone", "damaged"])
def test_a_branch_whose_trunk_is_damaged_does_the_steps_itself_and_says_so(tales, long_run, isolated, harm):
    short, alone, shared = of_length(tales, 20), isolated / "alone", isolated / "shared"
    run(short, alone)
    run(long_run, shared, keep=[16])
    folder = RunDir(shared, long_run.run_id).checkpoint(16)
    if harm == "gone":
        files.remove_folder(folder)
    else:
        file = folder / "model-00000.safetensors"
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    result = run(short, shared, prefix=Prefix(run_id=long_run.run_id, step=16))
    assert outcome(shared, short) == outcome(alone, short)
    (sentence,) = result["damage"]
    assert f"could not start from step 16 of {long_run.run_id}" in sentence


def test_a_run_that_begins_otherwise_is_refused(tales, long_run, isolated):
    run(long_run, isolated)
    with pytest.raises(StoreError, match="does not begin as"):
        runs.run(make_run(tales, steps=50), EVALS, isolated, prefix=Prefix(run_id=long_run.run_id, step=32))
