"""Why two runs are not the same run: ``python -m sweeps.diff A B``; exit code 0 for one run, 1 for two, 2 for neither.

A B                  ids, beginnings of ids, labels of sizes (d64), or folders of runs
runs=ROOT            the store (default: ISOFLOP_ROOT, or ~/.isoflop/runs)
--json               for a script
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from gpt3core import cli
from gpt3core.errors import UsageError
from sweeps.watching import differences, words
from sweeps.watching.differences import Compared, Difference

SAME, DIFFERENT = 0, 1
COMMAND = "python -m sweeps.diff"


def main(argv: Sequence[str]) -> int:
    """The command."""
    given = words.parse(argv, keys=("runs",), flags=("--json", "--help"), named=2, command=COMMAND)
    if "--help" in given.flags:
        print(__doc__)
        return SAME
    if len(given.named) != 2:
        raise UsageError(f"{len(given.named)} of two runs are named: {COMMAND} A B, each an id, a label or a folder")
    root = words.root(given.settings.get("runs"))
    a, b = (differences.find(root, word) for word in given.named)
    found = differences.compare(a, b)
    if "--json" in given.flags:
        print(json.dumps(_plain(found), indent=1, default=str))
    else:
        _print(found)
    return SAME if found.same else DIFFERENT


def _plain(found: Compared) -> dict[str, Any]:
    return {
        "same": found.same,
        "a": {"run_id": found.a.run_id, "folder": str(found.a.path)},
        "b": {"run_id": found.b.run_id, "folder": str(found.b.path)},
        "hashed": [asdict(difference) for difference in found.hashed],
        "beside": [asdict(difference) for difference in found.beside],
    }


def _print(found: Compared) -> None:
    a, b = found.a, found.b
    print(f"A  {a.run_id}  {a.path}")
    print(f"B  {b.run_id}  {b.path}")
    if found.same:
        where = "" if a.path.resolve() == b.path.resolve() else ", in two stores"
        print(f"the same run{where}: whatever can change the weights is the same")
    else:
        n = len(found.hashed)
        print(f"two runs: {n} thing{'s' * (n != 1)} that can change the weights differ{'s' * (n == 1)}")
        _lines(found.hashed)
    if found.beside:
        print("beside that, without a say in what run it is:")
        _lines(found.beside)


def _lines(differences: Sequence[Difference]) -> None:
    for d in differences:
        name = f"{d.words} ({d.field})" if d.words and d.words != d.field else d.field
        print(f"  {name}: {words.value(d.a)} in A, {words.value(d.b)} in B")


if __name__ == "__main__":
    cli.run(main)
