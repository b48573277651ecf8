"""From text to batches: tokenizing beside tiktoken, the loader beside the fastest training step, memory, and starts.

``python -m tests.benchmarks.data_loading [--rounds 5] [--seconds 4]``

Tokenizing: the starter corpus (made-up English where it cannot be fetched) by tiktoken's fastest call, document by
document, by ``tokenizer.encoder`` (riptoken's, where it is installed), 500 at a time, and by ``writing.write``, which
also writes shards, counts words and hashes files; in turns, MB a CPU-second, medians. All give the same tokens.
Loading: a mixture of five sources by GPT-3's weights, in batches of the laptop's smallest size, whose training step is
the fastest there is; both in tokens a CPU-second. The same over 302 billion tokens, in sparse files of 604 GB: memory
that is not the file's own, before and after.
Starting: ``shards.prepare`` of a folder of 4,500 shards, as 300 billion tokens have, when it is read through and after.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import importlib.util
import statistics
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from gpt3core.data import corpus, shards, tokenizer, weights, writing
from gpt3core.data.loader import Loader
from gpt3core.data.sources import own, packages
from gpt3core.data.stream import Stream, mapped
from gpt3core.spec import DataSpec
from tests.benchmarks.target import target
from tests.conftest import write_corpus

GPT3 = weights.normalised({"cc": 60, "webtext2": 22, "books1": 8, "books2": 8, "wikipedia": 3})
PIECES = 281  # full shards: 302 billion tokens


def texts() -> list[str]:
    """Documents to tokenize."""
    try:
        return [record.text for name in ("kjv", "literature", "wikipedia") for record in packages.records(name)]
    except ValueError as error:
        print(f"made-up English, for the starter corpus is not there: {error}")
        with tempfile.TemporaryDirectory() as folder:
            made = write_corpus(Path(folder), documents=20_000)
            return [text.content for text in own.texts(str(made))]


def in_turns(arms: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each arm."""
    taken: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(rounds):
        for name, arm in arms.items():
            began = time.process_time()
            arm()
            taken[name].append(time.process_time() - began)
    return {name: statistics.median(values) for name, values in taken.items()}


def tokenizing(rounds: int) -> None:
    """The tokenizer and the writer, beside tiktoken."""
    documents = texts()
    size = sum(len(text.encode()) for text in documents) / 1e6
    plain, ours = tokenizer.load("gpt2"), tokenizer.encoder("gpt2")
    backend = "riptoken" if importlib.util.find_spec("riptoken") else "tiktoken"

    def write() -> np.ndarray:
        with tempfile.TemporaryDirectory() as folder:
            source = writing.write(
                (("train", "", text) for text in documents), Path(folder), source="a", tokenizer="gpt2"
            )
            return np.concatenate([np.load(Path(folder) / path) for path in source.shards["train"]])

    def by_tiktoken() -> list[np.ndarray]:
        return [plain.encode_to_numpy(text, disallowed_special=()) for text in documents]

    def by_us() -> list[np.ndarray]:
        return [ours(documents[first : first + 500]) for first in range(0, len(documents), 500)]

    expected = np.concatenate([np.append(tokens, plain.eot_token) for tokens in by_tiktoken()])
    assert np.array_equal(write(), expected)
    assert np.array_equal(np.concatenate(by_us()), expected)
    found = in_turns({"tiktoken": by_tiktoken, "ours": by_us, "write": write}, rounds)
    print(f"tokenizing {size:.1f} MB, {len(documents):,} documents, gpt2; ours is {backend}'s")
    for name, seconds in found.items():
        print(f"  {name:10} {size / seconds:6.1f} MB a CPU-second")
    target("tokenize_times_tiktoken", found["tiktoken"] / found["ours"], ">=", 0.9)
    target("write_times_tiktoken", found["tiktoken"] / found["write"], ">=", 0.9)


def fastest_step(seconds: float) -> float:
    """Tokens a CPU-second of the fastest training step of ours."""
    import torch

    from gpt3core.train.process import settle_process
    from tests.benchmarks import training_step

    torch.set_num_threads(1)
    settle_process("cpu", 1)
    shape, asked = training_step.SHAPES["C16"], Namespace(compile=False, only=[])
    steps = training_step.arms(shape, False, asked, ours=True)
    own = {name: step for name, step in steps.items() if name.startswith("ours")}
    return shape.tokens / min(training_step.timed(own, seconds).values())


def batches(loader: Loader, sequences: int, seconds: float, start: int = 0) -> float:
    """Tokens a CPU-second of a loader that is asked for one batch after the other."""
    began, first = time.process_time(), start
    while time.process_time() - began < seconds:
        for _ in range(50):
            loader.batch(first, first + sequences)
            first += sequences
    return (first - start) * loader.n_ctx / (time.process_time() - began)


def loading(seconds: float) -> None:
    """The loader beside the step, then over 302 billion tokens."""
    rng = np.random.default_rng(0)
    streams = [
        Stream(name=name, weight=weight, pieces=(rng.integers(0, 1024, 2_000_000).astype(np.uint16),))
        for name, weight in GPT3.items()
    ]
    step = fastest_step(seconds)
    fed = batches(Loader(streams, n_ctx=128, seed=0), 5, seconds)
    print(f"loading: {fed / 1e6:.2f}M tokens a CPU-second in batches of 5 x 128; the fastest step: {step / 1e6:.3f}M")
    target("loader_times_fastest_step", fed / step, ">", 10)
    with tempfile.TemporaryDirectory() as folder:
        paths = [sparse(Path(folder) / f"{number}.npy") for number in range(PIECES)]
        before, began = anonymous(), time.process_time()
        loader = Loader(list(spread(paths)), n_ctx=2048, seed=0)
        loader.batch(0, 8)
        first = time.process_time() - began
        rate = batches(loader, 8, 1.0, start=10**8)
        grown = (anonymous() - before) / 1e6
    size = PIECES * writing.SHARD_TOKENS
    print(f"  over {size:,} tokens: first batch after {first:.2f} CPU-s, {rate / 1e6:.1f}M tokens a CPU-second")
    target("loader_300b_megabytes", grown, "<", 64)
    target("loader_300b_first_batch_cpu_seconds", first, "<", 1)


def sparse(path: Path) -> Path:
    """A shard of full length of which nothing is on the disk."""
    begin = writing.header(writing.SHARD_TOKENS)
    with open(path, "wb") as file:
        file.write(begin)
        file.truncate(len(begin) + 2 * writing.SHARD_TOKENS)
    return path


def spread(paths: list[Path]) -> Iterator[Stream]:
    """Shards as sources, as many each as its weight says."""
    first = 0
    for name, weight in GPT3.items():
        count = int(weight * PIECES)
        yield Stream(name=name, weight=weight, pieces=tuple(map(mapped, paths[first : first + count])))
        first += count


def anonymous() -> int:
    """Bytes of memory of this process that no file lies behind."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def starting() -> None:
    """What a run's start takes of a folder of many shards."""
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as folder:
        os.environ["ISOFLOP_CACHE"] = cache
        place = Path(folder)
        whole, writing.SHARD_TOKENS = writing.SHARD_TOKENS, 4096
        try:
            documents = ((("validation", "train")[k > 200], "", "words and more words " * 340) for k in range(13_200))
            source = writing.write(documents, place, source="a", tokenizer="gpt2:1024")
        finally:
            writing.SHARD_TOKENS = whole
        writing.finish(place, {"a": source}, tokenizer="gpt2:1024", validation_fraction=0.06)
        spec = DataSpec(corpus=folder, corpus_sha256=corpus.fingerprint(folder))
        taken = []
        for _ in range(2):
            began = time.process_time()
            made = shards.prepare(spec)
            assert sum(len(stream.pieces) for stream in made.train) == len(source.shards["train"])
            taken.append(time.process_time() - began)
    count, size = len(source.files), sum(file["bytes"] for file in source.files.values())
    print(
        f"a start with {count:,} files: {taken[0]:.2f} CPU-s to read their {size / 1e6:,.0f} MB, {taken[1]:.2f} after"
    )
    target("start_checked_cpu_seconds", taken[1], "<", 2)


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    asked = parser.parse_args()
    tokenizing(asked.rounds)
    loading(asked.seconds)
    starting()


if __name__ == "__main__":
    main()
