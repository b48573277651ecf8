"""From raw text to token shards: ``python -m gpt3core.data.prepare recipe=NAME_OR_FILE out=DIR``.

recipe=NAME          a recipe that comes with isoflop, or the path of a .yaml file
out=DIR              the folder to fill; the same command given again goes on where it was stopped or killed
workers=N            processes (default: one a core); the result is the same for any number
key=value            over the recipe: quality.rule=none, dedup.rule=gpt3, sources.NAME.path=FILES, ...
--plan               what would be read and done, how long about; nothing is read or written
--keys               every key of the recipe with its value;  --help  this text

Sources are files, folders or patterns (.jsonl, .txt, .warc, .warc.wet, each also as .gz, .zst, .xz; .parquet), packages
or data sets by name. Then, as in GPT-3's appendices A and C: what is no document is set aside and counted, raw web is
filtered by a classifier, near-copies are dropped, text of evaluation sets is cut out, the rest is tokenized. Train on
it by data.corpus=DIR. DIR/decisions says of every document whether it was kept, and by which rule not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from gpt3core import cli
from gpt3core.data.prepare import recipe
from gpt3core.data.prepare.task import Spread, explained, in_processes
from gpt3core.errors import StoreError, UsageError
from gpt3core.store import files

FLAGS = ("--plan", "--keys", "--help")
OWN = ("out", "workers")


def main(argv: Sequence[str], *, spread: Callable[[int | None], Spread] = in_processes) -> int:
    """The command.

    Args:
        spread: who does the tasks, given the number of workers; None for as many as there are cores.
    """
    words, flags = cli.split(argv, FLAGS)
    if "--help" in flags:
        print(__doc__)
        print(f"recipes: {', '.join(recipe.available())}")
        return 0
    words, own = cli.verbatim(words, OWN)
    asked = recipe.load(words, own=OWN)
    if "--keys" in flags:
        print(recipe.to_yaml(asked), end="")
        return 0
    if not own.get("out"):
        raise UsageError("out=DIR is needed: the folder to fill")
    out, workers = Path(own["out"]).expanduser().absolute(), _workers(own.get("workers"))

    from gpt3core.data.prepare import folder, pipeline, show, units

    manifest, notes = folder.whole(out, asked)
    if manifest is None:
        found, sets = units.units(asked), pipeline.evaluation_sets(asked)
        if "--plan" in flags:
            show.plan(asked, found, sets, out, workers or len(os.sched_getaffinity(0)))
            return 0
        with files.locked(out / folder.LOCK, setting=files.OUT) as alone:
            if not alone:
                raise StoreError(f"another command is filling {out} now: wait for it, or give another folder")
            manifest, notes = folder.whole(out, asked)  # another command may have been at it until now
            if manifest is None:
                display = show.Display(spread(workers))
                made = pipeline.stages(asked, found, out / pipeline.WORK, display.stage)
                with explained(out):
                    manifest = folder.finish(out, asked, made)
    show.report(manifest, out, notes=notes)
    return 0


def _workers(given: str | None) -> int | None:
    if given is None:
        return None
    if not (given.isascii() and given.isdecimal() and len(given) < 5) or not 1 <= int(given) <= 4096:
        raise UsageError(f"workers={given:.50}: a number of processes from 1 to 4096")
    return int(given)


if __name__ == "__main__":
    cli.run(main)
