"""Settings that change nothing here: a bound that does not bind, a share that rounds to what it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gpt3core.errors import UsageError
from sweeps.planning import grid, recipe
from sweeps.planning.grid import Grid
from sweeps.planning.recipe import Recipe

MOST_RUNS = 2000  # larger grids are not built once more for every setting
# keys of which runs and evaluations do not tell the effect
ELSEWHERE = (
    "recipe",
    "name",
    "adaptive",
    "prune",
    "placement",
    "plan",
    "limit",
    "replace",
    "extend",
    "data.max_epochs",
)
# nor the first runs of profiles
LATER = ("beside", "most_points", "ahead")


def idle(
    settings: Sequence[str], chosen: Recipe, cells: Grid, load: Callable[[Sequence[str]], Recipe] = recipe.load
) -> list[str]:
    """The ``key=value`` words of a command without which it would ask for the same runs and evaluations.

    A word that says what the recipe says already is none of them.

    Args:
        load: the recipe of such words.
    """
    if len(cells.runs) > MOST_RUNS:
        return []
    sha256 = cells.runs[0].data.corpus_sha256
    found = []
    for word in settings:
        key = word.partition("=")[0]
        if key.startswith(ELSEWHERE) or key in LATER:
            continue
        try:
            without = load([kept for kept in settings if kept != word])
            other = grid.build(without, sha256)
            if without != chosen and (other.runs, other.evals) == (cells.runs, cells.evals):
                found.append(word)
        except (UsageError, ValueError):  # the others need it
            continue
    return found
