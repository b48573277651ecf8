"""Checkpoints: what is loaded is what was written, of this run, or it is refused with the reason."""

import json
import os
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from gpt3core.errors import StoppedError, StoreError
from gpt3core.model import registry
from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from gpt3core.train import checkpoint, loop, optimizer


@pytest.fixture
def stopped(tiny_run, isolated):
    """A run that was stopped after its first step, with its checkpoint."""
    run = RunDir(isolated, tiny_run.run_id)
    run.create(tiny_run)
    with pytest.raises(StoppedError):
        loop.Trainer(tiny_run, isolated, stop=lambda: True).train()
    return run


def built(spec, device="cpu"):
    model = registry.of(spec.model).build(spec.model, kernel="softmax").to(device)
    return model, optimizer.build(model, spec.optim)


def rewrite(folder, change):
    """Change state.json, and its checksum with it."""
    state = json.loads((folder / "state.json").read_bytes())
    change(state)
    (folder / "state.json").write_text(json.dumps(state))
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["state.json"] = files.sha256_file(folder / "state.json")
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_the_tied_weight_is_kept_once_and_the_index_says_what_is_where(stopped):
    folder = stopped.checkpoint(1)
    weights = load_file(folder / "model-00000.safetensors")
    assert "head.weight" not in weights
    index = json.loads((folder / "state.json").read_bytes())["index"]["model-00000.safetensors"]
    assert index.keys() == weights.keys()
    assert index["tokens.weight"] == {"start": [0, 0], "shape": list(weights["tokens.weight"].shape)}


@pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))],
)
def test_adams_state_is_loaded_with_the_types_and_places_of_a_fresh_one(stopped, tiny_run, device):
    """Fused AdamW wants its step beside the parameter (pytorch#104767)."""
    contents = checkpoint.read(stopped.checkpoint(1), tiny_run.run_id)
    (model, loaded), (fresh, stepped) = built(tiny_run, device), built(tiny_run, device)
    checkpoint.load(contents, model, loaded)
    for p in (*model.parameters(), *fresh.parameters()):
        p.grad = torch.zeros_like(p)
    stepped.step()
    for p, q in zip(model.parameters(), fresh.parameters(), strict=True):
        assert loaded.state[p].keys() == stepped.state[q].keys()
        for moment, value in stepped.state[q].items():
            found = loaded.state[p][moment]
            assert (found.device, found.dtype, found.shape) == (value.device, value.dtype, value.shape), moment
    loaded.step()
    assert all(state["step"].item() == 2 for state in loaded.state.values())


def test_loading_follows_what_each_kind_of_adamw_wants_of_its_step(stopped, tiny_run, monkeypatch):
    """Where there is no GPU: the state goes through torch's own loading, which knows the kinds."""
    seen = []
    place = torch.optim.Optimizer._process_value_according_to_param_policy

    def watched(param, value, param_id, param_groups, key=None):
        seen.append(key)
        return place(param, value, param_id, param_groups, key)

    monkeypatch.setattr(torch.optim.Optimizer, "_process_value_according_to_param_policy", staticmethod(watched))
    model, adam = built(tiny_run)
    checkpoint.load(checkpoint.read(stopped.checkpoint(1), tiny_run.run_id), model, adam)
    assert seen.count("step") == len(list(model.parameters()))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model-00000.safetensors", "model-00000.safetensors has sha256"),
        ("state.json", "state.json has sha256"),
        ("manifest.json", "manifest.json"),
    ],
)
@pytest.mark.parametrize("how", ["flipped", "gone", "empty", "pipe"])
@pytest.mark.usefixtures("at_once")
def test_a_checkpoint_with_any_file_hurt_is_damaged(stopped, tiny_run, name, words, how):
    path = stopped.checkpoint(1) / name
    raw = path.read_bytes()
    if how == "gone":
        path.unlink()
        words = f"{name}: No such file"
    elif how == "pipe":
        path.unlink()
        os.mkfifo(path)
        words = rf"{name}.*Is a pipe"
    else:
        path.write_bytes(bytes([raw[0] ^ 1]) + raw[1:] if how == "flipped" else b"")
    with pytest.raises(checkpoint.DamageError, match=words):
        checkpoint.read(path.parent, tiny_run.run_id)


def test_a_checkpoint_of_another_run_is_not_loaded(stopped, tiny_run):
    with pytest.raises(checkpoint.DamageError, match=f"its state.json is of run {tiny_run.run_id}"):
        checkpoint.read(stopped.checkpoint(1), "d16-000000000000")


def test_a_checkpoint_with_a_piece_too_few_or_another_shape_is_not_loaded(stopped, tiny_run):
    folder = stopped.checkpoint(1)
    wider = replace(tiny_run, model=replace(tiny_run.model, d_model=32, d_head=32))
    with pytest.raises(StoreError, match=r"shape \(.*\), this model has"):
        checkpoint.load(checkpoint.read(folder, tiny_run.run_id), *built(wider))
    rewrite(folder, lambda state: state["index"]["model-00000.safetensors"].pop("norm.weight"))
    with pytest.raises(checkpoint.DamageError, match=r"16 values of norm.weight are in none of its files"):
        checkpoint.load(checkpoint.read(folder, tiny_run.run_id), *built(tiny_run))
