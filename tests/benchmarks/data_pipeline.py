"""What the data filters cost: documents a CPU-second of each stage, beside its peer, and up to a million documents.

The documents are generated: words of a Zipf-like vocabulary, one in eight a near-duplicate of an earlier one with up to
4% of its words replaced, one in a hundred with an evaluation example in it. First each stage runs beside its peer on
the same documents, interleaved, medians of ``--repeats``: datasketch and rensa for near-duplicates, scikit-learn's
HashingVectorizer and logistic regression for quality, a set of 13-grams in plain Python (as lm-evaluation-harness's
janitor has it) for contamination. Then 10^4, 10^5, ... documents stream through all stages, a process each, with the
signatures in a memory-mapped file: what a document costs, and the peak of memory. Times are of the CPU, one thread.

    python -m tests.benchmarks.data_pipeline [--repeats=3] [--largest=1000000]
"""

from __future__ import annotations

import json
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gpt3core.data import decontaminate, dedup, quality, words
from tests.benchmarks.target import target

PEER_DOCUMENTS, PEER_WORDS = 4000, 230
SCALE_WORDS = 80
CHUNK = 1000  # documents that are in memory at a time
EXAMPLES = 2000
VOCABULARY = 50_000

Stage = Callable[[], Any]


def vocabulary() -> np.ndarray:
    """2^17 words, each as often as a Zipf-like law has it, so that a uniform draw of them is text."""
    rng = np.random.default_rng(0)
    letters = np.array(list(string.ascii_lowercase))
    names = np.array(["".join(rng.choice(letters, n)) for n in rng.integers(2, 10, VOCABULARY)], object)
    share = 1 / (np.arange(VOCABULARY) + 3.0)
    return names[rng.choice(VOCABULARY, 1 << 17, p=share / share.sum())]


def examples(text: np.ndarray) -> list[str]:
    """An evaluation set."""
    rng = np.random.default_rng(1)
    return [" ".join(text[rng.integers(0, len(text), n)]) for n in rng.integers(14, 60, EXAMPLES)]


def documents(text: np.ndarray, held: list[str], number: int, count: int, n_words: int) -> tuple[list[str], list[int]]:
    """A chunk of documents, and of each the one it is a near-duplicate of, or -1."""
    rng = np.random.default_rng([2, number])
    lengths = rng.integers(n_words // 2, n_words * 3 // 2, count)
    ends = np.cumsum(lengths)
    drawn = text[rng.integers(0, len(text), ends[-1])].tolist()
    found = [drawn[end - n : end] for end, n in zip(ends.tolist(), lengths.tolist(), strict=True)]
    origins = [-1] * count
    for i in range(7, count, 8):
        origins[i] = int(rng.integers(i // 8 * 7 + 1)) // 7 * 8
        found[i] = list(found[origins[i]])
        for at in rng.integers(0, len(found[i]), rng.integers(1, max(2, len(found[i]) // 25))).tolist():
            found[i][at] = "other"
    for i in range(50, count, 100):
        found[i][len(found[i]) // 2 : len(found[i]) // 2] = held[rng.integers(len(held))].split(" ")
    return [" ".join(content) for content in found], origins


def interleaved(stages: dict[str, Stage], repeats: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Median CPU seconds of each stage, and what each gave."""
    seconds: dict[str, list[float]] = {name: [] for name in stages}
    results = {}
    for _ in range(repeats):
        for name, stage in stages.items():
            start = time.process_time()
            results[name] = stage()
            seconds[name].append(time.process_time() - start)
    return {name: float(np.median(s)) for name, s in seconds.items()}, results


def show(title: str, seconds: dict[str, float], count: int) -> None:
    """A line a stage."""
    print(title)
    for name, s in seconds.items():
        print(f"  {name:58s} {count / s:10,.0f} documents a CPU-second")


def in_chunks(texts: list[str]) -> Iterator[list[str]]:
    """Texts as they pass a stage."""
    yield from (texts[at : at + CHUNK] for at in range(0, len(texts), CHUNK))


# ------------------------------------------------------------------------------------------------- near-duplicates


def shingle_sets(texts: list[str]) -> list[set[bytes]]:
    """Word 5-grams in plain Python, for the peers."""
    split = [text.lower().split() for text in texts]
    return [{" ".join(own[i : i + 5]).encode() for i in range(max(1, len(own) - 4))} for own in split]


def by_datasketch_hash(sets: list[set[bytes]]) -> list[Any]:
    """Its signatures."""
    import datasketch

    found = [datasketch.MinHash(num_perm=dedup.MODERN.hashes) for _ in sets]
    for sketch, own in zip(found, sets, strict=True):
        sketch.update_batch(own)
    return found


def by_datasketch_lsh(sketches: list[Any]) -> list[list[int]]:
    """Of each document the earlier ones that it collides with."""
    import datasketch

    index = datasketch.MinHashLSH(num_perm=dedup.MODERN.hashes, params=(dedup.MODERN.bands, dedup.MODERN.rows))
    found = []
    for number, sketch in enumerate(sketches):
        found.append(index.query(sketch))
        index.insert(number, sketch)
    return found


def by_rensa(sets: list[set[str]]) -> list[list[int]]:
    """Its signatures and collisions."""
    import rensa

    index = rensa.RMinHashLSH(0.7, dedup.MODERN.hashes, dedup.MODERN.bands)
    found = []
    for number, own in enumerate(sets):
        sketch = rensa.RMinHash(dedup.MODERN.hashes, 42)
        sketch.update(list(own))
        found.append(index.query(sketch))
        index.insert(number, sketch)
    return found


def shingles(texts: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Our word 5-grams, chunk by chunk."""
    split = [words.words(chunk) for chunk in in_chunks(texts)]
    return [words.grams(own.hashes, own.offsets, dedup.MODERN.gram, short=True) for own in split]


def signed(found: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Our signatures."""
    return np.concatenate([dedup.minima(hashes, offsets, dedup.MODERN) for hashes, offsets in found])


def kept(signatures: np.ndarray) -> np.ndarray:
    """Of each document the copy that is kept."""
    ids = [f"{number:08d}" for number in range(len(signatures))]
    return dedup.copies(ids, ["web"] * len(ids), signatures, dedup.MODERN, order=["web"])


def near_duplicates(texts: list[str], origins: list[int], repeats: int) -> None:
    """Ours beside datasketch and rensa."""
    names = ("dedup_hash_lsh_x_datasketch", "dedup_with_shingling_x_datasketch", "dedup_recall_x_datasketch")
    goals = (20.0, 5.0, 0.99)
    sets = shingle_sets(texts)
    hashed = shingles(texts)
    signatures = signed(hashed)
    stages: dict[str, Stage] = {
        "ours: words and 5-grams": lambda: shingles(texts),
        "ours: 128 hashes": lambda: signed(hashed),
        "ours: LSH, comparison, components": lambda: kept(signatures),
    }
    try:
        sketches = by_datasketch_hash(sets)
        stages |= {
            "datasketch: 5-grams in plain Python": lambda: shingle_sets(texts),
            "datasketch: 128 hashes": lambda: by_datasketch_hash(sets),
            "datasketch: LSH": lambda: by_datasketch_lsh(sketches),
        }
    except ImportError:
        print("datasketch is not here: make peers installs it")
    try:
        import rensa  # noqa: F401

        plain = [{s.decode() for s in own} for own in sets]
        stages["rensa: 128 hashes and LSH, given the 5-grams"] = lambda: by_rensa(plain)
    except ImportError:
        pass
    seconds, results = interleaved(stages, repeats)
    show(f"near-duplicates, {len(texts)} documents of {PEER_WORDS} words", seconds, len(texts))
    shingling, hashing, lsh, *theirs = seconds.values()
    if len(theirs) < 3:
        for name, goal in zip(names, goals, strict=True):
            target(name, None, ">=", goal)
        return
    planted = [number for number, origin in enumerate(origins) if origin >= 0]
    collided = results["datasketch: LSH"]
    found = results["ours: LSH, comparison, components"]
    by_them = sum(bool(collided[number]) for number in planted)
    by_us = sum(found[number] != number for number in planted)
    print(f"  planted {len(planted)}: found by us {by_us}, by datasketch {by_them}; we drop "
          f"{(found != np.arange(len(found))).sum()} documents, datasketch {sum(map(bool, collided))}")  # fmt: skip
    whole = shingling + hashing + lsh
    print(f"  from text to copies beside datasketch's hash and LSH alone: {sum(theirs[1:3]) / whole:.1f}x")
    values = (sum(theirs[1:3]) / (hashing + lsh), sum(theirs[:3]) / whole, by_us / by_them)
    for name, value, goal in zip(names, values, goals, strict=True):
        target(name, value, ">=", goal)


# --------------------------------------------------------------------------------------------------------- quality


def labelled(text: np.ndarray, count: int) -> tuple[list[str], np.ndarray]:
    """Curated and raw text: half of the words of each half of the vocabulary are three times as frequent."""
    rng = np.random.default_rng(3)
    curated = rng.random(count) < 0.5
    half = np.array([hash_ & 1 for hash_ in words.words(text.tolist()).hashes.tolist()], bool)
    sides = {True: text[half], False: text[~half]}
    found = []
    for kind in curated:
        n = int(rng.integers(PEER_WORDS // 2, PEER_WORDS * 3 // 2))
        leaning = rng.random(n) < 0.06
        drawn = text[rng.integers(0, len(text), n)]
        side = sides[bool(kind)]
        drawn[leaning] = side[rng.integers(0, len(side), leaning.sum())]
        found.append(" ".join(drawn))
    return found, curated


def quality_filter(text: np.ndarray, repeats: int) -> None:
    """Ours beside scikit-learn."""
    texts, curated = labelled(text, PEER_DOCUMENTS)
    half = len(texts) // 2
    ours = quality.train(zip(texts[:half], curated[:half].tolist(), strict=True))
    stages: dict[str, Stage] = {
        "ours": lambda: np.concatenate([ours.scores(chunk) for chunk in in_chunks(texts[half:])])
    }
    training: dict[str, Stage] = {
        "ours, training": lambda: quality.train(zip(texts[:half], curated[:half].tolist(), strict=True))
    }
    try:
        from sklearn.feature_extraction.text import HashingVectorizer
        from sklearn.linear_model import LogisticRegression

        places = HashingVectorizer(n_features=1 << quality.PLACES_LOG2, analyzer=lambda t: t.lower().split())
        theirs = LogisticRegression(max_iter=1000).fit(places.transform(texts[:half]), curated[:half])
        stages["scikit-learn: HashingVectorizer, LogisticRegression"] = lambda: np.concatenate(
            [theirs.predict_proba(places.transform(chunk))[:, 1] for chunk in in_chunks(texts[half:])]
        )
        training["scikit-learn, training"] = lambda: LogisticRegression(max_iter=1000).fit(
            places.transform(texts[:half]), curated[:half]
        )
    except ImportError:
        print("scikit-learn is not here: make peers installs it")
    seconds, scores = interleaved(stages, repeats)
    show(f"quality, {half} documents of {PEER_WORDS} words", seconds, half)
    show("", interleaved(training, repeats)[0], half)
    areas = [quality.judge(s, curated[half:], ["web"] * half).auc for s in scores.values()]
    print(f"  AUC {', '.join(f'{area:.4f}' for area in areas)} ({', '.join(scores)})")
    ratio = None if len(seconds) < 2 else list(seconds.values())[1] / seconds["ours"]
    target("quality_x_scikit_learn", ratio, ">=", 1.0)
    target("quality_auc_x_scikit_learn", None if ratio is None else areas[0] / areas[1], ">=", 0.99)


# --------------------------------------------------------------------------------------------------- contamination

REMOVED = str.maketrans("", "", string.punctuation)


def bare_grams(text: str) -> Iterator[str]:
    """13-grams of bare words in plain Python."""
    own = text.lower().translate(REMOVED).split()
    yield from (" ".join(own[i : i + 13]) for i in range(len(own) - 12))


def contamination(texts: list[str], held: list[str], repeats: int) -> None:
    """Ours beside a set in plain Python."""
    known = decontaminate.evaluation_grams({"set": held})
    plain = {gram for example in held for gram in bare_grams(example)}
    counts = decontaminate.count(texts, known)

    def ours() -> list[bool]:
        cleaned = (c for chunk in in_chunks(texts) for c in decontaminate.clean(chunk, known, counts))
        return [c.collisions > 0 for c in cleaned]

    seconds, found = interleaved(
        {
            "ours: find and cut": ours,
            "ours: count": lambda: sum(decontaminate.count(chunk, known) for chunk in in_chunks(texts)),
            "a set of 13-grams in plain Python: find": lambda: [any(g in plain for g in bare_grams(t)) for t in texts],
        },
        repeats,
    )
    show(f"contamination, {len(texts)} documents of {PEER_WORDS} words, {len(known.table)} grams", seconds, len(texts))
    (first, _, theirs) = found.values()
    print(f"  contaminated documents: {sum(first)}, by the plain set {sum(theirs)}")
    cutting, _, by_set = seconds.values()
    target("decontaminate_x_plain_set", by_set / cutting, ">=", 1.0)
    target(
        "decontaminate_documents_that_differ", float(sum(a != b for a, b in zip(first, theirs, strict=True))), "==", 0
    )


# ----------------------------------------------------------------------------------------------------------- scale


def stream(count: int, folder: str) -> dict[str, float]:
    """CPU seconds of each stage over so many documents, of which a chunk is in memory."""
    text = vocabulary()
    held = examples(text)
    seconds: dict[str, float] = {}

    def timed(name: str, stage: Stage) -> Any:
        start = time.process_time()
        result = stage()
        seconds[name] = seconds.get(name, 0.0) + time.process_time() - start
        return result

    def chunk(number: int) -> list[str]:
        return timed("(generating)", lambda: documents(text, held, number, CHUNK, SCALE_WORDS)[0])

    known = decontaminate.evaluation_grams({"set": held})
    classifier = quality.train((t, i % 2 == 0) for i, t in enumerate(chunk(0)))
    counts = np.zeros(len(known.table), np.uint32)
    tables = {
        name: np.lib.format.open_memmap(f"{folder}/{name}.npy", "w+", np.uint32, (count, setting.hashes))
        for name, setting in (("5-grams", dedup.MODERN), ("words", dedup.GPT3))
    }
    for number in range(count // CHUNK):
        texts = chunk(number)
        ids = [f"{number * CHUNK + i:08d}" for i in range(CHUNK)]
        timed("quality", lambda: quality.keep(ids, classifier.scores(texts)))  # noqa: B023
        rows = slice(number * CHUNK, (number + 1) * CHUNK)
        for name, setting in (("5-grams", dedup.MODERN), ("words", dedup.GPT3)):
            tables[name][rows] = timed(f"signatures, {name}", lambda: dedup.signatures(texts, setting))  # noqa: B023
        counts += timed("count of grams", lambda: decontaminate.count(texts, known))  # noqa: B023
    for number in range(count // CHUNK):
        texts = chunk(number)
        timed("cut", lambda: decontaminate.clean(texts, known, counts))  # noqa: B023
    ids = [f"{i:08d}" for i in range(count)]
    for name, setting in (("5-grams", dedup.MODERN), ("words", dedup.GPT3)):
        found = timed(
            f"copies, {name}",
            lambda: dedup.copies(ids, ["web"] * count, tables[name], setting, order=["web"]),  # noqa: B023
        )
        seconds[f"dropped, {name}"] = float((found != np.arange(count)).mean())
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return seconds | {"megabytes": int(status["VmHWM"].split()[0]) / 1024}  # mapped files among them


def scale(largest: int) -> None:
    """10^4, 10^5, ... documents, a process each."""
    costs = {}
    size = 10_000
    peak = 0.0
    while size <= largest:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "tests.benchmarks.data_pipeline", f"--stream={size}", f"--folder={folder}"]
            output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        seconds = json.loads(output)
        peak = seconds.pop("megabytes")
        dropped = {name: seconds.pop(name) for name in list(seconds) if name.startswith("dropped")}
        show(f"{size:,} documents of {SCALE_WORDS} words, {peak:,.0f} MB at the most, {dropped}", seconds, size)
        costs[size] = sum(s for name, s in seconds.items() if not name.startswith("(")) / size
        print(f"  {'all stages':58s} {1 / costs[size]:10,.0f} documents a CPU-second")
        size *= 10
    ran = largest >= 1_000_000
    target("cost_of_a_document_1e6_x_1e4", costs[1_000_000] / costs[10_000] if ran else None, "<=", 1.25)
    target("megabytes_at_1e6", peak if ran else None, "<=", 4096)


def main() -> None:
    """Print the figures and the targets."""
    options = dict(a.removeprefix("--").split("=", 1) for a in sys.argv[1:])
    if "stream" in options:
        print(json.dumps(stream(int(options["stream"]), options["folder"])))
        return
    repeats = int(options.get("repeats", "3"))
    text = vocabulary()
    held = examples(text)
    texts, origins = documents(text, held, 0, PEER_DOCUMENTS, PEER_WORDS)
    near_duplicates(texts, origins, repeats)
    quality_filter(text, repeats)
    contamination(texts, held, repeats)
    scale(int(options.get("largest", "1000000")))


if __name__ == "__main__":
    main()
