"""Dropout is in GPT-2's places: transformers' GPT-2, with our masks where it drops, has our logits and gradients."""

import pytest
import torch
from torch import nn

from gpt3core.interop.folder import export_gpt2
from gpt3core.model import dropout, registry
from gpt3core.model.dropout import Dropout, install
from tests.gpt3core.interop.test_transformers import hugging_face, make, some_ids

pytestmark = pytest.mark.xdist_group("transformers")

ROWS = range(6, 8)  # numbers of the two sequences


class Ours(nn.Module):
    """In the place of nn.Dropout: the mask of a stream, or of the heads of attention."""

    def __init__(self, p, *names, width):
        super().__init__()
        self.p, self.streams, self.width = p, [dropout._stream(3, name) for name in names], width

    def forward(self, x):
        t, width = x.shape[-2:]
        keep = dropout.kept(
            self.p, self.streams, ROWS, torch.arange(t), range(width), width=self.width, device=torch.device("cpu")
        )
        return x * keep.view(x.shape) * dropout.scale(self.p)


def test_with_our_masks_transformers_gpt2_is_our_model_in_training(tmp_path, monkeypatch):
    ours = make("dense").train()
    export_gpt2(ours, tmp_path / "out", tokenizer="gpt2:300")
    theirs = hugging_face().AutoModelForCausalLM.from_pretrained(tmp_path / "out", attn_implementation="eager").train()
    places = theirs.transformer
    places.drop = Ours(0.2, "embedding", width=32)
    heads = iter([Ours(0.3, *(f"{layer}.attention.{head}" for head in range(2)), width=24) for layer in range(3)])
    # attention calls the function, once a layer; the rest are modules
    monkeypatch.setattr(nn.functional, "dropout", lambda x, p, training: next(heads)(x))
    for layer, block in enumerate(places.h):
        block.attn.resid_dropout = Ours(0.2, f"{layer}.attention.out", width=32)
        block.mlp.dropout = Ours(0.2, f"{layer}.down", width=32)
    drops = Dropout(3, 0.2, 0.3)
    install(ours, registry.of(ours.spec).cuts, drops, None)
    ids = some_ids()
    with drops.at(ROWS):
        found = ours(ids)
    expected = theirs(ids).logits
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
    plain = ours(ids)
    assert (found - plain).abs().max() > 0.1, "and nothing is dropped outside of training"
    probe = torch.randn(found.shape, generator=torch.Generator().manual_seed(0))
    (found * probe).sum().backward()
    (expected * probe).sum().backward()
    torch.testing.assert_close(ours.tokens.weight.grad, places.wte.weight.grad, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(ours.positions.weight.grad, places.wpe.weight.grad, atol=1e-3, rtol=1e-4)
