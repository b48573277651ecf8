"""The maximal-update parametrisation (muP) as factors on the standard one: Yang et al. 2022 (arXiv 2203.03466).

Formulated as in their table 8, the one in which embedding and head may be one matrix. With m = d_model / base width:

                                    initial std    Adam's learning rate    weight decay    multiplier
    matrices of the blocks          1 / sqrt(m)    1 / m                   m               1
    embeddings, biases, norms       1              1                       1               1; 1 / m before the head

Scores are q k sqrt(base d_head) / d_head in place of q k / sqrt(d_head) (their definition 4.1): no change where a model
grows by heads. A step of AdamW forgets lr x decay of a weight; the factor m keeps that product, and so the time over
which weights are averaged, at every width (Wang and Aitchison 2024, arXiv 2405.13698). All gradients fall as 1 / m, and
so does Adam's eps. At the base width all factors are 1, and the model is the standard one to the bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

HIDDEN = ("qkv.weight", "out.weight", "up.weight", "down.weight")  # matrices both of whose sides grow with the width


@dataclass(frozen=True, kw_only=True)
class Factors:
    """What a model's parametrisation multiplies the standard one by; all 1 by default."""

    width: float = 1.0  # m: d_model over the base's
    d_head: float = 1.0  # over the base's

    def init(self, name: str) -> float:
        """Of a parameter's initial standard deviation."""
        return 1 / math.sqrt(self.width) if _is_hidden(name) else 1.0

    def lr(self, name: str) -> float:
        """Of a parameter's learning rate."""
        return 1 / self.width if _is_hidden(name) else 1.0

    def decay(self, name: str) -> float:
        """Of a parameter's weight decay, which AdamW multiplies by the learning rate."""
        return self.width if _is_hidden(name) else 1.0

    @property
    def eps(self) -> float:
        """Of Adam's eps, which is compared with gradients."""
        return 1 / self.width

    @property
    def readout(self) -> float:
        """Of what the head reads."""
        return 1 / self.width

    @property
    def queries(self) -> float:
        """Of the queries, beside 1 / sqrt(d_head)."""
        return 1 / math.sqrt(self.d_head)


STANDARD = Factors()


def _is_hidden(name: str) -> bool:
    return name.endswith(HIDDEN)
