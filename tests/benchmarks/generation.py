"""Tokens a CPU-second of greedy texts: ours with the cache, ours without, and transformers' ``generate``.

``python -m tests.benchmarks.generation [--short]``. One process and one thread, interleaved, medians; the same weights
and prompts, written by ``export_gpt2`` and opened by ``AutoModelForCausalLM``; the cache may not change a token.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gpt3core.generate.cache import Cache
from gpt3core.generate.choices import Sampling
from gpt3core.generate.decode import complete
from gpt3core.generate.sampling import Sampler
from gpt3core.interop.folder import export_gpt2
from gpt3core.model.gpt import GPT
from gpt3core.sizes import nano
from gpt3core.train.process import settle_process
from tests.benchmarks.target import target

VOCAB, PROMPT = 1024, 20
# layers, width, attention, context, texts
SHAPES = ((2, 160, "alternating", 128, 1), (8, 256, "dense", 512, 1), (8, 256, "alternating", 512, 8))


def main(short: bool) -> None:
    """Print the table."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    settle_process("cpu")
    for n_layer, width, attention, n_ctx, texts in SHAPES:
        model = GPT(nano(width, n_layer=n_layer, n_ctx=n_ctx, vocab_size=VOCAB, attention=attention, band=32))
        model.init_weights(0)
        with tempfile.TemporaryDirectory() as folder:
            export_gpt2(model, Path(folder) / "out", tokenizer=f"gpt2:{VOCAB}")
            peer = transformers.AutoModelForCausalLM.from_pretrained(Path(folder) / "out").eval()
        prompts = torch.randint(VOCAB - 1, (texts, PROMPT), generator=torch.Generator().manual_seed(0)).tolist()
        tokens = (n_ctx if not short else 128) - PROMPT
        rates = measure(model.eval(), peer, prompts, tokens, repeats=1 if short else 3)
        cache = Cache(model, n_ctx)
        with torch.inference_mode():
            cache.read_prompts(model, prompts)
        name = f"{n_layer}x{width}_{attention}_{texts}"
        kept = f"{cache.nbytes / (8 * n_layer * n_ctx * width * texts):.0%} of all keys and values kept"
        print(f"{name}: " + ", ".join(f"{who} {rate:.0f}" for who, rate in rates.items()) + f" tokens/CPU-s; {kept}")
        target(f"cache_over_transformers_{name}", rates["cache"] / rates["transformers"], ">=", 1.0)


def measure(model: GPT, peer: Any, prompts: list[list[int]], tokens: int, repeats: int) -> dict[str, float]:
    """Medians of tokens a CPU-second, by who wrote them."""
    greedy = Sampler(Sampling(temperature=0))

    def ours(cached: bool) -> list[list[int]]:
        return [one.tokens for one in complete(model, prompts, tokens=tokens, choose=greedy, cached=cached)]

    def theirs() -> list[list[int]]:
        ids = torch.tensor(prompts)
        with torch.inference_mode():
            found = peer.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                do_sample=False,
                pad_token_id=VOCAB - 1,
            )
        return found[:, PROMPT:].tolist()

    writers: dict[str, Callable[[], list[list[int]]]] = {
        "cache": lambda: ours(True),
        "no cache": lambda: ours(False),
        "transformers": theirs,
    }
    seconds: dict[str, list[float]] = {name: [] for name in writers}
    for _ in range(repeats):
        said = {}
        for name, write in writers.items():
            started = time.process_time()
            said[name] = write()
            seconds[name].append(time.process_time() - started)
        assert said["cache"] == said["no cache"], "the cache changed a text"
    return {name: tokens * len(prompts) / statistics.median(times) for name, times in seconds.items()}


if __name__ == "__main__":
    main("--short" in sys.argv)
