"""The loss on held-out text: of each source, and of the mixture that the model was trained on.

A model is anything with ``hidden``: token ids (B, T) to the stream before the head (B, T, D), causal; and ``head``:
any positions (..., D) to logits (..., V).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from gpt3core import pulse
from gpt3core.data import weights
from gpt3core.data.shards import Shards
from gpt3core.data.stream import Stream
from gpt3core.parallel.mesh import Mesh

BATCH_TOKENS = 4096
MEASURES = ("loss", "loss_se", "bits_per_byte")  # and "loss.wikipedia" where there is more than one source


def windows(data: Shards, n_ctx: int, tokens: int) -> dict[str, int]:
    """How many held-out windows of ``n_ctx`` of each source an evaluation on at most so many tokens has.

    Raises:
        ValueError: for fewer than two of a source that is mixed in, which have no standard error.
    """
    streams = data.validation
    shares = [stream.weight for stream in streams]
    found = weights.windows([stream.sequences(n_ctx) for stream in streams], shares, tokens // n_ctx)
    for stream, count in zip(streams, found, strict=True):
        if stream.weight and (count < weights.LEAST_WINDOWS or tokens < weights.LEAST_WINDOWS * n_ctx):
            raise ValueError(
                f"the held-out text of {stream.name} has {stream.tokens} tokens and evals.validation_tokens is "
                f"{tokens}; 2 windows of {n_ctx} are needed: give more text or more tokens"
            )
    return {s.name: n for s, n in zip(streams, found, strict=True) if n >= weights.LEAST_WINDOWS}


def measure(
    model: Any, data: Shards, n_ctx: int, tokens: int, device: str = "cpu", *, mesh: Mesh | None = None
) -> dict[str, float]:
    """Mean loss on held-out text, all in fp32: nats per token, its standard error over windows, and bits per byte.

    Of a mixture it is the mean of its sources' losses by their weights; each source's own measures are beside it, as
    ``loss.<source>`` and so on.

    Args:
        mesh: whose replicas share the windows out; batches are the same however many there are, and so are the bits.
    """
    counts = windows(data, n_ctx, tokens)
    streams = [stream for stream in data.validation if stream.name in counts]
    each = {stream.name: _loss(model, stream, counts[stream.name], n_ctx, device, mesh or Mesh()) for stream in streams}
    shares = {stream.name: stream.weight for stream in streams}
    bytes_per_token = {name: _bytes_per_token(data, name) for name in each}
    found = _mixed(each, shares, bytes_per_token)
    if len(data.validation) == 1:
        return found
    for name, loss in each.items():
        own = _mixed({name: loss}, {name: 1.0}, bytes_per_token)
        found |= {f"{measure}.{name}": own[measure] for measure in MEASURES}
    return found


def _mixed(
    losses: Mapping[str, tuple[float, float]], shares: Mapping[str, float], bytes_per_token: Mapping[str, float]
) -> dict[str, float]:
    """The measures of a mixture by the losses of its sources and their standard errors."""
    loss = math.fsum(shares[name] * mean for name, (mean, _) in losses.items())
    per_token = math.fsum(shares[name] * bytes_per_token[name] for name in losses)
    return {
        "loss": loss,
        "loss_se": math.sqrt(math.fsum((shares[name] * error) ** 2 for name, (_, error) in losses.items())),
        "bits_per_byte": loss / per_token / math.log(2),
    }


def _bytes_per_token(data: Shards, name: str) -> float:
    source = data.sources[name]
    return source.bytes["validation"] / source.tokens["validation"]


def _loss(model: Any, stream: Stream, count: int, n_ctx: int, device: str, mesh: Mesh) -> tuple[float, float]:
    """The mean loss of a source's first windows, and its standard error over them."""
    per_batch = max(1, BATCH_TOKENS // n_ctx)

    def of_batch(number: int) -> list[float]:
        first = number * per_batch
        batch = stream.rows(first, min(first + per_batch, count), n_ctx)
        ids = torch.from_numpy(batch).to(device)  # (B, T+1)
        with torch.inference_mode():
            logits = model.head(model.hidden(ids[:, :-1])).float()  # (B, T, V)
            losses = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        pulse.beat()
        return losses.view(len(batch), n_ctx).double().mean(1).tolist()

    found = mesh.spread(-(-count // per_batch), of_batch, asks=model)
    means = [mean for batch in found for mean in batch]
    loss = math.fsum(means) / count
    variance = math.fsum((m - loss) ** 2 for m in means) / (count - 1)
    return loss, math.sqrt(variance / count)


def columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The columns that rows have of single sources."""
    starts = tuple(f"{measure}." for measure in MEASURES)
    return list(dict.fromkeys(name for row in rows for name in row if name.startswith(starts)))
