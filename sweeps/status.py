"""How the sweeps of a store stand, by the store alone: ``python -m sweeps.status``; needs no cluster.

name=SWEEP           one sweep; by default the only one there is, or a table of all
runs=ROOT            the store (default: ISOFLOP_ROOT, or ~/.isoflop/runs)
--watch              follow as a page until the sweep has ended (Ctrl-C leaves)
--json               all of it for a script: one object, or with several sweeps a list of them
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import RenderableType

from gpt3core import cli, hints, terminal
from gpt3core.errors import StoreError, UsageError
from gpt3core.store import places, rundir, sweepdir
from sweeps.watching import page, standing, words
from sweeps.watching.standing import Standing

FLAGS = ("--watch", "--json", "--help")
KEYS = ("name", "runs")
OVER = ("ended", "interrupted", "failed")


def main(argv: Sequence[str]) -> int:
    """The command."""
    given = words.parse(argv, keys=KEYS, flags=FLAGS, command="python -m sweeps.status")
    if "--help" in given.flags:
        print(__doc__)
        return 0
    if {"--watch", "--json"} <= given.flags:
        raise UsageError("--watch and --json: one follows, the other answers once; give one")
    root = words.root(given.settings.get("runs"))
    names = _names(root, given.settings.get("name"))
    if "--json" in given.flags:
        print(json.dumps(_plain(root, names, one="name" in given.settings), indent=1))
        return 0
    console = terminal.console()
    if "--watch" in given.flags:
        from sweeps.watching import follow

        follow.follow(console, lambda width, lines: _page(root, names, width, lines))
        return 0
    console.print(_page(root, names, console.width, None)[0])
    return 0


def _names(root: Path, name: str | None) -> list[str]:
    """The sweeps that are meant, the one last driven first."""
    rundir.open_root(root, create=False)
    there = sweepdir.names(root)
    if name is not None:
        if name not in there:
            known = f"its sweeps are {', '.join(there[:6])}" if there else "it has none"
            raise UsageError(f"name={name:.80}: no sweep of {root}{hints.nearest(name, there) or '; ' + known}")
        return [name]
    if not there:
        raise StoreError(f"{root} has no sweeps yet: start one (python sweeps/sizes.py), or name another store (runs=)")
    return there


def _page(root: Path, names: Sequence[str], width: int, lines: int | None) -> tuple[RenderableType, bool]:
    """What to show now, and whether nothing more is to come."""
    with contextlib.suppress(StoreError):  # a store elsewhere that does not answer now: what was seen last
        places.refresh(root)
    now = time.time()
    found = [standing.look(root, name, now) for name in names]
    over = all(sweep.driver in OVER for sweep in found)
    if len(found) == 1:
        return page.page(found[0], width=width, lines=lines), over
    return page.overview(found[: lines or len(found)], width=width), over


def _plain(root: Path, names: Sequence[str], *, one: bool) -> dict[str, object] | list[dict[str, object]]:
    found = [_as_json(standing.look(root, name)) for name in names]
    return found[0] if one or len(found) == 1 else found


def _as_json(sweep: Standing) -> dict[str, object]:
    return asdict(sweep)


if __name__ == "__main__":
    cli.run(main)
