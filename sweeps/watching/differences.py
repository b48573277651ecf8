"""Why two runs are not the same run: what can change the weights and differs, and what differs beside that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt3core import costs
from gpt3core import spec as specs
from gpt3core.errors import StoreError, UsageError
from gpt3core.spec import RunSpec
from gpt3core.store import files, finding
from gpt3core.store.rundir import RunDir

# in words, where a name does not say it
WORDS = {
    "model.d_model": "width",
    "model.n_layer": "layers",
    "model.n_head": "heads",
    "model.d_head": "width of a head",
    "model.n_ctx": "context, in tokens",
    "model.vocab_size": "vocabulary",
    "data.corpus_sha256": "the text itself, by its content",
    "data.corpus": "where the text lies",
    "data.tokenizer": "tokenizer",
    "data.validation_fraction": "share of the text that is held out",
    "data.pipeline_version": "version of the text pipeline",
    "optim.lr": "learning rate",
    "optim.batch_tokens": "tokens a step",
    "optim.warmup_tokens": "tokens of warm-up",
    "optim.decay_tokens": "tokens after which the decay ends",
    "optim.stable_tokens": "tokens after which the decay begins",
    "optim.schedule": "schedule of the learning rate",
    "tokens": "tokens trained on",
    "seed": "seed",
    "precision": "precision that was asked for",
    "kernel": "kernel that was asked for",
    "compile": "compilation that was asked for",
    "trainer_version": "version of the trainer, whose runs have other weights",
    "parent": "the checkpoint that it goes on from",
    "budget_flops": "IsoFLOP budget",
    "noise_scale_every": "steps between measurements of the noise scale",
}
PLACED = {
    "precision": "precision that it has",
    "kernel": "kernel that it has",
    "compile": "compilation",
    "micro_batch": "micro-batch",
    "threads": "threads",
    "trunk": "whose checkpoint it began from",
    "devices": "workers",
    "layout": "how it is cut over them",
    "device": "device",
    "torch": "torch",
    "status": "how it ended",
    "steps": "steps done",
    "attempts": "attempts",
    "train_seconds": "seconds of training",
    "flops_per_second": "FLOP/s",
    "damage": "found damaged",
}


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One thing that differs."""

    field: str
    words: str
    a: Any
    b: Any


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Two runs beside each other."""

    a: RunDir
    b: RunDir
    same: bool  # the same run: what can change the weights is the same
    hashed: tuple[Difference, ...]
    beside: tuple[Difference, ...]  # that cannot change the weights, or was not asked for


def find(root: Path, word: str) -> RunDir:
    """The run that is meant: an id, the beginning of one, a size's label, or a run's folder.

    Raises:
        UsageError, StoreError: where there is none, or more than one.
    """
    path = Path(word).expanduser()
    if "/" in word:
        folder = path.absolute()
        if not (folder / "spec.json").is_file():
            raise UsageError(f"{word:.200}: no run's folder (it has no spec.json); give ROOT/runs/ID, or an id")
        return RunDir(folder.parent.parent, folder.name)
    return finding.find(root, word)


def compare(a: RunDir, b: RunDir) -> Compared:
    """Two runs, by what their folders say.

    Raises:
        StoreError: where a specification is unreadable.
    """
    left, right = a.spec(), b.spec()
    counted, other = _specified(left, right)
    facts = _facts(a), _facts(b)
    both = [name for name in PLACED if all(name in known for known in facts)]
    beside = [d for name in both if (d := _of(name, PLACED[name], facts[0][name], facts[1][name]))]
    evals = _evaluations(a), _evaluations(b)
    if evals[0] != evals[1]:
        beside.append(Difference(field="evals", words="evaluations made", a=evals[0], b=evals[1]))
    return Compared(a=a, b=b, same=not counted, hashed=tuple(counted), beside=(*other, *beside))


def _specified(a: RunSpec, b: RunSpec) -> tuple[list[Difference], list[Difference]]:
    """Fields of the specifications that differ: those that are hashed, and the others."""
    left, right = specs.flat(specs.as_dict(a)), specs.flat(specs.as_dict(b))
    hashed = {*specs.flat(specs.hashed(a)), *specs.flat(specs.hashed(b))}
    counted, other = list[Difference](), list[Difference]()
    for name in dict.fromkeys([*left, *right]):
        found = _of(name, WORDS.get(name, ""), left.get(name), right.get(name))
        if found is not None:
            (counted if name in hashed else other).append(found)
    for what, n in (("parameters beside the embedding", "nonembedding"), ("parameters", "total")):
        sizes = [getattr(costs.params(run.model), n) for run in (a, b)]
        if sizes[0] != sizes[1]:
            other.append(Difference(field=n, words=what, a=sizes[0], b=sizes[1]))
    return counted, other


def _of(name: str, words: str, a: Any, b: Any) -> Difference | None:
    return None if a == b else Difference(field=name, words=words, a=a, b=b)


def _facts(run: RunDir) -> dict[str, Any]:
    """How a run is, or was, trained: by its result, else by what its newest attempt says of its start."""
    attempts, found = run.attempts(), dict[str, Any]()
    for folder in attempts[-1:]:
        started = [event for event in _events(folder) if event.get("event") == "start"]
        found |= started[-1] if started else {}
        if isinstance(found.get("layout"), Mapping):
            found["layout"] = ", ".join(
                f"{k} {v}" for k, v in sorted(found["layout"].items()) if v not in (1, "none", False)
            )
    found |= {"attempts": len(attempts), "damage": run.damage() or None}
    if not attempts:
        return {**found, "status": "never started"}
    try:
        result = run.result()
    except (StoreError, OSError) as error:
        return {**found, "status": f"unreadable: {error}"}
    return {**found, **result, "damage": result.get("damage") or None} if result else {**found, "status": "not ended"}


def _events(attempt: Path) -> list[dict[str, Any]]:
    try:
        return files.read_lines(attempt / "events.jsonl")
    except OSError:
        return []


def _evaluations(run: RunDir) -> list[str]:
    return sorted(path.stem for path in (run.path / "evals").glob("*.parquet"))
