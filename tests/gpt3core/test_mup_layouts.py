"""Learning rates by parameter over ranks: runs with muP that are cut by a layout have the losses of one process."""

import shutil
from dataclasses import replace

import pytest

from gpt3core.parallel.layout import Layout
from tests.conftest import write_corpus
from tests.gpt3core import ranks
from tests.gpt3core.test_layouts import assert_equal, curve, cut, files_of, make_spec, train

pytestmark = pytest.mark.xdist_group("ranks")  # one fork server serves them all


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A run four times as wide as its base, heads too, and the store in which one process trained it."""
    place = tmp_path_factory.mktemp("one")
    spec = make_spec(write_corpus(place / "text"))
    spec = replace(spec, model=replace(spec.model, mup_base_width=8, mup_base_d_head=4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISOFLOP_CACHE", str(place / "cache"))
        ranks.run(train, 1, str(place), spec)
    return spec, place


MORE = [
    Layout(data=2, shard=2, recompute="full"),
    Layout(pipeline=2, virtual=2, zero_bubble=True),
    Layout(context=2, micro_batch=4, recompute="selective"),
    Layout(tensor=2, pipeline=2, data=2, shard=2, micro_batch=1),
]


@pytest.mark.soak
@pytest.mark.parametrize(
    "layout",
    [Layout(tensor=2, micro_batch=2), *(pytest.param(layout, marks=pytest.mark.long) for layout in MORE)],
    ids=lambda layout: layout.describe(),
)
def test_a_cut_run_has_the_losses_of_one_process(one, isolated, layout):
    spec, place = one
    result, *_ = cut(isolated, spec, layout)
    assert isinstance(result, dict), result
    assert_equal(isolated, place, spec)


@pytest.mark.soak
def test_a_resume_has_the_same_bits_by_the_same_layout_and_the_same_losses_alone(one, isolated):
    """Pipeline and FSDP: the tied head's copy in the last stage has the embedding's learning rate."""
    spec, place = one
    layout = Layout(pipeline=2, data=2, shard=2)
    cut(isolated / "whole", spec, layout)
    assert_equal(isolated / "whole", place, spec)
    assert [kind for kind, _ in cut(isolated / "cut", spec, layout, 3)] == ["StoppedError"] * 4
    shutil.copytree(isolated / "cut", isolated / "alone")
    cut(isolated / "alone", spec, Layout())
    assert_equal(isolated / "alone", place, spec)
    cut(isolated / "cut", spec, layout)
    assert files_of(isolated / "cut", spec) == files_of(isolated / "whole", spec)
    assert curve(isolated / "cut", spec) == curve(isolated / "whole", spec)
