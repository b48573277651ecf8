"""One run of any N and D, before a recipe has it: its shape, its batch, and what it takes on GPUs; pure.

The shape continues what a ladder's runs share, and is GPT-3's (Brown et al. 2020, Table 2.1) in all that they do not
say: depth and batch grow as powers of N between its smallest and its largest row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gpt3core import costs, sizes
from gpt3core.model.gpt_spec import GPTSpec
from gpt3core.spec import DataSpec, OptimSpec, RunSpec
from sweeps.planning import estimate
from sweeps.planning.estimate import GpuEstimate
from sweeps.planning.recipe import Hardware

SMALLEST, LARGEST = sizes.GPT3["125M"], sizes.GPT3["175B"]
MOST_OF_RUN = 1e-3  # of a run's tokens in one batch
NARROW, WIDE = 384, 2000  # widths between which a head is 64 wide


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """What the runs share that a larger one is to continue."""

    embeddings: bool = False  # whether N counts them
    n_layer: int | None = None  # of every size; by default GPT-3's, which grows
    n_ctx: int = 2048
    vocab_size: int = sizes.GPT2_VOCAB


@dataclass(frozen=True, kw_only=True)
class Larger:
    """A run with what it takes."""

    spec: RunSpec
    found: GpuEstimate

    @property
    def gpus(self) -> int:
        """As many as it is cut over; none where nothing fits."""
        return 0 if self.found.layout is None else self.found.layout.world_size

    @property
    def gpu_hours(self) -> float:
        """Of all of them together."""
        return 24 * self.found.days * self.gpus


def larger(n: float, d: float, ladder: Ladder, plan: Hardware) -> Larger:
    """A run of about N parameters on D tokens, on the fewest GPUs that end it in time.

    Raises:
        UsageError: for an impossible plan.
        ValueError: for a run that is impossible.
    """
    spec = run(n, d, ladder)
    return Larger(spec=spec, found=estimate.on_gpus(spec, plan))


def run(n: float, d: float, ladder: Ladder) -> RunSpec:
    """The run. Its learning rate is no proposal: what is planned here does not depend on it."""
    model = shape(n, ladder)
    batch = batch_tokens(costs.params(model).total, d, model.n_ctx)
    tokens = batch * max(1, round(d / batch))
    optim = OptimSpec(lr=SMALLEST.lr, batch_tokens=batch, warmup_tokens=0, decay_tokens=tokens)
    data = DataSpec(corpus="", corpus_sha256="0" * 64)
    return RunSpec(model=model, data=data, optim=optim, tokens=tokens)


def shape(n: float, ladder: Ladder) -> GPTSpec:
    """A GPT of about N parameters, by the count that the ladder's N is."""
    n_layer = ladder.n_layer or _depth(n)
    # 12 n_layer d^2 in the blocks, and d for each position and each word
    embedded = ladder.vocab_size + ladder.n_ctx if ladder.embeddings else 0
    n_head, d_head = _heads((math.sqrt(embedded**2 + 48 * n_layer * n) - embedded) / (24 * n_layer))
    width = n_head * d_head
    return GPTSpec(
        n_layer=ladder.n_layer or _shared((n - embedded * width) / (12 * width**2), ((28, 8), (10, 4))),
        d_model=width,
        n_head=n_head,
        d_head=d_head,
        n_ctx=ladder.n_ctx,
        vocab_size=ladder.vocab_size,
    )


def _depth(n: float) -> float:
    """Blocks of a size, as a power of N through Table 2.1's 12 at its smallest and 96 at its largest."""
    low, high = (costs.params(size.model()).nonembedding for size in (SMALLEST, LARGEST))
    power = math.log(LARGEST.n_layer / SMALLEST.n_layer) / math.log(high / low)
    return SMALLEST.n_layer * math.pow(n / low, power)


def _heads(width: float) -> tuple[int, int]:
    """Heads and their width: Table 2.1's 64 and 128, and about 32 for what is narrower than it."""
    if width < NARROW:
        n_head = max(1, round(width / 32))
        return n_head, max(4, round(width / n_head))
    d_head = 128 if width >= WIDE else 64
    return _shared(width / d_head, ((32, 8), (24, 4), (16, 2))), d_head


def _shared(wanted: float, alike: tuple[tuple[int, int], ...]) -> int:
    """A whole number that devices can share: from how much on it is a multiple of what."""
    unit = next((unit for least, unit in alike if wanted >= least), 1)
    return max(1, unit * round(wanted / unit))


def batch_tokens(n_total: float, tokens: float, n_ctx: int) -> int:
    """Tokens of a step: Table 2.1's growth with the parameters, a thousandth of the run at most; 2^k sequences."""
    power = math.log(LARGEST.batch_tokens / SMALLEST.batch_tokens) / math.log(
        LARGEST.params_printed / SMALLEST.params_printed
    )
    wanted = SMALLEST.batch_tokens * (n_total / SMALLEST.params_printed) ** power
    sequences = min(wanted, MOST_OF_RUN * tokens) / n_ctx
    return n_ctx << round(math.log2(max(1.0, sequences)))
