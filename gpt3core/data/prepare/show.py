"""What the command tells: the plan, how far it is, and what came of it."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from gpt3core import terminal
from gpt3core.data import facts, writing
from gpt3core.data.prepare import checks, read
from gpt3core.data.prepare.schema import Recipe
from gpt3core.data.prepare.task import Spread, Task
from gpt3core.data.prepare.units import Unit
from gpt3core.data.sources import streams
from gpt3core.data.split import TRAIN, VALIDATION
from gpt3core.words import some

# text in a file beside its size on disk, about: of English, compressed as crawls are
UNPACKED = {**dict.fromkeys(streams.COMPRESSIONS, 3.0), ".parquet": 2.0}
# MB of text a core reads, filters, compares, cuts and tokenizes in a second, all stages together, about
MB_A_SECOND = 1.5
# bytes on disk a byte of text, at the most while it goes on, but for its tokens: they lie there twice when shards are
# put together, which is more than the text of two stages before (measured: 1.2 in GPT-2's tokens, 1.8 in 1,024)
DISK = 0.25
NAMED = 3  # sources whose size is not known


class Display:
    """Shows stages as they go on: bars on a terminal, else a line a stage."""

    def __init__(self, spread: Spread) -> None:
        self._spread = spread
        self._console = Console(stderr=True, highlight=False)

    def stage(self, name: str, tasks: Sequence[Task]) -> None:
        """Do what is not done of a stage's tasks."""
        waiting = [task for task in tasks if not task.done]
        if not waiting:
            return
        begun = time.monotonic()
        kept = len(tasks) - len(waiting)
        with self._bar(name, len(tasks), kept) as advance:
            for _ in self._spread(waiting):
                advance()
        if not terminal.redraws(self._console):
            before = f", {kept} done before" if kept else ""
            seconds = time.monotonic() - begun
            print(f"{name}: {len(waiting)} tasks in {seconds:.1f} s{before}", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def _bar(self, name: str, total: int, completed: int) -> Iterator[Any]:
        if not terminal.redraws(self._console):
            yield lambda: None
            return
        columns = (TextColumn("{task.description:8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, TimeRemainingColumn(), console=self._console) as progress:
            bar = progress.add_task(name, total=total, completed=completed)
            yield lambda: progress.advance(bar)


def plan(recipe: Recipe, units: Sequence[Unit], sets: Sequence[Path], out: Path, workers: int) -> None:
    """Print what would be read and done."""
    columns, rows = ("source", "role", "weight", "files", "MB on disk", "MB of text, about"), []
    weights = checks.mixture(recipe)
    total = 0.0
    for name, source in recipe.sources.items():
        mine = [unit for unit in units if unit.source == name]
        text = sum(_text_bytes(unit) for unit in mine)
        total += text
        weight = "by size" if weights is None else f"{weights[name]:.3f}"
        known = source.path
        sizes = (f"{sum(unit.bytes for unit in mine) / 1e6:,.1f}", f"{text / 1e6:,.1f}") if known else ("?", "?")
        rows.append((name, source.role, weight, str(len({unit.name for unit in mine})), *sizes))
    title = f"{recipe.name}: {len(recipe.sources)} sources"
    terminal.table(terminal.console(), title, columns, rows, words=columns[:2], last=("files", "MB on disk"))
    steps = ["read", "gather", *(["filter"] if recipe.filters else [])]
    steps += [] if recipe.dedup.rule == "none" else [f"drop copies ({recipe.dedup.rule})"]
    steps += [f"cut out {len(sets)} evaluation sets"] if sets else []
    print(f"stages: {', '.join(steps)}, tokenize with {recipe.tokenizer}")
    if not recipe.filters and recipe.quality.rule != "none":
        print("note: nothing is filtered: that needs a source with role: web and one with role: curated")
    unknown = [name for name, source in recipe.sources.items() if not source.path]
    if len(unknown) == len(recipe.sources):
        print("how much text that is, and how long it takes, is not known before it is fetched")
        return
    beside = f"; {some(unknown, NAMED)} not counted: known when it is fetched" if unknown else ""
    hours = total / 1e6 / MB_A_SECOND / workers / 3600
    disk = total * (DISK + 2 * writing.TOKEN.itemsize * facts.tokens_a_byte(recipe.tokenizer))
    took = f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.1f} min"
    print(
        f"about {total / 1e6:,.0f} MB of text in {read.number_of_parts(int(total))} parts: {took} of {workers} "
        f"{'process' if workers == 1 else 'processes'}, {disk / 1e6:,.0f} MB of disk at {out}{beside}"
    )


def _text_bytes(unit: Unit) -> float:
    return unit.bytes * UNPACKED.get(Path(unit.name).suffix.lower(), 1.0)


def report(manifest: Mapping[str, Any], out: Path, *, notes: Sequence[str] = ()) -> None:
    """Print what a whole folder holds: of each source what was read, dropped by which rule, and is left.

    Args:
        notes: what else is to be said of it.
    """
    rules = sorted({rule for counts in manifest["decided"].values() for rule in counts if rule != "kept"})
    rows, columns = [], ("source", "weight", "documents", "bad", *rules, "left", "train tokens", "held-out tokens")
    total = sum(source["weight"] for source in manifest["sources"].values())
    for name, source in manifest["sources"].items():
        counts, decided = manifest["read"][name], manifest["decided"][name]
        bad = sum(n for kind, n in counts.items() if kind.startswith("bad."))
        numbers = [counts["documents"], bad, *(decided.get(rule, 0) for rule in rules)]
        numbers += [sum(source["documents"].values()), source["tokens"][TRAIN], source["tokens"][VALIDATION]]
        rows.append([name, f"{source['weight'] / total:.3f}", *(f"{n:,}" for n in numbers)])
    last = ("bad", "weight", *rules)
    terminal.table(terminal.console(), str(out), columns, rows, words=columns[:1], last=last)
    for line in (*_notes(manifest), *(f"note: {said}" for said in notes)):
        print(line)


def _notes(manifest: Mapping[str, Any]) -> Iterator[str]:
    if "auc" in manifest.get("filter", {}):
        found = manifest["filter"]
        kept = ", ".join(f"{name} {share:.1%}" for name, share in found["kept"].items())
        yield f"filter: AUC {found['auc']:.4f} on {found['judged_on']:,} documents; by its rule would stay {kept}"
    for name, about in manifest.get("evaluation_sets", {}).items():
        dirty, before, n = len(about["dirty"]), len(about["dirty_before_cut"]), about["examples"]
        shown = f"{n - dirty:,} of {n:,} examples clean ({1 - dirty / n:.1%})"
        yield f"{name}: {shown}, by {about['n']}-grams of the training text; {dirty:,} dirty, {before:,} before the cut"
    for name, counts in manifest["read"].items():
        if counts.get("repaired"):
            yield f"note: {counts['repaired']:,} documents of {name} were not UTF-8 and were repaired"
        if again := manifest["same_name"].get(name):
            yield f"note: {again:,} documents of {name} share a name with another, and were numbered (~2, ~3, ...)"
