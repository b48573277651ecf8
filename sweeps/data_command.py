"""The command behind sweeps/data.py: prepare a text in several ways, and drive the same ladder on each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt3core import cli, hints
from gpt3core.data import writing
from gpt3core.data.cache import cache_folder
from gpt3core.data.prepare import __main__ as prepare
from gpt3core.data.prepare import pipeline, task, units
from gpt3core.data.prepare import recipe as texts
from gpt3core.data.prepare.schema import Recipe as Text
from gpt3core.errors import UsageError
from gpt3core.store import files, places, rundir
from sweeps import command
from sweeps.planning import recipe as recipes

LEFT_OUT = {"quality": "quality.rule=none", "dedup": "dedup.rule=none", "decontaminate": "decontaminate.against=[]"}
BELIEVED = {
    "quality": "by the losses of sources that are not filtered: of the others it changes what is held out",
    "dedup": "copies on either side of the split lower the losses without it: ask tasks, or other text, as well",
    "decontaminate": "the held-out text is cut too: ask the evaluation sets' tasks as well",
}
OWN = ("data", "without", "workers")
FLAGS = ("--plan", "--help")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One way to prepare the text, and the sweep on it."""

    sweep: str
    left_out: str  # "all" where nothing is
    prepared: tuple[str, ...]  # words of gpt3core.data.prepare
    folder: Path


def run(argv: Sequence[str], usage: str) -> int:
    """The command; the exit code is that of the first sweep that is not done, 0 where all are.

    A sweep that is done but for a damaged checkpoint, or stopped at its limit, does not keep the next from running.

    Raises:
        UsageError, StoreError: for what cannot be prepared or run (2), in one sentence.
    """
    words, flags = cli.split(argv, FLAGS)
    if "--help" in flags:
        print(usage)
        return command.DONE
    settings, own = cli.verbatim(words, OWN)
    found = choices(settings, own)
    said = command.DONE
    workers = [f"workers={own['workers']}"] if "workers" in own else []
    for choice in found:
        print(f"{choice.sweep}: {' '.join(choice.prepared)} -> {choice.folder}", flush=True)
        plan = ["--plan"] if "--plan" in flags else []
        prepare.main([*choice.prepared, *workers, f"out={choice.folder}", *plan])
        ladder = [word for word in settings if not word.startswith("name=")]  # it is the beginning of the sweeps' names
        here = [*ladder, f"name={choice.sweep}", f"data.corpus={choice.folder}"]
        if plan and not (choice.folder / writing.MANIFEST).exists():
            print("its runs can be planned when it is prepared", flush=True)
            continue
        code = command.sweep([*here, *plan], usage="")
        if code not in (command.DONE, command.DAMAGED, command.LIMITED):
            return code
        said = said or code
    _compare(found)
    return said


def choices(settings: Sequence[str], own: dict[str, str]) -> list[Choice]:
    """The text as its recipe says, then each choice left out.

    Args:
        settings: of the ladder.
        own: data, without.

    Raises:
        UsageError: for what is missing, unknown, or changes nothing.
    """
    if "data" not in own:
        raise UsageError(f"data=RECIPE is needed: {', '.join(texts.available())}, or the path of a .yaml file")
    left_out = [word.strip() for word in own.get("without", "").strip("[] ").split(",") if word.strip()]
    for word in left_out:
        if word not in LEFT_OUT:
            raise UsageError(
                f"without={word:.80}{hints.nearest(word, list(LEFT_OUT))}: allowed are {', '.join(LEFT_OUT)}"
            )
    if not left_out or len(set(left_out)) < len(left_out):
        raise UsageError(f"without={own.get('without', '')}: name what is left out, each once: {', '.join(LEFT_OUT)}")
    if taken := [word for word in settings if word.startswith("data.corpus=")]:
        raise UsageError(f"{taken[0]:.100}: here data={own['data']:.80} says which text it is; leave data.corpus out")
    ladder = recipes.load(settings, own=OWN)
    whole = texts.load([f"recipe={own['data']}"])
    off = {
        "quality": not whole.filters,
        "dedup": whole.dedup.rule == "none",
        "decontaminate": not whole.decontaminate.against,
    }
    if idle := [word for word in left_out if off[word]]:
        raise UsageError(f"without=[{idle[0]}] changes nothing: the recipe {own['data']:.80} does not have it")
    for key in ("tokenizer", "validation_fraction"):
        if (ours := getattr(ladder.data, key)) != (theirs := getattr(whole, key)):
            raise UsageError(
                f"data.{key}={ours}: data={own['data']:.80} is prepared with {theirs}; give data.{key}={theirs}"
            )
    found = []
    for label, words in [("all", ()), *((f"no-{word}", (LEFT_OUT[word],)) for word in left_out)]:
        prepared = (f"recipe={own['data']}", *words)
        folder = cache_folder() / "prepared" / _key(texts.load(prepared))
        found.append(
            Choice(sweep=f"{ladder.name}-{label}", left_out=label.removeprefix("no-"), prepared=prepared, folder=folder)
        )
    return found


def _key(recipe: Text) -> str:
    """Names what a recipe makes of the text that lies there now."""
    rules = {name: value for name, value in texts.as_dict(recipe).items() if name not in ("name", "sources")}
    weights = {name: source.weight for name, source in recipe.sources.items()}
    roles = {name: source.role for name, source in recipe.sources.items()}
    read = sorted(unit.key for unit in units.units(recipe))
    sets = [[path.name, files.sha256_file(path)] for path in pipeline.evaluation_sets(recipe)]
    return task.key(pipeline.FORMAT, writing.FORMAT, rules, weights, roles, read, sets)


def _compare(found: Sequence[Choice]) -> None:
    """What says how much compute each choice is worth, and how far that may be believed."""
    root = places.portable(rundir.default_root())
    base, *others = found
    print("what each choice is worth in compute:")
    for other in others:
        print(f"  python -m analysis.compare runs={root} sweep=[{other.sweep},{base.sweep}]")
        print(f"    {BELIEVED[other.left_out]}")
        ours, theirs = _held_out(base.folder), _held_out(other.folder)
        if alike := [source for source, text in ours.items() if text == theirs.get(source)]:
            print(f"    both hold out the same of {', '.join(alike)}: there the losses are of one text")
        elif ours and theirs:
            print("    they hold out the same of no source")


def _held_out(folder: Path) -> dict[str, list[str]]:
    """The sha256 of what is held out of each source; nothing before it is prepared."""
    manifest = files.find_object(folder / writing.MANIFEST) or {"sources": {}}
    return {
        name: [source["files"][path]["sha256"] for path in source["shards"]["validation"]]
        for name, source in manifest["sources"].items()
    }
