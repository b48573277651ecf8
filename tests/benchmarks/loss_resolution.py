"""How small a difference of losses so many held-out tokens resolve: the constants of ``gpt3core.data.facts``.

Trains small models on the starter corpus (minutes on one core) and prints, for stretches of held-out text of several
lengths, the standard deviation per token of one model's loss, of two sizes' difference, and of two seeds': the square
root of stretch length times the variance of the stretches' mean. Where it no longer grows with the length, stretches
are independent, and it divided by the square root of the tokens is the standard error of the mean.

    python -m tests.benchmarks.loss_resolution [tokens=1000000]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from gpt3core.data import corpus
from gpt3core.data.facts import PAIRED_SD
from gpt3core.numerics import Numerics
from gpt3core.sizes import nano
from gpt3core.spec import DataSpec, OptimSpec, RunSpec
from gpt3core.store.rundir import RunDir
from gpt3core.train.loop import Trainer
from tests.benchmarks.target import target

N_CTX = 128
STRETCHES = (16, 128, 512, 2048, 8192)


def run(width: int, seed: int, tokens: int) -> RunSpec:
    """The rules of the laptop recipe, about."""
    return RunSpec(
        model=nano(width, n_layer=2, n_ctx=N_CTX, vocab_size=1024, attention="alternating", band=4),
        data=DataSpec(corpus="starter", corpus_sha256=corpus.fingerprint("starter")),
        optim=OptimSpec(lr=0.01, batch_tokens=1024, warmup_tokens=tokens // 5, decay_tokens=tokens),
        tokens=tokens // 1024 * 1024,
        seed=seed,
    )


def token_losses(spec: RunSpec) -> np.ndarray:
    """The loss of every held-out token, in nats, after training."""
    with tempfile.TemporaryDirectory() as root:
        RunDir(Path(root), spec.run_id).create(spec)
        trained = Trainer(spec, Path(root), suggested=Numerics(precision="fp32", kernel="softmax"))
        trained.train()
    batches = [
        (stream, first, min(first + 32, stream.sequences(N_CTX)))
        for stream in trained.data.validation
        for first in range(0, stream.sequences(N_CTX), 32)
    ]
    found = []
    for stream, first, last in batches:
        ids = torch.from_numpy(stream.rows(first, last, N_CTX))
        with torch.inference_mode():
            scores = torch.log_softmax(trained.model(ids[:, :-1]).float(), -1)
        found.append(-scores.gather(-1, ids[:, 1:, None]).flatten().double().numpy())
    return np.concatenate(found)


def per_token(losses: np.ndarray, stretch: int) -> float:
    """Standard deviation per token, from the means of stretches of that length."""
    means = losses[: len(losses) // stretch * stretch].reshape(-1, stretch).mean(1)
    return float(np.sqrt(stretch * means.var(ddof=1)))


def main() -> None:
    """Train, and print the table."""
    tokens = int(dict(word.split("=") for word in sys.argv[1:]).get("tokens", 1_000_000))
    small, large, again = (token_losses(run(w, s, tokens)) for w, s in ((48, 0), (64, 0), (64, 1)))
    print(f"losses {small.mean():.4f} {large.mean():.4f} {again.mean():.4f} on {len(small)} tokens")
    print("stretch  one model  two sizes  two seeds   (standard deviation per token, nats)")
    for stretch in STRETCHES:
        columns = [per_token(x, stretch) for x in (large, large - small, large - again)]
        print(f"{stretch:7d}" + "".join(f"{x:11.3f}" for x in columns))
    for name, measured in zip(("sizes", "seeds"), columns[1:], strict=True):  # of the longest stretches
        target(f"paired_sd_of_{name}_over_constant", measured / PAIRED_SD, "<=", 1.1)


if __name__ == "__main__":
    main()
