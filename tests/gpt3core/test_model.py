"""The model against a plain re-implementation from the paper's description, and its parts against closed forms."""

import math

import numpy as np
import pytest
import torch

from gpt3core.model.attention import attend, band_mask
from gpt3core.model.gpt import GPT, loss_per_token
from gpt3core.sizes import nano


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def by_hand(model: GPT, ids: list[int]) -> np.ndarray:
    """GPT-3's forward pass in numpy float64, one position after another."""
    w = {name: p.detach().double().numpy() for name, p in model.named_parameters()}
    spec = model.spec

    def norm(x, name):
        centred = x - x.mean()
        return centred / math.sqrt((centred**2).mean() + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x, name):
        return w[f"{name}.weight"] @ x + w[f"{name}.bias"]

    xs = [w["tokens.weight"][token] + w["positions.weight"][t] for t, token in enumerate(ids)]
    for layer in range(spec.n_layer):
        block = f"blocks.{layer}"
        qkv = [
            linear(norm(x, f"{block}.norm1"), f"{block}.attention.qkv").reshape(3, spec.n_head, spec.d_head) for x in xs
        ]
        for t in range(len(xs)):
            seen = range(max(0, t - spec.window(layer) + 1), t + 1)
            heads = []
            for h in range(spec.n_head):
                scores = np.array([qkv[t][0, h] @ qkv[s][1, h] / math.sqrt(spec.d_head) for s in seen])
                heads.append(softmax(scores) @ np.array([qkv[s][2, h] for s in seen]))
            xs[t] = xs[t] + linear(np.concatenate(heads), f"{block}.attention.out")
        for t, x in enumerate(xs):
            h = linear(norm(x, f"{block}.norm2"), f"{block}.up")
            gelu = np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in h])
            xs[t] = x + linear(gelu, f"{block}.down")
    return np.stack([w["tokens.weight"] @ norm(x, "norm") for x in xs])


@pytest.mark.parametrize("kernel", ["softmax", "sdpa"])
def test_logits_are_the_papers(kernel):
    model = GPT(nano(64, n_layer=3, n_ctx=12, vocab_size=50, attention="alternating", band=3), kernel=kernel)
    model.init_weights(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    ids = torch.randint(50, (1, 12), generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(model(ids)[0].detach().numpy(), by_hand(model, ids[0].tolist()), atol=2e-4)


@pytest.mark.parametrize(
    ("window", "dtype", "tolerance"), [(16, torch.float32, 1e-6), (4, torch.float32, 1e-6), (4, torch.bfloat16, 2e-2)]
)
def test_kernels_agree_with_their_gradients(window, dtype, tolerance):
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(2, 3, 16, 8, generator=generator).to(dtype) for _ in range(3)]
    mask, found = band_mask(16, window), []
    for kernel in ("softmax", "sdpa"):
        q, k, v = (x.clone().requires_grad_() for x in inputs)
        out = attend(q, k, v, mask, dense=window == 16, kernel=kernel)
        out.float().square().sum().backward()
        found.append([out, q.grad, k.grad, v.grad])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=tolerance * 10, rtol=tolerance * 10)


def test_a_band_of_w_sees_w_keys():
    mask = band_mask(10, 4)
    assert [(row == 0).sum().item() for row in mask] == [min(q + 1, 4) for q in range(10)]


def test_initialisation_is_gpt2s():
    model = GPT(nano(256, n_layer=2, n_ctx=64, vocab_size=1000, attention="dense", band=4))
    model.init_weights(0)
    std = {name: p.std().item() for name, p in model.named_parameters() if p.dim() > 1}
    assert std["tokens.weight"] == pytest.approx(0.02, rel=0.02)
    assert std["positions.weight"] == pytest.approx(0.01, rel=0.05)
    assert std["blocks.0.up.weight"] == pytest.approx(0.02, rel=0.02)
    assert std["blocks.1.down.weight"] == pytest.approx(0.02 / 2, rel=0.02)  # 1/sqrt(2 n_layer) = 1/2
    with torch.no_grad():
        loss = loss_per_token(model(torch.arange(64)[None]), torch.arange(500, 564)[None]).mean().item()
    assert loss == pytest.approx(math.log(1000), rel=0.02)


def test_the_loss_is_computed_in_fp32():
    """bf16 logits: torch's own bf16 cross-entropy is off in the second or third digit."""
    logits = torch.randn(4, 32, 1024, generator=torch.Generator().manual_seed(0)).bfloat16()
    targets = torch.randint(1024, (4, 32), generator=torch.Generator().manual_seed(1))
    exact = -torch.log_softmax(logits.double(), -1).gather(-1, targets[..., None])[..., 0]
    torch.testing.assert_close(loss_per_token(logits, targets).double(), exact, atol=1e-5, rtol=1e-6)
