"""What a run may add to GPT-3's training, all of it off by default. No torch.

GPT-3 trained without dropout, smoothing or noise, and to the end. A run with any of these is no point on the law of
runs without; one that stopped early is no point on any law, for its length followed from its losses.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field, replace

from gpt3core.checks import as_floats, require_between
from gpt3core.model.architecture import ADDED
from gpt3core.numerics import BUILT, Numerics

STOP_FIELDS = ("stop_patience", "stop_validation_tokens")  # what only a run that may stop early has


@dataclass(frozen=True, kw_only=True)
class Options:
    """Regularisation, noise and early stopping; each field is hashed where it has not its default."""

    # of the embedding and of what attention and MLP add to the stream (GPT-2's places: Radford et al. 2019, 0.1)
    dropout: float = field(default=0.0, metadata=ADDED)
    attention_dropout: float = field(default=0.0, metadata=ADDED)  # of attention probabilities
    # share of the target spread evenly over the vocabulary (Szegedy et al. 2016, arXiv 1512.00567, section 7)
    label_smoothing: float = field(default=0.0, metadata=ADDED)
    lr_noise: float = field(default=0.0, metadata=ADDED)  # standard deviation of the learning rate's logarithm
    stop_every: int = field(default=0, metadata=ADDED)  # tokens from one look at the validation loss to the next
    stop_patience: int = field(default=3, metadata=ADDED)  # looks without a new lowest loss after which a run stops
    stop_validation_tokens: int = field(default=65_536, metadata=ADDED)  # of a look

    def __post_init__(self) -> None:
        as_floats(self)
        require_between(self, 0, 0.9, "dropout", "attention_dropout", "label_smoothing", where="options.")
        require_between(self, 0, 1, "lr_noise", where="options.")
        require_between(self, 0, 10**18, "stop_every", where="options.")
        require_between(self, 1, 10**6, "stop_patience", where="options.")
        require_between(self, 1, 10**18, "stop_validation_tokens", where="options.")
        for name in STOP_FIELDS:
            value, default = getattr(self, name), Options.__dataclass_fields__[name].default
            if value != default and not self.stop_every:
                raise ValueError(f"options.{name}={value}: without options.stop_every no run stops early; give both")

    @property
    def drops(self) -> bool:
        """Whether anything is dropped."""
        return bool(self.dropout or self.attention_dropout)

    @property
    def without_kernels(self) -> tuple[str, ...]:
        """Kernels that a run with these options is not trained with."""
        return BUILT if self.attention_dropout else ()

    def kept(self, numerics: Numerics) -> Numerics:
        """The arithmetic whose memory a run takes: attention that drops probabilities keeps them."""
        return replace(numerics, kernel="softmax") if self.attention_dropout else numerics

    def describe(self) -> str:
        """The options that are on, in words; "" for none."""
        said = [
            f"{name.replace('_', ' ')} {value:g}"
            for name in ("dropout", "attention_dropout", "label_smoothing", "lr_noise")
            if (value := getattr(self, name))
        ]
        if self.stop_every:
            said.append(
                f"stopped early after {self.stop_patience} looks at the validation loss, {self.stop_every:,} tokens "
                "apart, without a new lowest (such a run is no point on a law, and is left out of fits)"
            )
        return ", ".join(said)


def rate_factor(options: Options, seed: int, step: int) -> float:
    """What the learning rate of a step is multiplied by: log-normal, of mean one, a function of seed and step alone.

    Multiplicative normal noise on a schedule, drawn anew for seed and step, is timm's (Wightman, ``lr_noise``);
    additive noise that decays is TensorFlow's (Bello et al. 2017, arXiv 1709.07417). Of a logarithm it leaves the rate
    above zero.
    """
    if not options.lr_noise:
        return 1.0
    word = int.from_bytes(hashlib.sha256(f"{seed}:lr_noise:{step}".encode()).digest()[:16], "little")
    radius, angle = ((word & (2**64 - 1)) + 1) * 2.0**-64, (word >> 64) * 2.0**-64
    normal = math.sqrt(-2 * math.log(radius)) * math.cos(2 * math.pi * angle)  # Box and Muller 1958
    # nine digits: the last ones of a logarithm are the C library's, and ranks may have different ones
    return float(f"{math.exp(options.lr_noise * normal - options.lr_noise**2 / 2):.9g}")
