"""What a fine-tuned model answers: its classifier, asked the questions that prompts ask of the same task."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from gpt3core import pulse
from gpt3core.data import formats
from gpt3core.data.shards import Shards
from gpt3core.evals import examples
from gpt3core.evals.baselines import baselines
from gpt3core.evals.engine import BATCH_TOKENS
from gpt3core.numerics import Numerics
from gpt3core.parallel.mesh import Mesh
from gpt3core.spec import RunSpec

METRIC = "classifier"


def knows(spec: RunSpec, task: str, shots: int) -> bool:
    """Whether a run was fine-tuned to answer this: its own task, without examples in a context."""
    return spec.labelled is not None and task == spec.labelled.source and not shots


def row(
    model: Any,
    spec: RunSpec,
    items: int,
    source: tuple[tuple[str, ...], str],
    data: Shards,
    numerics: Numerics,
    device: str,
    mesh: Mesh,
) -> dict[str, Any]:
    """The columns of a task's row: ``metric`` is "classifier", ``logprob`` the mean log P(right answer) in nats.

    Args:
        items: questions asked; they are a function of the task, its files and this number, as for prompts.
        source: the files that are asked now, and their sha256 (``EvalSpec.source``).
        mesh: whose replicas share the questions out.

    Raises:
        ValueError: for questions that the run was trained on, or that its classifier cannot answer.
    """
    found, filled = mesh.together(lambda: _read(spec, items, source, data))
    logs = _log_probabilities(model, filled, numerics, device, mesh)  # (N, answers)
    right = logs.argmax(-1) == filled.answers
    of_right = logs[np.arange(len(right)), filled.answers]
    n, hits = len(right), int(right.sum())
    smoothed = (hits + 1) / (n + 2)
    return {
        "fits": True,
        "metric": METRIC,
        "accuracy": hits / n,
        "accuracy_se": math.sqrt(smoothed * (1 - smoothed) / n),
        "logprob": float(of_right.mean()),
        "logprob_se": float(of_right.std(ddof=1) / math.sqrt(n)) if n > 1 else 0.0,
        **baselines(found.split.queries, found.split.pool),
    }


def _read(
    spec: RunSpec, items: int, source: tuple[tuple[str, ...], str], data: Shards
) -> tuple[examples.Examples, formats.Filled]:
    """The questions, and as sequences."""
    found = examples.put_to(spec, items, source, data)
    shape = formats.shape(found.asked, spec.data.tokenizer, spec.model.n_ctx)  # choices may be more than in training
    return found, formats.filled(found.asked, spec.data.tokenizer, *shape)


def _log_probabilities(model: Any, filled: formats.Filled, numerics: Numerics, device: str, mesh: Mesh) -> np.ndarray:
    """Of every answer to every question: float64 (N, answers)."""
    each, kind = max(1, BATCH_TOKENS // filled.tokens[0].size), numerics.autocast

    def of_batch(number: int) -> list[list[float]]:
        some = slice(number * each, (number + 1) * each)
        ids = torch.from_numpy(filled.tokens[some, :, :-1]).flatten(0, 1).to(device)  # (B W, T)
        with torch.inference_mode():
            with torch.autocast(device, getattr(torch, kind or "bfloat16"), enabled=kind is not None):
                hidden = model.hidden(ids)
            scores = model.classifier(hidden, torch.from_numpy(filled.ends[some]).to(device))
            logs: list[list[float]] = torch.log_softmax(scores.double(), -1).tolist()
        pulse.beat()
        return logs

    found = mesh.spread(-(-len(filled.tokens) // each), of_batch, asks=model)
    return np.array([row for batch in found for row in batch])
