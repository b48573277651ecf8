"""Label smoothing against torch's: the gradient is the smoothed loss's, the value the plain one's, in every layout."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from gpt3core.model import losses, native
from gpt3core.options import Options
from gpt3core.parallel import mesh
from gpt3core.parallel.layout import Layout
from gpt3core.parallel.parallelize import parallelize
from gpt3core.parallel.parts import part_of
from gpt3core.sizes import nano
from gpt3core.store.rundir import RunDir
from gpt3core.train.objective import Examples, loss_sum, smoothed
from tests.conftest import write_corpus
from tests.gpt3core import ranks
from tests.gpt3core.outcomes import run
from tests.gpt3core.test_layouts import make_spec

pytestmark = pytest.mark.xdist_group("ranks")  # one fork server serves them all

SMOOTHING = 0.1
VOCABULARY = 301


def torchs(logits, targets, counts, smoothing=SMOOTHING):
    """The summed loss by torch."""
    each = F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none")
    return (each if counts is None else each * counts).sum()


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("rows", [50, 700])  # one chunk, and three
@pytest.mark.parametrize("kernel", ["softmax", "native"])
def test_the_head_and_loss_have_the_gradient_of_torchs_smoothed_loss(kernel, rows, counted, monkeypatch):
    if kernel == "native" and native.library() is None:
        pytest.skip("needs a C compiler")
    monkeypatch.setattr(losses, "head_rows", lambda *_: 256)
    torch.manual_seed(0)
    hidden, weight = torch.randn(rows, 24, requires_grad=True), torch.randn(VOCABULARY, 24, requires_grad=True)
    targets = torch.randint(VOCABULARY, (rows,))
    counts = torch.randint(2, (rows,)).float() if counted else None
    found = losses.cross_entropy_sum(hidden, weight, targets, counts, kernel=kernel, smoothing=SMOOTHING)
    gradients = torch.autograd.grad(found, (hidden, weight))
    x, w = (t.detach().double().requires_grad_() for t in (hidden, weight))
    plain, smooth = (torchs(x @ w.t(), targets, counts, s) for s in (0.0, SMOOTHING))
    assert found.item() == pytest.approx(plain.item(), rel=1e-6)
    for gradient, expected in zip(gradients, torch.autograd.grad(smooth, (x, w)), strict=True):
        torch.testing.assert_close(gradient.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("counted", [False, True])
def test_logits_whole_or_cut_by_tokens_have_it_too(counted):
    torch.manual_seed(0)
    logits, targets = torch.randn(2, 9, VOCABULARY, requires_grad=True), torch.randint(VOCABULARY, (2, 9))
    mask = torch.randint(2, (2, 9)).float() if counted else None
    example = Examples(inputs=targets, targets=targets, mask=mask)
    expected = torchs(logits.flatten(0, 1), targets.flatten(), None if mask is None else mask.flatten())
    found = smoothed(loss_sum, SMOOTHING, VOCABULARY)(logits, example)
    assert found.item() == loss_sum(logits, example).item(), "to the bit"
    (gradient,) = torch.autograd.grad(found, logits)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, logits)[0])
    parts = logits.detach().split(151, dim=-1)
    slopes = []
    for first, part in zip((0, 151), parts, strict=True):
        part.requires_grad_()
        added = smoothed(lambda *_: torch.zeros(()), SMOOTHING, VOCABULARY, first)(part, example)
        slopes.append(torch.autograd.grad(added, part)[0])
    (plain,) = torch.autograd.grad(loss_sum(logits, example), logits)
    torch.testing.assert_close(torch.cat(slopes, dim=-1) + plain, gradient)


def _gradients(rank, size, address, layout):
    """A step's loss and gradients of a layout, gathered as parts."""
    spec = nano(32, n_layer=4, n_head=2, n_ctx=16, vocab_size=VOCABULARY, attention="alternating", band=4)
    with mesh.joined(rank, size, address, "cpu", layout=layout) as here:
        held = parallelize(spec, here, kernel="softmax", device="cpu", options=Options(label_smoothing=SMOOTHING))
        held.model.init_weights(0, part_of)
        ids = torch.randint(VOCABULARY, (4, 17), generator=torch.Generator().manual_seed(1))
        examples = [
            Examples(inputs=some[:, :-1], targets=some[:, 1:], mask=None) for some in ids.split(layout.micro_batch)
        ]
        loss = held.backward(examples, 1 / 64)
        parts = {n: part_of(p.grad) for n, p in held.model.named_parameters() if "up" in n}
        return loss.item(), {n: (part.start, part.values.numpy()) for n, part in parts.items()}


def test_every_layout_has_the_gradient_of_torchs_smoothed_loss():
    """Against a whole model whose logits go to torch's cross_entropy(label_smoothing=)."""
    spec = nano(32, n_layer=4, n_head=2, n_ctx=16, vocab_size=VOCABULARY, attention="alternating", band=4)
    plain = parallelize(spec, mesh.Mesh(), kernel="softmax", device="cpu").model
    plain.init_weights(0)
    ids = torch.randint(VOCABULARY, (4, 17), generator=torch.Generator().manual_seed(1))
    logits = plain(ids[:, :-1]).flatten(0, 1)
    (torchs(logits, ids[:, 1:].flatten(), None) / 64).backward()
    value = torchs(logits, ids[:, 1:].flatten(), None, 0.0).item() / 64
    whole = {name: p.grad for name, p in plain.named_parameters()}
    for layout in (Layout(micro_batch=4), Layout(tensor=2, micro_batch=2), Layout(pipeline=2, micro_batch=2)):
        found = ranks.run(_gradients, layout.world_size, layout)
        assert max(loss for loss, _ in found) == pytest.approx(value, abs=1e-6)
        names = set()
        for _, parts in found:
            for name, (start, values) in parts.items():
                names.add(name)
                some = tuple(slice(s, s + n) for s, n in zip(start, values.shape, strict=True))
                torch.testing.assert_close(torch.from_numpy(values), whole[name][some], rtol=1e-4, atol=1e-7)
        assert len(names) == 8


def test_the_loss_that_is_reported_is_the_plain_one(tmp_path, isolated):
    """The first step's, before smoothing has moved a weight, is that of the run without, to the bit."""
    plain = make_spec(write_corpus(tmp_path / "text"))
    smooth = replace(plain, options=Options(label_smoothing=SMOOTHING))
    curves = []
    for spec in (plain, smooth):
        run(spec, isolated)
        curves.append(RunDir(isolated, spec.run_id).curve())
    assert curves[0].loss[0] == curves[1].loss[0]
    assert curves[0].grad_norm[0] != curves[1].grad_norm[0]
    assert (curves[0].loss[1:] != curves[1].loss[1:]).all()
