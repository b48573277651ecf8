"""MFU of the trainer on one GPU, at 125M to 1.3B of Table 2.1: context 2048, bf16, its own updates on random words.

``python -m tests.benchmarks.gpu_mfu [SIZE ...] [--steps 20] [--tokens 262144] [--kernel sdpa] [--compile auto]``;
``--cpu`` goes the same way on a CPU with tiny shapes, without targets. Where there is no GPU it says so.

A step is all that ``Trainer`` does in one: a batch from the loader, its copy to the device, micro-batches as memory has
them, clip, AdamW, and the numbers read back a step late; checkpoints and evaluation are not in it. Its time is from one
reading to the next; the first steps (compilation, the allocator) are left out, the median of the others is taken.

MFU is model FLOPs a second over the peak of dense bf16 products. The targets are held to the trainer's own count (three
forward passes of every matrix product, and of the pairs of positions that causal and banded masks leave; the head
counted, embeddings not, recomputation not). Beside it stands what was published with: 6 x all parameters + 12 x layers
x width x context a token, full attention without masks (Chowdhery et al. 2022, appendix B; llm-foundry). The vocabulary
is 50,257 filled up to 50,304, as they all have it.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from gpt3core import costs, schedule
from gpt3core.data import corpus
from gpt3core.model.gpt_spec import GPTSpec
from gpt3core.sizes import GPT3, nano
from gpt3core.spec import DataSpec, OptimSpec, RunSpec
from gpt3core.store.rundir import RunDir
from gpt3core.train.loop import Trainer
from gpt3core.train.readback import Readback
from tests.benchmarks.target import target

VOCABULARY = 50_304
CONTEXT = 2048
GOALS = {"125M": 40.0, "350M": 45.0, "760M": 50.0, "1.3B": 55.0}  # % of the peak, one H100 or H200
# words of a device's name -> TFLOP/s of dense bf16 products by the maker's data sheet; the first row that fits holds
PEAKS = (
    (("B200",), 2250.0),
    (("H100", "PCIe"), 756.0),
    (("H100", "NVL"), 835.0),
    (("H100",), 989.0),
    (("H200",), 989.0),
    (("A100",), 312.0),
    (("L40S",), 362.0),
    (("L4",), 121.0),
    (("A10G",), 70.0),
    (("4090",), 165.0),
)
WARM_UP = 5  # steps left out
MOST_MEGABYTES = 4.0  # of text


def peak_flops(name: str) -> float | None:
    """Of a device by its name; None where the table does not have it."""
    return next((1e12 * peak for words, peak in PEAKS if all(word in name for word in words)), None)


def published_flops_per_token(model: GPTSpec) -> float:
    """Training FLOPs of a token as others count: all parameters six times, and attention without masks."""
    return 6.0 * costs.params(model).total + 12.0 * model.n_layer * model.n_head * model.d_head * model.n_ctx


def text(folder: Path, megabytes: float) -> Path:
    """A file of random words."""
    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(4000)]
    path = folder / "words.jsonl"
    documents = (" ".join(rng.choices(words, k=2000)) for _ in range(max(20, int(megabytes * 80))))
    path.write_text("".join(f'{{"text": "{document}"}}\n' for document in documents))
    return path


def specification(model: GPTSpec, path: Path, tokenizer: str, tokens: int, asked: argparse.Namespace) -> RunSpec:
    """A run whose steps have so many tokens, in whole sequences."""
    batch = max(1, tokens // model.n_ctx) * model.n_ctx
    optim = OptimSpec(lr=1e-4, batch_tokens=batch, warmup_tokens=batch, decay_tokens=1000 * batch)
    data = DataSpec(corpus=str(path), corpus_sha256=corpus.fingerprint(str(path)), tokenizer=tokenizer)
    how = {"precision": asked.precision, "kernel": asked.kernel, "compile": asked.compile}
    return RunSpec(model=model, data=data, optim=optim, tokens=1000 * batch, **how)


def step_seconds(spec: RunSpec, root: Path, device: str, steps: int) -> tuple[list[float], Trainer]:
    """Seconds of updates after the warm-up, from one reading of numbers to the next."""
    RunDir(root, spec.run_id).create(spec)
    trainer, readback, read = Trainer(spec, root, device=device), Readback(device), [0.0]
    for _ in range(WARM_UP + steps + readback.lag):
        said = trainer._update(schedule.learning_rate(spec.optim, trainer.step))
        trainer.step += 1
        readback.add(said, step=trainer.step, tokens=spec.tokens_at(trainer.step), lr=0.0)
        for told in readback.read():
            assert told.finite, f"step {told.step} diverged"
            read.append(time.perf_counter())
    readback.read(everything=True)
    return [later - sooner for sooner, later in zip(read[WARM_UP:-1], read[WARM_UP + 1 :], strict=True)], trainer


def measure(name: str, spec: RunSpec, root: Path, device: str, steps: int) -> float | None:
    """Print a size's row; its MFU in percent where the peak is known."""
    seconds, trainer = step_seconds(spec, root, device, steps)
    rate = spec.optim.batch_tokens / statistics.median(seconds)
    own, published = rate * costs.train_flops(spec.model, 1), rate * published_flops_per_token(spec.model)
    peak = peak_flops(torch.cuda.get_device_name()) if device == "cuda" else None
    share = f"MFU {own / peak:.1%}, by the published count {published / peak:.1%}" if peak else "no peak to speak of"
    memory = f", {torch.cuda.max_memory_allocated() / 1e9:.1f} GB at most" if device == "cuda" else ""
    print(
        f"{name:5} {costs.params(spec.model).total / 1e6:8,.1f}M  {rate:10,.0f} tokens/s  {own / 1e12:8.4f} TFLOP/s  "
        f"{share}  (median of {len(seconds)} steps of {spec.optim.batch_tokens:,} tokens, {min(seconds):.3f} to "
        f"{max(seconds):.3f} s; micro-batch {trainer.micro_batch}, {trainer.numerics.precision}, "
        f"{trainer.numerics.kernel}, compile {trainer.compile}{memory})"
    )
    return 100 * own / peak if peak else None


def print_conventions(device: str) -> None:
    """The peak table and the counts of FLOPs."""
    print("peaks, dense bf16 (TFLOP/s): " + ", ".join(f"{' '.join(words)} {peak:g}" for words, peak in PEAKS))
    print("FLOPs: 3 forward passes of matrix products and unmasked pairs; published: 6 x parameters + 12 L d T a token")
    for name in GOALS:
        model = replace(GPT3[name].model(CONTEXT), vocab_size=VOCABULARY)
        own, published = costs.train_flops(model, 1), published_flops_per_token(model)
        print(f"  {name:5} {own / 1e9:6.3f} GFLOP a token, {published / 1e9:6.3f} as published")
    where = torch.cuda.get_device_name() if device == "cuda" else "CPU, tiny shapes: the path, not the speed"
    print(f"device: {where}")


def main(words: list[str] | None = None) -> None:
    """Print a row and a target a size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", choices=[*GOALS, []])
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=262_144, help="of a step, fewer than GPT-3's to be done sooner")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--kernel", default="sdpa")
    parser.add_argument("--compile", default="auto")
    asked = parser.parse_args(words)
    found: dict[str, float | None] = dict.fromkeys(asked.sizes or GOALS)
    device = "cuda" if torch.cuda.is_available() and not asked.cpu else "cpu"
    print_conventions(device)
    if device == "cpu" and not asked.cpu:
        print("there is no GPU here: nothing was run (--cpu exercises the path with tiny shapes)")
    with tempfile.TemporaryDirectory() as root:
        if asked.cpu:
            path = text(Path(root), 0.2)
            tiny = nano(32, n_layer=2, n_ctx=64, vocab_size=320, attention="alternating", band=8)
            measure("tiny", specification(tiny, path, "gpt2:300", 512, asked), Path(root), "cpu", asked.steps)
        elif device == "cuda":
            path = text(Path(root), MOST_MEGABYTES)
            for name in found:
                model = replace(GPT3[name].model(CONTEXT), vocab_size=VOCABULARY)
                spec = specification(model, path, "gpt2", asked.tokens, asked)
                found[name] = measure(name, spec, Path(root), "cuda", asked.steps)
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
    for name, share in found.items():
        target(f"mfu_{name}_percent", share, ">=", GOALS[name])


if __name__ == "__main__":
    main()
