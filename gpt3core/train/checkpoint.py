"""Saving and loading the state of a run: safetensors and JSON only, no pickle anywhere."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import nn

from gpt3core.store import files
from gpt3core.store.rundir import RunDir


def save(
    run: RunDir, step: int, attempt: str, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> None:
    """Write model, optimizer moments and ``state`` as the checkpoint of a step."""
    weights = {name: p.detach().cpu().contiguous() for name, p in model.named_parameters()}
    moments = {
        f"{name}.{moment}": optimizer.state[p][moment].detach().cpu().contiguous()
        for name, p in model.named_parameters()
        if p in optimizer.state
        for moment in ("exp_avg", "exp_avg_sq", "step")
    }
    # through bytes: safetensors' own writer hides a full disk behind an error of its own
    parts = {"model.safetensors": to_bytes(weights), "optimizer.safetensors": to_bytes(moments)}
    begun = run.begin_checkpoint(step, attempt)
    for name, data in parts.items():
        files.write_bytes(begun / name, data)
    run.commit_checkpoint(step, begun, state, {name: hashlib.sha256(data).hexdigest() for name, data in parts.items()})


def load(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> dict[str, Any]:
    """Put a checkpoint (already verified) into a model and its optimizer; returns the state."""
    weights = load_file(folder / "model.safetensors")
    named = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(weights[name])
    if optimizer is not None:
        moments = load_file(folder / "optimizer.safetensors")
        for name, parameter in named.items():
            if f"{name}.step" in moments:
                optimizer.state[parameter] = {
                    moment: moments[f"{name}.{moment}"].to("cpu" if moment == "step" else parameter.device)
                    for moment in ("exp_avg", "exp_avg_sq", "step")
                }
    state: dict[str, Any] = files.read_json(folder / "state.json")
    return state
