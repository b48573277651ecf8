"""The linear layer that fine-tuning puts on a model, from outside (Radford et al. 2018, section 3.2).

It reads the stream at each extract token. Shapes: B examples, W sequences of an example, T positions, D width.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt3core.labelled import LabelledSpec
from gpt3core.model.dropout import Dropout

NAME = "classifier"  # of the module in its model, and of its parameters in checkpoints


class Classifier(nn.Module):
    """Scores of answers: of classes, from the sum over an example's sequences; or one of each sequence, a choice."""

    def __init__(self, width: int, outputs: int, dropout: Dropout) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(outputs, width)), nn.Parameter(torch.empty(outputs))
        self.dropout = dropout

    def forward(self, hidden: Tensor, ends: Tensor) -> Tensor:
        """(B W, T, D) and where the extract tokens are (B, W) to scores (B, classes or W), in fp32."""
        b, w = ends.shape
        rows = torch.arange(b * w, device=hidden.device)
        read = hidden[rows, ends.clamp(min=0).flatten()].view(b, w, -1).float()
        # one mask for all sequences of an example, as the released code has it
        read = read * self.dropout.drop(torch.ones_like(read[:, :1].detach()), NAME)
        with torch.autocast(hidden.device.type, enabled=False):
            if len(self.weight) > 1:
                return F.linear(read.sum(1), self.weight, self.bias)
            return F.linear(read, self.weight, self.bias)[..., 0].masked_fill(ends < 0, -math.inf)


def attach(model: Any, width: int, labelled: LabelledSpec, seed: int) -> None:
    """Give a model its classifier."""
    setattr(model, NAME, Classifier(width, labelled.outputs, Dropout(seed, labelled.dropout, 0.0)))
