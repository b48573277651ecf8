"""The command that trains one run of a sweep again, from nothing: only what is known to give the same run."""

from __future__ import annotations

import shlex
from dataclasses import fields
from functools import lru_cache
from pathlib import Path

from gpt3core.errors import StoreError
from gpt3core.spec import TRAINER_VERSION, RunSpec
from gpt3core.store.rundir import RunDir
from gpt3core.store.sweepdir import SweepDir
from sweeps.planning import grid, recipe
from sweeps.planning.recipe import Gpt3Recipe, NanoRecipe, Recipe, Shape, ShapesRecipe

STORE = "ANOTHER_STORE"  # in this one the run is there already


def command(root: Path, run_id: str, sweep: str) -> tuple[str, str]:
    """The command, and a remark on it; without the first the remark says why there is none.

    Args:
        sweep: that asked for the run.
    """
    try:
        spec = RunDir(root, run_id).spec()
    except StoreError as error:
        return "", str(error)
    if spec.trainer_version != TRAINER_VERSION:
        return "", (
            f"it was trained by trainer version {spec.trainer_version}, this is version {TRAINER_VERSION}, which would "
            "train it to other weights"
        )
    path = SweepDir(root, sweep).recipe
    if not sweep or not path.is_file():
        return "", "no sweep of this store has the recipe that it came from"
    settings = _settings(path, path.stat().st_mtime_ns, spec)
    if settings is None:
        return "", f"the recipe of the sweep, {path}, does not name this run by itself: it was added or moved since"
    words = ["python", "sweeps/sizes.py", f"recipe={path}", *settings]
    remark = "trains this run alone" if settings else "trains all runs of its sweep, this one among them"
    return f"ISOFLOP_ROOT={STORE} {shlex.join(words)}", remark


@lru_cache(maxsize=64)  # a page asks every few seconds
def _settings(path: Path, written: int, spec: RunSpec) -> tuple[str, ...] | None:
    """What beside the recipe asks for this run: as little else as can be; None where nothing does.

    Args:
        written: when the recipe was.
    """
    try:
        whole = recipe.load([f"recipe={path}"])
    except (ValueError, TypeError, OSError):
        return None
    return next((settings for settings in (_narrowed(whole, spec), ()) if _gives(path, settings, spec)), None)


def _narrowed(whole: Recipe, spec: RunSpec) -> tuple[str, ...]:
    """Settings that should leave this run alone of its recipe; none for runs that place themselves."""
    seed = [f"seed={spec.seed}", "replicas=1"]
    if isinstance(whole, Gpt3Recipe):
        return f"sizes=[{spec.label}]", _length(whole, spec), *seed
    if isinstance(whole, NanoRecipe):
        width, budget = f"[{getattr(spec.model, 'd_model', 0)}]", spec.budget_flops
        chosen = f"widths_at={{{budget!r}: {width}}}" if budget in whole.widths_at else f"widths={width}"
        return chosen, f"budgets=[{budget!r}]", *seed
    if isinstance(whole, ShapesRecipe):
        shape = ", ".join(f"{f.name}: {getattr(spec.model, f.name, 0)}" for f in fields(Shape))
        if spec.budget_flops is None:
            return f"shapes=[{{{shape}}}]", _length(whole, spec), "budgets=[]", *seed
        return f"shapes=[{{{shape}}}]", f"budgets=[{spec.budget_flops!r}]", "tokens=[]", *seed
    return ()


def _length(whole: Gpt3Recipe | ShapesRecipe, spec: RunSpec) -> str:
    """The number of tokens that was asked for: a run has whole batches of it."""
    return f"tokens=[{min(whole.tokens, key=lambda tokens: abs(tokens - spec.tokens), default=spec.tokens)!r}]"


def _gives(path: Path, settings: tuple[str, ...], spec: RunSpec) -> bool:
    """Whether a command asks for this run, and, where it has settings, for no other."""
    try:
        chosen = recipe.load([f"recipe={path}", *settings])
        runs = grid.build(chosen, spec.data.corpus_sha256).runs
    except (ValueError, TypeError, StoreError, OSError):
        return False
    ids = [run.run_id for run in runs]
    return spec.run_id in ids and (not settings or len(ids) == 1)
