"""A worker whose allocator refuses: once more with half the micro-batch, the same global batch; then it is said."""

import pytest

from gpt3core.store import files
from gpt3core.store.sweepdir import SweepDir
from sweeps.driving import driver, taking
from tests.cluster.surviving import Gang

pytestmark = [pytest.mark.cluster, pytest.mark.soak, pytest.mark.timeout(300)]
SHORT = "tests.cluster.bodies:short_of_memory"


def drive(gang, launcher, enough):
    files.make_folder(gang.root)
    (gang.root / "enough").write_text(str(enough))
    sweep = SweepDir(gang.root, gang.recipe.name)
    with sweep.owned():
        taken = taking.take(gang.recipe, gang.cells, sweep)
        return driver.Driver(gang.recipe, taken, launcher, gang.heard, entry=SHORT).drive()


def began(gang):
    """The micro-batch and the step of each start."""
    events = [event for attempt in gang.run.attempts() for event in files.read_lines(attempt / "events.jsonl")]
    return [(event["micro_batch"], event["step"]) for event in events if event["event"] == "start"]


@pytest.mark.parametrize("enough", [1, 2])
def test_half_the_micro_batch_is_tried_once_and_then_it_is_said(launcher, tmp_path, isolated, enough):
    gang = Gang(tmp_path, steps=60)
    outcome = drive(gang, launcher, enough)
    rows = gang.spec.optim.batch_tokens // gang.spec.model.n_ctx
    assert [(min(rows, micro_batch), step) for micro_batch, step in began(gang)] == [(rows, 0), (rows // 2, 0)]
    assert {event["cause"] for event in gang.events("failed")} == {"memory"}
    said = [line for line in gang.heard.lines if "out of memory" in line]
    assert "you tried to allocate 1125899906842624 bytes" in said[0], "torch's own words"
    if enough == 1:
        assert outcome.done == [gang.spec.run_id]
        assert "goes on with half of it and the same global batch" in said[0]
        gang.assert_close(tmp_path / "undisturbed", 1e-5)
    else:
        assert list(outcome.failed) == [gang.spec.run_id]
        assert "out of memory again" in outcome.failed[gang.spec.run_id]
        assert "(same global batch)" in said[-1]
