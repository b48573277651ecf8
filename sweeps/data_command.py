"""The command behind sweeps/data.py: prepare a text in several ways, and drive the same ladder on each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt3core import cli
from gpt3core.data.cache import cache_folder
from gpt3core.data.prepare import __main__ as prepare
from gpt3core.data.prepare import recipe as texts
from gpt3core.errors import UsageError
from gpt3core.spec import canonical_json
from gpt3core.store import places, rundir
from sweeps import command
from sweeps.planning import recipe as recipes

LEFT_OUT = {"quality": "quality.rule=none", "dedup": "dedup.rule=none", "decontaminate": "decontaminate.against=[]"}
OWN = ("data", "without", "workers")
FLAGS = ("--plan", "--help")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One way to prepare the text, and the sweep on it."""

    sweep: str
    prepared: tuple[str, ...]  # words of gpt3core.data.prepare
    folder: Path


def run(argv: Sequence[str], usage: str) -> int:
    """The command; the exit code is that of the first sweep that is not done.

    Raises:
        UsageError, StoreError: for what cannot be prepared or run (2), in one sentence.
    """
    words, flags = cli.split(argv, FLAGS)
    if "--help" in flags:
        print(usage)
        return command.DONE
    settings, own = cli.verbatim(words, OWN)
    found, sources = choices(settings, own)
    workers = [f"workers={own['workers']}"] if "workers" in own else []
    for choice in found:
        print(f"{choice.sweep}: {' '.join(choice.prepared)} -> {choice.folder}", flush=True)
        plan = ["--plan"] if "--plan" in flags else []
        prepare.main([*choice.prepared, *workers, f"out={choice.folder}", *plan])
        ladder = [word for word in settings if not word.startswith("name=")]  # it is the beginning of the sweeps' names
        here = [*ladder, f"name={choice.sweep}", f"data.corpus={choice.folder}"]
        if plan and not (choice.folder / "manifest.json").exists():
            print("its runs can be planned when it is prepared", flush=True)
        elif (code := command.sweep([*here, *plan], usage="")) not in (command.DONE, command.DAMAGED, command.LIMITED):
            return code
    _compare(found, sources)
    return command.DONE


def choices(settings: Sequence[str], own: dict[str, str]) -> tuple[list[Choice], list[str]]:
    """The text as its recipe says, then each choice left out; and the sources whose held-out text none of it changes.

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
                f"without={word:.80}{cli.nearest(word, list(LEFT_OUT))}: allowed are {', '.join(LEFT_OUT)}"
            )
    if not left_out or len(set(left_out)) < len(left_out):
        raise UsageError(f"without={own.get('without', '')}: name what is left out, each once: {', '.join(LEFT_OUT)}")
    if taken := [word for word in settings if word.startswith("data.corpus=")]:
        raise UsageError(f"{taken[0]:.100}: here data={own['data']:.80} says which text it is; leave data.corpus out")
    name = recipes.load(settings).name
    whole = texts.load([f"recipe={own['data']}"])
    off = {
        "quality": not whole.filters,
        "dedup": whole.dedup.rule == "none",
        "decontaminate": not whole.decontaminate.against,
    }
    if idle := [word for word in left_out if off[word]]:
        raise UsageError(f"without=[{idle[0]}] changes nothing: the recipe {own['data']:.80} does not have it")
    found = []
    for label, words in [("all", ()), *((f"no-{word}", (LEFT_OUT[word],)) for word in left_out)]:
        prepared = (f"recipe={own['data']}", *words)
        recipe = texts.as_dict(texts.load(prepared))
        key = hashlib.sha256(canonical_json(recipe).encode()).hexdigest()[:16]
        folder = cache_folder() / "prepared" / key
        found.append(Choice(sweep=f"{name}-{label}", prepared=prepared, folder=folder))
    return found, [source for source, of in whole.sources.items() if of.role != "web"]


def _compare(found: Sequence[Choice], sources: Sequence[str]) -> None:
    """What says how much compute each choice is worth."""
    root = places.portable(rundir.default_root())
    base, *others = found
    print("what each choice is worth in compute:")
    for other in others:
        print(f"  python -m analysis.compare runs={root} sweep=[{other.sweep},{base.sweep}]")
    if sources:
        print(f"compare the losses of sources that are not filtered: {', '.join(sources)}")
