"""Compiled runs: asked for or chosen, recorded and kept; what cannot be compiled is refused."""

import functools
import shutil
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch._dynamo.callback import CallbackTrigger
from torch.nn import functional as F

from gpt3core import pulse
from gpt3core import run as runs
from gpt3core.errors import UsageError
from gpt3core.model import attention, losses, registry
from gpt3core.model.gpt import Attention, Head
from gpt3core.model.patterns import Pattern
from gpt3core.numerics import Numerics
from gpt3core.options import Options
from gpt3core.parallel import compiled, recompute
from gpt3core.parallel.layout import Layout
from gpt3core.parallel.mesh import Mesh
from gpt3core.sizes import nano
from gpt3core.spec import RunSpec, as_dict, explain, from_dict
from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from gpt3core.train import compiling, resume, timing
from sweeps.planning import grid, recipe
from tests.conftest import EVALS
from tests.gpt3core.outcomes import outcome, run, stopped, weights

SHAPE = nano(16, n_layer=2, n_ctx=160, vocab_size=300, attention="alternating", band=4)
SOFTMAX = Numerics(precision="fp32", kernel="softmax")
SMOOTHED = Options(label_smoothing=0.1)


@pytest.fixture
def traced(monkeypatch):
    """Compilation whose graphs torch then runs as they are: the same operators, so the same bits, in seconds."""
    count = []

    def backend(graph, inputs):
        count.append(graph)
        return graph.forward

    here = functools.partial(torch.compile, backend=backend)
    monkeypatch.setattr(compiled.torch, "compile", here)
    torch._dynamo.reset()
    losses._compiled_rows.cache_clear()
    yield count
    losses._compiled_rows.cache_clear()


def test_a_process_says_while_it_compiles_that_it_does_and_waits_for_no_rank_meanwhile():
    compiled.begin()
    compiles = torch._dynamo.callback_handler.install_callbacks(CallbackTrigger.DYNAMO, "0/0")
    with pulse.HERE.at_gate(works=True):
        with compiles:
            assert (pulse.HERE.doing, pulse.HERE.waiting) == ("compiling", 0)
        assert (pulse.HERE.doing, pulse.HERE.waiting) == ("", 1)


@pytest.mark.parametrize(("n_ctx", "few"), [(256, True), (16_384, True), (65_536, False)])
def test_the_chunks_of_a_head_are_those_of_a_micro_batch_which_has_a_sequence_at_least(n_ctx, few):
    head = Head(torch.nn.Parameter(torch.empty(1024, 8)), "softmax")
    assert compiled._few(4, head, "cpu", n_ctx) == few


@pytest.mark.soak
@pytest.mark.parametrize(("how", "n_layer", "graphs"), [("blocks", 4, 2), ("all", 4, 1), ("all", 6, 3)])
def test_a_run_that_asks_for_it_has_the_graphs_of_its_blocks_and_loss_and_keeps_them(
    tiny_run, isolated, traced, how, n_layer, graphs
):
    spec = replace(tiny_run, compile=how, model=replace(tiny_run.model, n_layer=n_layer))
    folder = stopped(spec, isolated, 3)
    assert files.read_object(folder.path / "numerics.json")["compile"] == how
    assert len(traced) == graphs, "dense and banded: equal blocks share one, and nothing breaks one; few are one"
    assert run(spec, isolated)["compile"] == how
    assert len(traced) <= 2 * graphs, "evaluation has none"
    events = [event for attempt in folder.attempts() for event in files.read_lines(attempt / "events.jsonl")]
    assert [event["compile"] for event in events if event["event"] == "start"] == [how, how]
    plain = replace(spec, compile="none")
    run(plain, isolated)
    assert weights(isolated, spec) == weights(isolated, plain)


def test_a_compiled_runs_micro_batches_all_have_the_same_shape(tiny_run, isolated):
    """On a GPU they do in any case, where memory is known; each other shape would be compiled for itself."""
    optim = replace(tiny_run.optim, batch_tokens=12 * 32, ramp_start=3 * 32, ramp_tokens=960)
    spec = replace(tiny_run, optim=optim, tokens=optim.ramp.tokens_at(20))
    record = {"precision": "fp32", "kernel": "softmax", "threads": 1, "compile": "blocks"}
    for how, size in (("blocks", 3), ("none", 16_384 // 32)):
        assert resume._under_layout({**record, "compile": how}, spec, "cpu", Mesh())["micro_batch"] == size
    assert {spec.optim.ramp.batch_at(step) // 32 for step in range(20)} == {3, 6, 9, 12}


@pytest.mark.soak  # torch's compiler is imported
def test_a_worker_compiles_each_of_many_models(traced):
    """Torch gives a function up after eight forms of it, and the blocks of all models are one function."""
    for width in range(16, 96, 16):
        model = registry.of(SHAPE).build(replace(SHAPE, n_ctx=32, d_model=width, d_head=width), kernel="softmax")
        compiled.compile_blocks(model, registry.of(SHAPE).cuts, "cpu")
        before = len(traced)
        model(torch.arange(32)[None])
        assert len(traced) - before == 2, f"width {width}: dense and banded"


@pytest.mark.soak  # torch's compiler is imported
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("how", ["none", "full"])
def test_a_gpus_masks_are_no_part_of_what_is_compiled(traced, monkeypatch, how):
    """Forward, on the CPU; with the mask inside, every pass would make it, and no block computed again is compiled."""
    model, cuts = registry.of(SHAPE).build(SHAPE, kernel="sdpa"), registry.of(SHAPE).cuts
    model.init_weights(0)
    ids = torch.arange(160)[None]
    with torch.no_grad():
        expected = model(ids)

    def as_on_a_gpu(q, k, v, *, window, n_ctx, mask, **_):
        if window == n_ctx:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return attention.flex(q, k, v, Pattern(kind="banded", size=window), mask=mask)

    monkeypatch.setattr(Attention, "attend", staticmethod(as_on_a_gpu))
    recompute.wrap(model, cuts, how)
    compiled.compile_blocks(model, cuts, "cpu")
    for block in model.blocks.values():
        block.attention.prepare(torch.device("cpu"))
    model.requires_grad_(False)  # on a CPU it has no backward pass
    torch.testing.assert_close(model(ids), expected)
    graphs = [part.graph for graph in traced for part in graph.modules() if hasattr(part, "graph")]
    operators = {str(getattr(node.target, "__name__", "")) for graph in graphs for node in graph.nodes}
    assert len(traced) == 2, "banded and dense, each in one piece"
    assert "flex_attention" in operators
    assert not operators & {"argsort", "arange"}


@pytest.mark.soak  # torch's compiler is imported
def test_a_stage_without_a_head_has_its_blocks_compiled(monkeypatch):
    monkeypatch.setattr(compiled.torch, "compile", lambda forward, dynamic: forward)
    stage = registry.of(SHAPE).build(SHAPE, kernel="softmax")
    stage.head = None
    before = [block.forward for block in stage.blocks.values()]
    compiled.compile_blocks(stage, registry.of(SHAPE).cuts, "cpu")
    assert all(block.forward != former for block, former in zip(stage.blocks.values(), before, strict=True))


def test_a_record_that_is_older_than_compilation_was_not_compiled(tiny_run, isolated):
    folder = stopped(tiny_run, isolated, 3)
    record = files.read_object(folder.path / "numerics.json")
    assert record.pop("compile") == "none"
    files.write_json(folder.path / "numerics.json", record)
    assert run(tiny_run, isolated)["compile"] == "none"


def test_what_is_asked_for_is_hashed_and_its_default_is_not(tiny_run):
    asked = replace(tiny_run, compile="blocks")
    assert asked.run_id != tiny_run.run_id == replace(tiny_run, compile="auto").run_id
    assert explain(tiny_run, asked) == ["compile: auto -> blocks"]
    assert from_dict(RunSpec, as_dict(asked)) == asked
    old = as_dict(tiny_run)
    del old["compile"]
    assert from_dict(RunSpec, old).run_id == tiny_run.run_id


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"compile": "whole"}, "compile='whole': allowed are auto, none, blocks, all"),
        ({"compile": "blocks", "kernel": "native"}, "give compile=none, or another kernel"),
        ({"compile": "all", "kernel": "native"}, "give compile=none, or another kernel"),
        ({"compile": "all", "options": SMOOTHED}, "options.label_smoothing=0.1: .* give compile=blocks or auto"),
    ],
)
def test_what_cannot_be_compiled_is_refused(tiny_run, fields, words):
    with pytest.raises(ValueError, match=words):
        replace(tiny_run, **fields)


def test_layouts_that_cut_blocks_and_machines_without_a_compiler_are_refused(tiny_run, monkeypatch):
    spec = replace(tiny_run, compile="blocks")
    for layout in (Layout(context=2, tensor=2), Layout(pipeline=2, zero_bubble=True)):
        with pytest.raises(ValueError, match=r"compile=blocks: not of .* leave compile at auto, or give compile=none"):
            compiling.choose(spec, SOFTMAX, "cpu", layout=layout)
    for layout in (Layout(tensor=2), Layout(pipeline=2, virtual=2)):
        assert compiling.choose(spec, SOFTMAX, "cpu", layout=layout) == (SOFTMAX, "blocks")
        with pytest.raises(ValueError, match=r"compile=all: not of .* leave compile at auto, or give compile=blocks"):
            compiling.choose(replace(spec, compile="all"), SOFTMAX, "cpu", layout=layout)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(ValueError, match=r"needs a C\+\+ compiler .* leave compile at auto"):
        compiling.choose(spec, SOFTMAX, "cpu")
    assert compiling.choose(tiny_run, SOFTMAX, "cpu") == (SOFTMAX, "none")


def test_a_plan_refuses_what_would_not_be_compiled():
    keys = ["recipe=gpt3", "placement.gpus=1", "placement.workers=8", "placement.tensor=8", "sizes=[13B]"]
    for compile, refused in (("auto", False), ("blocks", False), ("all", True)):
        asked = recipe.load([*keys, f"compile={compile}"])
        assert asked.compile == compile
        with (
            pytest.raises(UsageError, match=r"13B.*compile=all: not of a run over tensor 8")
            if refused
            else nullcontext()
        ):
            assert {run.compile for run in grid.build(asked, "0" * 64).runs} == {compile}


class Timed:
    """A machine on which passes take what is said, and a compilation ``once``."""

    def __init__(self, monkeypatch, plain, compiled, once):
        self.calls = []

        def pass_seconds(model, numerics, device, changed=lambda _: None):
            compile_too = isinstance(changed, functools.partial)
            self.calls.append((numerics.kernel, compile_too))
            return [once + compiled] + [compiled] * 5 if compile_too else [plain] * 6

        monkeypatch.setattr(timing, "pass_seconds", pass_seconds)


@pytest.mark.parametrize(
    ("passes", "plain", "once", "chosen"),
    [
        (1_000, 1.0, 0.0, "none"),  # too short to be tried
        (20_000_000, 1.0, 60.0, "all"),
        (20_000_000, 1.0, 60.0 + 0.3 * 20_000_000, "none"),  # a compilation that would eat its gain
        (20_000_000, 0.72, 60.0, "none"),  # no gain to speak of
    ],
)
def test_auto_compiles_on_a_cpu_where_it_pays_within_the_run(
    tiny_run, isolated, monkeypatch, passes, plain, once, chosen
):
    batch = tiny_run.optim.batch_tokens
    tokens = passes * 1024 // batch * batch
    spec = replace(tiny_run, tokens=tokens, kernel="auto")
    machine = Timed(monkeypatch, plain, 0.7, once)
    native = Numerics(precision="fp32", kernel="native")
    numerics, how = compiling.choose(spec, native, "cpu")
    assert how == chosen
    assert numerics == (SOFTMAX if chosen == "all" else native)
    assert machine.calls == ([] if passes == 1_000 else [("native", False), ("softmax", True)])
    assert compiling.choose(spec, native, "cpu") == (numerics, how)
    assert len(machine.calls) in (0, 2), "timed once a machine"


def test_auto_compiles_the_blocks_alone_where_the_loss_is_smoothed(tiny_run, isolated, monkeypatch):
    spec = replace(tiny_run, tokens=tiny_run.optim.batch_tokens << 26, options=SMOOTHED)
    Timed(monkeypatch, 1.0, 0.7, 60.0)
    monkeypatch.setattr(compiling, "possible", lambda _: True)
    for device in ("cpu", "cuda"):
        assert compiling.choose(spec, SOFTMAX, device) == (SOFTMAX, "blocks")
        assert compiling.choose(replace(spec, options=Options()), SOFTMAX, device) == (SOFTMAX, "all")
    replace(spec, compile="blocks")


def test_a_layout_that_cuts_blocks_runs_a_compiled_record_as_it_is(tiny_run):
    record = {"precision": "fp32", "kernel": "softmax", "threads": 1, "compile": "blocks", "micro_batch": 2}
    for layout, asked, there in (
        (Layout(context=2), "blocks", "none"),
        (Layout(tensor=2), "blocks", "blocks"),
        (Layout(tensor=2), "all", "blocks"),
        (Layout(data=2, shard=2), "all", "all"),
    ):
        mesh = type("Mesh", (), {"layout": layout, "planned": False})()
        assert resume._under_layout({**record, "compile": asked}, tiny_run, "cpu", mesh)["compile"] == there


@pytest.mark.long  # the C++ compiler takes a minute
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_code_trains_as_plain_code_and_resumes_to_its_bits(tiny_run, isolated):
    spec = replace(tiny_run, compile="blocks")
    for after in (4, 9):
        stopped(spec, isolated / "cut", after)
    run(spec, isolated / "cut")
    run(spec, isolated / "whole")
    assert outcome(isolated / "cut", spec) == outcome(isolated / "whole", spec)
    plain = replace(spec, compile="none")
    runs.run(plain, EVALS, isolated)
    curves = [RunDir(root, s.run_id).curve()["loss"] for root, s in ((isolated / "whole", spec), (isolated, plain))]
    assert curves[0].to_numpy() == pytest.approx(curves[1].to_numpy(), abs=1e-4)
