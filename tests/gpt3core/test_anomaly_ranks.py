"""Anomalies and fp16 over ranks, with real processes on gloo: what one rank sees, all of them do."""

import contextlib
import itertools
import math
from dataclasses import replace
from pathlib import Path

import pytest

from gpt3core import run as runs
from gpt3core.anomaly import AnomalySpec
from gpt3core.parallel import mesh
from gpt3core.parallel.layout import Layout
from gpt3core.sizes import nano
from gpt3core.store.rundir import RunDir
from gpt3core.train import loss_scale
from tests import conftest
from tests.conftest import make_run
from tests.gpt3core import ranks
from tests.gpt3core.outcomes import RESULT
from tests.gpt3core.poison import poisoned
from tests.gpt3core.test_anomaly import events

pytestmark = pytest.mark.xdist_group("ranks")  # one fork server serves them all

EVALS = replace(conftest.EVALS, shots=(0,), items=2, validation_tokens=512)
STEPS = 8
SKIP = AnomalySpec(policy="skip")
BACK = AnomalySpec(policy="rollback", back=2, ahead=1)
BAD = [4 * 4 + 1]  # a row of step 4 that the second of two data-parallel ranks has
COUNTS = ("anomalies", "overflows", "skipped_tokens", "passed_tokens", "roll_backs")


def make_spec(text, rule, precision="fp32"):
    run = make_run(text, steps=STEPS)
    shape = nano(32, n_layer=4, n_head=2, n_ctx=32, vocab_size=301, attention="alternating", band=6)
    data = replace(run.data, tokenizer="gpt2:301")
    return replace(run, model=shape, data=data, anomaly=rule, precision=precision)


def train(rank, size, address, root, spec, layout, stop_after=None, factor=math.nan, first=2.0**16):
    """Train as one of the ranks, on text that is poisoned; ``first`` is fp16's scale."""
    loss_scale.FIRST = first
    count = itertools.count(1)
    stop = (lambda: next(count) >= stop_after) if stop_after else (lambda: False)
    bad = poisoned(BAD, factor) if factor != 1.0 else contextlib.nullcontext()
    with bad, mesh.joined(rank, size, address, "cpu", layout=layout) as here:
        return runs.run(spec, EVALS, Path(root), mesh=here, stop=stop, checkpoint_seconds=1000.0)


def cut(root, spec, layout, *args, **words):
    return ranks.run(train, layout.world_size, str(root), spec, layout, *args, **words)


def ended(root, spec):
    """What must not depend on kills: the result, the curve, the held-out loss and the last checkpoint's tensors."""
    folder = RunDir(root, spec.run_id)
    result, last = folder.result(), folder.checkpoint(STEPS)
    tensors = {path.name: path.read_bytes() for path in sorted(last.glob("*.safetensors"))}
    curve = folder.curve().drop(columns="attempt").to_csv()
    said = tuple(result[name] for name in (*RESULT, *COUNTS))
    return said, curve, folder.evaluation(EVALS.eval_id)["loss"][0], tensors


def assert_close(root, one, spec):
    """The same decisions, and losses to 1e-5."""
    found, expected = (RunDir(place, spec.run_id) for place in (root, one))
    assert [found.result()[n] for n in COUNTS] == [expected.result()[n] for n in COUNTS]
    here, there = found.curve(), expected.curve()
    assert here.skipped.tolist() == there.skipped.tolist()
    kept = ~there.skipped
    tolerance = 1e-5 if spec.precision == "fp32" else 2e-3
    assert here.loss[kept].tolist() == pytest.approx(there.loss[kept].tolist(), abs=tolerance)
    assert events(root, spec, "anomaly") == [] or all(
        a["step"] == b["step"] and a["action"] == b["action"]
        for a, b in zip(events(root, spec, "anomaly"), events(one, spec, "anomaly"), strict=True)
    )


CUTS = [
    (BACK, Layout(data=2, shard=2)),
    (SKIP, Layout(data=2)),
    (BACK, Layout(pipeline=2, micro_batch=2)),
    (SKIP, Layout(tensor=2, micro_batch=2)),
    (BACK, Layout(tensor=2, pipeline=2, micro_batch=2)),
    (SKIP, Layout(pipeline=2, virtual=2, zero_bubble=True)),
    (BACK, Layout(data=4, shard=2)),
]
HALVES = [Layout(pipeline=2, micro_batch=2), Layout(tensor=2, data=2, shard=2)]
long = pytest.mark.long


@pytest.mark.parametrize(
    ("rule", "layout"),
    [pytest.param(*CUTS[0], marks=pytest.mark.soak), *(pytest.param(*case, marks=long) for case in CUTS[1:])],
    ids=lambda value: value.describe() if isinstance(value, Layout) else value.policy,
)
def test_what_one_rank_sees_all_do_and_killed_after_it_they_end_with_the_same_bits(tales, isolated, rule, layout):
    spec, size = make_spec(tales, rule), layout.world_size
    ranks.run(train, 1, str(isolated / "one"), spec, None)
    result = cut(isolated / "cut", spec, layout)[0]
    assert (result["status"], result["anomalies"]) == ("done", 1)
    assert_close(isolated / "cut", isolated / "one", spec)
    assert [kind for kind, _ in cut(isolated / "killed", spec, layout, 5)] == ["StoppedError"] * size
    cut(isolated / "killed", spec, layout)
    assert ended(isolated / "killed", spec) == ended(isolated / "cut", spec)


@pytest.mark.soak
@pytest.mark.parametrize(
    "layout", [HALVES[0], pytest.param(HALVES[1], marks=long)], ids=lambda layout: layout.describe()
)
def test_fp16_lowers_its_scale_on_all_ranks_alike(tales, isolated, layout):
    spec, size = make_spec(tales, SKIP, "fp16"), layout.world_size
    ranks.run(_train_fp16, 1, str(isolated / "one"), spec, None)
    result = ranks.run(_train_fp16, size, str(isolated / "cut"), spec, layout)[0]
    assert (result["status"], result["anomalies"]) == ("done", 0)
    assert result["overflows"] > 0
    assert_close(isolated / "cut", isolated / "one", spec)


@long
def test_fp16_over_ranks_that_were_killed_has_the_same_bits(tales, isolated):
    spec, layout = make_spec(tales, SKIP, "fp16"), HALVES[0]
    ranks.run(_train_fp16, 2, str(isolated / "cut"), spec, layout)
    for after in (3, None):
        ranks.run(_train_fp16, 2, str(isolated / "killed"), spec, layout, after)
    assert ended(isolated / "killed", spec) == ended(isolated / "cut", spec)


def _train_fp16(rank, size, address, root, spec, layout, stop_after=None):
    return train(rank, size, address, root, spec, layout, stop_after, factor=1.0, first=2.0**31)
