"""What a model is trained on: which positions predict what, and the loss of it, always in fp32."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def loss_per_token(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy in nats, in fp32 (bf16's is wrong in the third digit): (B, T, V), (B, T) -> (B, T)."""
    flat = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
    return flat.view_as(targets)
