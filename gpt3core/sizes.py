"""Model shapes: GPT-3's Table 2.1 as printed and as built, and the nano ladder below it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gpt3core.model import registry
from gpt3core.model.architecture import ModelSpec
from gpt3core.model.gpt_spec import GPTSpec

GPT2_VOCAB = 50_257


@dataclass(frozen=True, kw_only=True)
class Gpt3Size:
    """A row of Table 2.1 (Brown et al. 2020) with the parameter count of Table D.1, where they differ.

    Two rows cannot be what their columns say, and Table D.1's parameter counts tell how they were built: XL prints 24
    heads x 128 = 3072 with d_model 2048, which would have 1,517M parameters, and 16 x 128 has 1,316M (D.1: 1,320M);
    13B prints d_model 5140 with 40 x 128 = 5120, and 5120 has 12,853M (D.1: 12,850M; 5140: 12,936M). Both are built
    so.
    """

    name: str
    n_layer: int
    d_model: int  # as printed
    n_head: int
    d_head: int
    batch_tokens: int
    lr: float
    params_printed: float  # Table D.1
    d_model_built: int | None = None
    n_head_built: int | None = None

    def model(self, n_ctx: int = 2048, vocab_size: int = GPT2_VOCAB, band: int = 128) -> GPTSpec:
        """The shape as built."""
        return GPTSpec(
            n_layer=self.n_layer,
            d_model=self.d_model_built or self.d_model,
            n_head=self.n_head_built or self.n_head,
            d_head=self.d_head,
            n_ctx=n_ctx,
            vocab_size=vocab_size,
            band=band,
        )


def _row(name: str, *columns: float, **built: int) -> Gpt3Size:
    layers, d_model, n_head, d_head, batch, lr, params = columns
    return Gpt3Size(
        name=name,
        n_layer=int(layers),
        d_model=int(d_model),
        n_head=int(n_head),
        d_head=int(d_head),
        batch_tokens=int(batch),
        lr=lr,
        params_printed=params,
        **built,
    )


# name, layers, d_model, heads, d_head, batch in tokens, learning rate, parameters of Table D.1
GPT3 = {
    size.name: size
    for size in (
        _row("125M", 12, 768, 12, 64, 0.5e6, 6.0e-4, 125e6),
        _row("350M", 24, 1024, 16, 64, 0.5e6, 3.0e-4, 356e6),
        _row("760M", 24, 1536, 16, 96, 0.5e6, 2.5e-4, 760e6),
        _row("1.3B", 24, 2048, 24, 128, 1e6, 2.0e-4, 1320e6, n_head_built=16),
        _row("2.7B", 32, 2560, 32, 80, 1e6, 1.6e-4, 2650e6),
        _row("6.7B", 32, 4096, 32, 128, 2e6, 1.2e-4, 6660e6),
        _row("13B", 40, 5140, 40, 128, 2e6, 1.0e-4, 12850e6, d_model_built=5120),
        _row("175B", 96, 12288, 96, 128, 3.2e6, 0.6e-4, 174600e6),
    )
}


def _shape(model: GPTSpec) -> tuple[int, ...]:
    return model.n_layer, model.d_model, model.n_head, model.d_head


_BUILT = {_shape(size.model()): size.name for size in GPT3.values()}


def label(model: ModelSpec) -> str:
    """What a shape is called: the name of Table 2.1's row that is built so, or ``d<width>``."""
    built = _BUILT.get(_shape(model)) if isinstance(model, GPTSpec) else None
    return built or f"d{registry.of(model).width(model)}"


def _divisors(n: int) -> list[int]:
    """What divides n, smallest first."""
    low = [k for k in range(1, math.isqrt(n) + 1) if n % k == 0]
    return sorted({*low, *(n // k for k in low)})


def nano(
    width: int,
    *,
    n_layer: int,
    n_ctx: int,
    vocab_size: int,
    attention: str,
    band: int,
    n_head: int | None = None,
    stride: int = 128,
    summary: int = 8,
) -> GPTSpec:
    """A model of the nano ladder: GPT-3's shape at a width of 8 to a few hundred, heads about 32 wide unless given.

    Raises:
        ValueError: when the heads do not divide the width.
    """
    given = n_head
    n_head = given if given is not None else max(1, round(width / 32))
    if n_head < 1 or width % n_head:
        what = f"n_head={given}" if given is not None else f"{n_head} heads of about 32"
        allowed = ", ".join(str(k) for k in _divisors(width))
        raise ValueError(f"width {width} does not divide into {what}: allowed are n_head {allowed}, or another width")
    return GPTSpec(
        n_layer=n_layer,
        d_model=width,
        n_head=n_head,
        d_head=width // n_head,
        n_ctx=n_ctx,
        vocab_size=vocab_size,
        attention=attention,
        band=band,
        stride=stride,
        summary=summary,
    )
