"""Items a CPU-second of few-shot multiple choice: our engine beside lm-evaluation-harness's backend for transformers.

``python -m tests.benchmarks.few_shot_engine [--short]``; it needs ``pip install 'isoflop[lm-eval]'``. The same weights,
written by ``export_gpt2``; tasks in the harness's own YAML, K = 8; the harness makes the prompts of both. One process
and one thread, interleaved, medians, the harness at the best of its batch sizes. Both get texts, and what they say is
compared: log-probabilities, and which items are right by its "acc".
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import importlib.util
import json
import logging
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt3core.data import tokenizer
from gpt3core.evals.tasks.english import words
from gpt3core.interop.folder import export_gpt2
from gpt3core.model.gpt import GPT
from gpt3core.sizes import nano
from gpt3core.train.process import settle_process
from tests.benchmarks.target import target

SHOTS = 8
BATCHES = (4, 16)  # of the harness
GOAL = 3.0
TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A kind of task and the model that is asked."""

    name: str
    context: int  # words of a question
    ending: int  # words of a choice
    choices: int = 4
    same_examples: bool = False  # for all items
    vocab: int = 1024
    n_layer: int = 4
    width: int = 160
    attention: str = "alternating"
    n_ctx: int = 512
    items: int = 16


SHAPES = (
    Shape(name="four_words", context=4, ending=1, n_ctx=256, items=32),
    Shape(name="four_endings", context=8, ending=4),
    Shape(name="four_endings_dense", context=8, ending=4, n_layer=6, width=256, attention="dense", items=6),
    Shape(name="four_endings_gpt2_vocabulary", context=20, ending=10, vocab=tokenizer.GPT2_VOCAB, items=3),
    Shape(name="same_examples", context=8, ending=4, same_examples=True),
    Shape(name="two_endings", context=8, ending=4, choices=2),
    Shape(name="one_token", context=8, ending=0),
)
YAML = """task: {task}
dataset_path: json
dataset_kwargs:
  data_files:
    train: {folder}/train.jsonl
    test: {folder}/test.jsonl
training_split: train
test_split: test
fewshot_split: train
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{label}}}}"
target_delimiter: ""
num_fewshot: {shots}
{sampler}metric_list:
  - metric: acc
"""


def write_task(shape: Shape, folder: Path) -> str:
    """The task's files; its name."""
    rng, known = random.Random(shape.name), words(2, 8)[:2000]

    def some(count: int) -> str:
        return "".join(f" {rng.choice(known)}" for _ in range(count))

    def choice() -> str:
        return some(shape.ending) if shape.ending else f" {rng.choice('abcdefghijklmnopqrstuvwxyz')}"

    for split, count in (("train", 64), ("test", shape.items)):
        rows = [
            {
                "question": f"Q:{some(shape.context)}\nA:",
                "choices": [choice() for _ in range(shape.choices)],
                "label": rng.randrange(shape.choices),
            }
            for _ in range(count)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sampler = "fewshot_config:\n  sampler: first_n\n" if shape.same_examples else ""
    task = f"bench_{shape.name}"
    (folder / f"{task}.yaml").write_text(YAML.format(task=task, folder=folder, shots=SHOTS, sampler=sampler))
    return task


def evaluated(lm: Any, task: str, folder: Path) -> tuple[list[float], list[Any]]:
    """Whether each item is right under the harness, and what it asked of the model."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    requests: list[Any] = []
    inner = lm.loglikelihood

    def noting(asked: list[Any], **options: Any) -> Any:
        requests.extend(asked)
        return inner(asked, disable_tqdm=True)

    lm.loglikelihood = noting
    try:
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        found = lm_eval.simple_evaluate(
            model=lm, tasks=[task], task_manager=manager, bootstrap_iters=0, log_samples=True
        )
    finally:
        lm.loglikelihood = inner
    samples = sorted(found["samples"][task], key=lambda sample: sample["doc_id"])
    return [sample["acc"] for sample in samples], requests


def measure(shape: Shape, rounds: int, scratch: Path) -> dict[str, float]:
    """Items a CPU-second, by who is asked; and the largest difference of what they say."""
    import transformers
    from lm_eval.models.huggingface import HFLM

    from gpt3core.interop.harness import Decoder, kernel

    model = GPT(
        nano(
            shape.width,
            n_layer=shape.n_layer,
            n_ctx=shape.n_ctx,
            vocab_size=shape.vocab,
            attention=shape.attention,
            band=32,
        ),
        kernel=kernel("cpu"),
    )
    model.init_weights(0)
    name = f"gpt2:{shape.vocab}" if shape.vocab < tokenizer.GPT2_VOCAB else "gpt2"
    folder = scratch / shape.name
    folder.mkdir()
    export_gpt2(model, folder / "out", tokenizer=name)
    peer = transformers.AutoModelForCausalLM.from_pretrained(folder / "out").eval()
    reads = transformers.AutoTokenizer.from_pretrained(folder / "out")
    theirs = {b: HFLM(pretrained=peer, tokenizer=reads, batch_size=b, max_length=shape.n_ctx) for b in BATCHES}
    ours = Decoder(model.eval(), tokenizer.load(name))
    task = write_task(shape, folder)
    right, requests = evaluated(ours, task, folder)
    right_there, _ = evaluated(theirs[BATCHES[-1]], task, folder)
    tokens = statistics.mean(len(ours.tok_encode(request.args[0])) for request in requests)
    asked: dict[str, Callable[[], Any]] = {"ours": lambda: ours.loglikelihood(requests, disable_tqdm=True)}
    asked |= {f"batch {b}": lambda lm=lm: lm.loglikelihood(requests, disable_tqdm=True) for b, lm in theirs.items()}
    seconds: dict[str, list[float]] = {who: [] for who in asked}
    for _ in range(rounds):
        said = {}
        for who, ask in asked.items():
            started = time.process_time()
            said[who] = ask()
            seconds[who].append(time.process_time() - started)
    rates = {who: shape.items / statistics.median(times) for who, times in seconds.items()}
    other = said[f"batch {BATCHES[-1]}"]
    return {
        **rates,
        "tokens": tokens,
        "difference": max(abs(a - b) for (a, _), (b, _) in zip(said["ours"], other, strict=True)),
        "disagreeing": sum(a != b for a, b in zip(right, right_there, strict=True)),
    }


def main(short: bool, scratch: Path) -> None:
    """Print the table."""
    if importlib.util.find_spec("lm_eval") is None or importlib.util.find_spec("accelerate") is None:
        print("lm-evaluation-harness is not installed: pip install 'isoflop[lm-eval]'")
        for shape in SHAPES:
            target(f"few_shot_over_lm_eval_{shape.name}", None, ">=", GOAL)
        return
    os.environ["HF_DATASETS_CACHE"] = str(scratch / "datasets")
    import transformers

    logging.disable(logging.WARNING)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    settle_process("cpu")
    worst, disagreeing = 0.0, 0.0
    for shape in SHAPES[:2] if short else SHAPES:
        found = measure(shape, 1 if short else 3, scratch)
        best = max(found[f"batch {b}"] for b in BATCHES)
        rates = ", ".join(f"{who} {found[who]:.2f}" for who in ("ours", *(f"batch {b}" for b in BATCHES)))
        print(f"{shape.name} ({found['tokens']:.0f} tokens of context): {rates} items/CPU-s", flush=True)
        worst, disagreeing = max(worst, found["difference"]), disagreeing + found["disagreeing"]
        target(f"few_shot_over_lm_eval_{shape.name}", found["ours"] / best, ">=", GOAL)
    target("log_probability_difference_nats", worst, "<=", TOLERANCE)
    target("items_right_here_and_not_there", disagreeing, "==", 0)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main("--short" in sys.argv, Path(folder))
