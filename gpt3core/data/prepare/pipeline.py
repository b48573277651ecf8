"""The stages in their order: which tasks each has, and what follows from what.

DIR/.work/NN-stage-KEY/ holds what a stage left; the key covers the settings and the text that it follows from. Its
text goes when all that read it is done (``release``). When all is done the shards and decisions get their names, the
manifest is written, and DIR/.work goes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt3core.data import decontaminate
from gpt3core.data.prepare import cleaning, copying, filtering, parts, read, release, sharding, task
from gpt3core.data.prepare.schema import Recipe
from gpt3core.data.prepare.task import Task
from gpt3core.data.prepare.units import Unit
from gpt3core.data.sources import examples, formats, walk
from gpt3core.store import files

FORMAT = 4  # of what stages leave for one another, and of their rules
WORK = ".work"
EVALUATION_SETS = "allowed are .jsonl files (an example a line) and .txt files (the same), also as .gz, .zst and .xz"

Stage = Callable[[str, Sequence[Task]], None]  # does what is not done of a stage's tasks, by its name


@dataclass(kw_only=True)
class Prepared:
    """What the stages left, as far as they have come."""

    read: list[Path] = field(default_factory=list)  # a folder a unit
    parts: list[Path] = field(default_factory=list)
    scored: list[Path | None] = field(default_factory=list)  # a file a part; None without a filter
    classifier: Path | None = None
    copies: Path | None = None  # a folder with a file a part
    counts: Path | None = None  # a folder, of grams of evaluation sets before they are cut out; None without any
    recounts: Path | None = None  # the same, of what is trained on
    cleaned: list[Path] = field(default_factory=list)  # a folder a part
    shards: dict[str, Path] = field(default_factory=dict)  # a folder a source
    text: str = ""  # names what was read
    sets: dict[str, str] = field(default_factory=dict)  # the sha256 of each evaluation set's content


def evaluation_sets(recipe: Recipe) -> list[Path]:
    """The files of the evaluation sets, in order of their names.

    Raises:
        ValueError: for one that is not there, one of another format, and two of one name.
    """
    found: dict[str, Path] = {}
    for given in recipe.decontaminate.against:
        where = f"decontaminate.against={given}"
        paths = walk.files(given, where, "give the file or folder of evaluation sets", EVALUATION_SETS)
        if not paths:
            raise ValueError(f"{where} has no file: give evaluation sets, or leave it out")
        for path in paths:
            name = examples.name(path)
            if not formats.ending(path).startswith((".jsonl", ".txt")):
                raise ValueError(f"decontaminate.against has {path}, of which no examples are read: {EVALUATION_SETS}")
            if found.setdefault(name, path.absolute()) != path.absolute():
                raise ValueError(f"decontaminate.against has two sets of the name {name}, {found[name]} and {path}")
    return [found[name] for name in sorted(found)]


def text_key(units: Sequence[Unit], sets: Sequence[Path], version: int = FORMAT) -> str:
    """Names the text of a command as a version does: files by name, size and time, evaluation sets by their content."""
    return task.key(version, sorted(unit.key for unit in units), _hashes(sets))


def _hashes(sets: Sequence[Path]) -> list[list[str]]:
    return [[path.name, files.sha256_file(path)] for path in sets]


def stages(recipe: Recipe, units: Sequence[Unit], work: Path, do: Stage) -> Prepared:
    """Do all stages.

    Raises:
        ValueError: for text that cannot be used: too much of it is bad, or a source has nothing left.
    """
    task.clear(work)

    def sure(name: str, tasks: Sequence[Task]) -> None:
        release.take_back(work, tasks)
        do(name, tasks)

    while True:
        try:
            return _stages(recipe, units, work, sure)
        except release.NeededError:
            continue  # with the stages that are to be done again


def _stages(recipe: Recipe, units: Sequence[Unit], work: Path, do: Stage) -> Prepared:
    made = Prepared(text=text_key(units, evaluation_sets(recipe)))
    held = _evaluated(recipe, work, do)  # first: what is wrong with an evaluation set is said before hours of reading
    made.sets = {examples.name(path): examples.fingerprint(path) for path in evaluation_sets(recipe)}
    made.read = [work / f"01-read-{task.key(FORMAT, unit.key)}" for unit in units]
    pairs = zip(units, made.read, strict=True)
    do("read", [Task(out=out, work=read.read, given={"unit": unit}) for unit, out in pairs])
    _check_read(recipe, units, made.read)
    key = task.key(FORMAT, sorted(unit.key for unit in units))
    key = gather(made, work, key, do)
    key = _filter(made, recipe, work, key, do)
    key = _compare(made, recipe, work, key, do)
    key = _clean(made, held, work, key, do)
    _shard(made, recipe, held, work, key, do)
    return made


def read_counts(folders: Sequence[Path]) -> dict[str, dict[str, int]]:
    """What was read of each source: documents, bytes, repaired, and bad ones by their kind."""
    found: dict[str, dict[str, int]] = {}
    for folder in folders:
        counts = files.read_object(folder / read.COUNTS)
        of = found.setdefault(counts.pop("source"), {"documents": 0, "bytes": 0})
        for name, n in counts.items():
            of[name] = of.get(name, 0) + n
    return found


def _check_read(recipe: Recipe, units: Sequence[Unit], folders: Sequence[Path]) -> None:
    """Refuse text of which more is bad than the recipe allows, and sources without any."""
    for name, counts in read_counts(folders).items():
        mine = [folder for unit, folder in zip(units, folders, strict=True) if unit.source == name]
        bad = sum(n for kind, n in counts.items() if kind.startswith("bad."))
        damaged = counts.get("bad.damaged", 0)
        if not bad and not counts["documents"]:
            raise ValueError(f"sources.{name} is empty: there is no text in it; give files with text ({walk.ALLOWED})")
        all_of = bad - damaged + counts["documents"]
        for whole, n, allowed, what, key in (
            (False, damaged, recipe.bad.files, "files of which not all can be read", f"bad.files={damaged}"),
            (True, bad - damaged, recipe.bad.share * all_of, f"of {all_of} documents that are bad", "bad.share"),
        ):
            if n > allowed:
                lines = (line for folder in mine for line in files.read_lines(folder / read.BAD))
                first = next(line for line in lines if (line["kind"] != "damaged") == whole)
                raise ValueError(
                    f"sources.{name} has {n} {what}, more than the recipe allows; the first: {first['said']} (all: "
                    f"{mine[0].parent}/01-read-*/{read.BAD}; or raise {key})"
                )
        if not counts["documents"]:
            raise ValueError(f"sources.{name} has no document that can be read: bring other text, or leave it out")


def gather(made: Prepared, work: Path, key: str, do: Stage) -> str:
    """Bring what was read into parts; the key of what follows from them."""
    of = read.number_of_parts(sum(counts["bytes"] for counts in read_counts(made.read).values()))
    key = task.key(key, of)
    runs, level = read.chunks(made.read), 0
    while len(left := runs) > read.FAN:
        runs, level = _merge(left, level, work, key, do), level + 1
        release.release(work, [path for run in left for path in run.files])
    made.parts = _over_parts("gather", 2, work, key, do, read.gather, read.stretches(runs, of))
    release.release(work, [path for run in runs for path in run.files])
    made.scored = [None] * of
    return key


def _merge(runs: Sequence[read.Run], level: int, work: Path, key: str, do: Stage) -> list[read.Run]:
    """Fewer and longer runs of the same documents."""
    folder = work / f"02-merge-{key}-{level}"
    merged, tasks = [], []
    for n, group in enumerate(read.groups(runs)):
        size = sum(run.bytes for run in group)
        given = read.stretches(group, read.number_of_parts(size))
        outs = tuple(folder / f"run-{n:05d}" / f"part-{number:05d}.parquet" for number in range(len(given)))
        tasks += [Task(out=out, work=read.merge, given=words) for out, words in zip(outs, given, strict=True)]
        merged.append(read.Run(files=outs, bytes=size))
    do("merge", tasks)
    return merged


def _filter(made: Prepared, recipe: Recipe, work: Path, key: str, do: Stage) -> str:
    if not recipe.filters:
        return key
    curated, web = ([name for name, s in recipe.sources.items() if s.role == role] for role in ("curated", "web"))
    documents = {name: counts["documents"] for name, counts in read_counts(made.read).items()}
    rates = {
        name: min(1.0, recipe.quality.train_documents / sum(documents[other] for other in side))
        for side in (curated, web)
        for name in side
    }
    key = task.key(key, rates, recipe.seed)
    given: list[dict[str, Any]] = [{"part": part, "rates": rates, "seed": recipe.seed} for part in made.parts]
    samples = _over_parts("sample", 3, work, key, do, filtering.sample, given)
    alpha = recipe.quality.alpha
    key = task.key(key, sorted(curated), alpha)
    made.classifier = work / f"04-train-{key}"
    given = [{"samples": samples, "curated": curated, "alpha": alpha, "seed": recipe.seed}]
    do("train", [Task(out=made.classifier, work=filtering.train, given=given[0])])
    rule = {"web": web, "alpha": alpha, "seed": recipe.seed}
    key = task.key(key, rule)
    given = [{"part": part, "classifier": made.classifier, **rule} for part in made.parts]
    made.scored = list(_over_parts("score", 5, work, key, do, filtering.score, given))
    return key


def _compare(made: Prepared, recipe: Recipe, work: Path, key: str, do: Stage) -> str:
    rule = recipe.dedup.rule
    if rule == "none":
        return key
    key = task.key(key, rule)
    pairs = list(zip(made.parts, made.scored, strict=True))
    given = [{"part": part, "scored": scored, "rule": rule} for part, scored in pairs]
    signatures = _over_parts("sign", 6, work, key, do, copying.sign, given, ending=".npy")
    # of copies the one stays whose source comes first; curated ones do before web
    order = sorted(recipe.sources, key=lambda name: recipe.sources[name].role == "web")
    how = {"rule": rule, "order": order, "across": recipe.dedup.across}
    key = task.key(key, how)
    made.copies = work / f"07-compare-{key}"
    whole = {"tables": made.parts, "scored": made.scored, "signatures": signatures, **how}
    do("compare", [Task(out=made.copies, work=copying.compare, given=whole)])
    release.release(work, signatures)
    return key


def _evaluated(recipe: Recipe, work: Path, do: Stage) -> Path | None:
    """The grams of the evaluation sets, if there are any."""
    if not (sets := evaluation_sets(recipe)):
        return None
    cut = recipe.decontaminate
    rules = decontaminate.Rules(
        gram=cut.gram, window=cut.window, shortest=cut.shortest, pieces=cut.most_pieces, common=cut.common
    )
    held = work / f"00-grams-{task.key(FORMAT, vars(rules), _hashes(sets))}.npz"
    do("grams", [Task(out=held, work=cleaning.grams, given={"sets": sets, "rules": rules})])
    return held


def _clean(made: Prepared, held: Path | None, work: Path, key: str, do: Stage) -> str:
    files_of = [None if made.copies is None else made.copies / copying.part_name(n) for n in range(len(made.parts))]
    each = [
        {"part": part, "scored": scored, "copies": copies}
        for part, scored, copies in zip(made.parts, made.scored, files_of, strict=True)
    ]
    if held is not None:
        key = task.key(key, held.name)
        given = [{**words, "held": held} for words in each]
        counted = _over_parts("count", 8, work, key, do, cleaning.count, given, ending=".npy")
        made.counts = work / f"09-total-{key}"
        do("total", [Task(out=made.counts, work=cleaning.total, given={"counted": counted, "held": held})])
        release.release(work, counted)
    given = [{**words, "held": held, "counts": made.counts} for words in each]
    made.cleaned = _over_parts("clean", 10, work, key, do, cleaning.clean, given, ending="")
    return key


def _shard(made: Prepared, recipe: Recipe, held: Path | None, work: Path, key: str, do: Stage) -> None:
    counts = [parts.counts(folder / cleaning.DOCUMENTS) for folder in made.cleaned]
    how = {"sources": list(recipe.sources), "fraction": recipe.validation_fraction}
    key = task.key(key, how)
    sides = work / f"11-sides-{key}.json"
    do("sides", [Task(out=sides, work=sharding.sides, given={"cleaned": made.cleaned, **how})])
    release.release(work, made.parts)  # not before: other rules, which that may ask for, begin with them
    if held is not None:
        again = [{"cleaned": cleaned, "held": held, "held_out": sides} for cleaned in made.cleaned]
        counted = _over_parts("recount", 12, work, key, do, sharding.count, again, ending=".npy")
        made.recounts = work / f"13-retotal-{key}"
        do("retotal", [Task(out=made.recounts, work=cleaning.total, given={"counted": counted, "held": held})])
        release.release(work, counted)
    key = task.key(key, recipe.tokenizer)
    each = [{"cleaned": cleaned, "held_out": sides, "tokenizer": recipe.tokenizer} for cleaned in made.cleaned]
    tokenized = _over_parts("tokenize", 14, work, key, do, sharding.tokenize, each, ending="")
    release.release(work, [folder / cleaning.DOCUMENTS for folder in made.cleaned])
    tasks = []
    for name in recipe.sources:
        of = [path for path, had in zip(tokenized, counts, strict=True) if name in had]
        made.shards[name] = work / f"15-shard-{task.key(key, name)}"
        given = {"source": name, "tokenized": of, "tokenizer": recipe.tokenizer}
        tasks.append(Task(out=made.shards[name], work=sharding.shard, given=given))
    do("shard", tasks)


def _over_parts(
    name: str,
    number: int,
    work: Path,
    key: str,
    do: Stage,
    function: Callable[..., None],
    given: Sequence[dict[str, Any]],
    *,
    ending: str = ".parquet",
) -> list[Path]:
    """Do a stage that has a task a part; returns what each leaves."""
    folder = work / f"{number:02d}-{name}-{key}"
    outs = [folder / f"part-{n:05d}{ending}" for n in range(len(given))]
    do(name, [Task(out=out, work=function, given=words) for out, words in zip(outs, given, strict=True)])
    return outs
