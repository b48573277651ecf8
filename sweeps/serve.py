"""Drives a sweep whose runs are asked for one by one while it runs: what stands behind a search with Ray Tune.

python -m sweeps.serve recipe=mine name=tuned      started by sweeps.cluster.tune; by hand it does the same

It takes the runs that were asked for (ROOT/sweeps/NAME/asked) and those of the sweep that are not finished, on the
cluster of RAY_ADDRESS or a local Ray, and ends a minute after there was work last. The recipe says how they are placed
and evaluated; which runs there are, it does not say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gpt3core import cli
from gpt3core.errors import StoreError
from gpt3core.evals.spec import EvalSpec
from gpt3core.store import places, rundir
from gpt3core.store.proposals import Proposals
from gpt3core.store.sweepdir import SweepDir
from sweeps.planning import grid, recipe
from sweeps.planning.grid import Grid

PATIENCE_SECONDS = 60.0


def main(argv: Sequence[str]) -> int:
    """The command: 0 when all runs are done, 1 when some failed or are held, 130 when interrupted."""
    settings, flags = cli.split(argv, ("--help",))
    if "--help" in flags:
        print(__doc__)
        return 0
    from sweeps.cluster.launcher import Launcher
    from sweeps.driving import driver, progress, taking

    chosen = replace(recipe.load(settings), extend=True, replace=False)
    sweep = SweepDir(places.folder(rundir.default_root(), "a sweep whose runs are asked for"), chosen.name)
    with sweep.owned():
        taken = taking.take(chosen, _wanted(sweep, grid.evaluation(chosen)), sweep)
        print(
            f"sweep {chosen.name}: {len(taken.runs)} asked so far, store {sweep.root}",
            flush=True,
        )
        launcher = Launcher(driver.namespace(sweep.root, chosen.name))
        display = progress.display()
        try:
            made = driver.Driver(chosen, taken, launcher, display, patience_seconds=PATIENCE_SECONDS)
            outcome = made.drive()
        finally:
            display.close()
            launcher.close()
    done = len(outcome.done)
    print(
        f"{done} run{'s' * (done != 1)} done, {len(outcome.failed)} failed, {len(outcome.held)} held",
        flush=True,
    )
    return 130 if outcome.interrupted else 1 if outcome.failed or outcome.held else 0


def _wanted(sweep: SweepDir, evals: EvalSpec) -> Grid:
    """The runs that are asked for now, whose specifications can be read; the driver answers for the others."""
    runs = []
    for run_id, eval_id in Proposals(sweep).asked().items():
        try:
            if eval_id == evals.eval_id:
                runs.append(rundir.RunDir(sweep.root, run_id).spec())
        except StoreError:
            continue
    return Grid(runs=runs, left=[], evals=evals)


if __name__ == "__main__":
    cli.run(main)
