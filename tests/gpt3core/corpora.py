"""Small corpora of generated text for data preparation: curated and raw sources, copies, evaluation text."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from gpt3core.data.prepare import task
from gpt3core.data.prepare.__main__ import main

PLAIN = ("quality.rule=none", "dedup.rule=none", "decontaminate.against=[]")  # as quick as can be
SOURCES = ("web", "books", "wiki")
EVALUATED = "the quick brown fox jumps over a lazy dog while seven wise owls watch from old barn roofs at night"
RECIPE = """
name: small
tokenizer: gpt2:300
sources:
  web: {path: FOLDER/web*, role: web, weight: 60}
  books: {path: FOLDER/books*, weight: 30}
  wiki: {path: FOLDER/wiki*, weight: 10}
quality: {alpha: 0.5}
decontaminate: {against: [FOLDER/sets]}
"""


def _words(seed: int) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(400)]


def documents(n: int = 60) -> dict[str, list[str]]:
    """The texts of each source: a tenth near-copies, one with evaluation text in it."""
    draw = random.Random(7)
    good, noise = _words(1), _words(2)
    found: dict[str, list[str]] = {}
    for source in SOURCES:
        words = noise + good[:40] if source == "web" else good
        texts = [" ".join(draw.choices(words, k=draw.randint(60, 120))) for _ in range(n)]
        texts += [f"{text} again" for text in texts[: n // 10]]
        found[source] = texts
    long = [" ".join(draw.choices(good, k=80)) for _ in range(2)]
    found["books"].append(f"{long[0]} {EVALUATED} {long[1]}")
    return found


def lines(texts: list[str]) -> str:
    """JSONL of texts."""
    return "".join(json.dumps({"text": text}) + "\n" for text in texts)


def write(folder: Path, n: int = 60) -> Path:
    """Write the sources, an evaluation set and a recipe; returns the recipe's path."""
    folder.mkdir(parents=True, exist_ok=True)
    for source, texts in documents(n).items():
        (folder / f"{source}.jsonl").write_text(lines(texts))
    (folder / "sets").mkdir(exist_ok=True)
    (folder / "sets" / "owls.jsonl").write_text(json.dumps({"question": EVALUATED, "answer": "owls"}) + "\n")
    return recipe(folder)


def recipe(folder: Path) -> Path:
    """Write the recipe alone."""
    path = folder / "small.yaml"
    path.write_text(RECIPE.replace("FOLDER", str(folder)))
    return path


def prepare(path: Path, out: Path, *words: str, spread: Any = lambda _: task.one_by_one) -> int:
    """The command, with a recipe at a path, in this process."""
    return main([f"recipe={path}", f"out={out}", *words], spread=spread)


def shards(out: Path) -> dict[str, bytes]:
    """The bytes of every file of the sources of a prepared folder."""
    return {f"{s}/{p.name}": p.read_bytes() for s in SOURCES for p in sorted((out / s).iterdir())}
