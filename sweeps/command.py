"""The command behind the entry points: read the recipe, then plan it or drive it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from gpt3core import cli, costs, sizes
from gpt3core.data import corpus
from gpt3core.errors import UsageError
from gpt3core.spec import RunSpec
from gpt3core.store import rundir
from gpt3core.store.sweepdir import SweepDir
from sweeps.planning import estimate as planning
from sweeps.planning import grid, recipe
from sweeps.planning.recipe import Recipe

FLAGS = ("--plan", "--keys", "--help")
DONE, FAILED, DAMAGED, INTERRUPTED = 0, 1, 3, 130


def sweep(argv: Sequence[str], usage: str) -> int:
    """Run a sweep command; returns the exit code: 0 done, 1 runs failed, 2 cannot be run, 3 done but a checkpoint was
    damaged.
    """
    settings, flags = cli.split(argv, FLAGS)
    if "--help" in flags:
        print(usage)
        print(f"recipes: {', '.join(recipe.available())}, or the path of a .yaml file; store: {rundir.default_root()}")
        return DONE
    chosen = recipe.load(settings)
    if "--keys" in flags:
        print(recipe.to_yaml(chosen), end="")
        return DONE
    runs = grid.build(chosen, corpus.fingerprint(chosen.data.corpus))
    if "--plan" in flags:
        show_plan(chosen, runs)
        return DONE
    return _drive(chosen, runs)


def _drive(chosen: Recipe, cells: grid.Grid) -> int:
    from sweeps.cluster.launcher import Launcher
    from sweeps.driving import driver, progress, taking

    _refuse_unbuilt(chosen, cells.runs)
    root = rundir.default_root()
    sweep = SweepDir(root, chosen.name)
    with sweep.owned():
        taken = taking.take(chosen, cells, sweep)
        print(f"sweep {chosen.name}: {len(taken.runs)} runs, store {root}", flush=True)
        launcher = Launcher(driver.namespace(root, chosen.name))
        if launcher.local:
            print("no cluster was named by RAY_ADDRESS: started a local Ray for this sweep", flush=True)
        try:
            display = progress.display()
            try:
                outcome = driver.Driver(chosen, taken, launcher, display).drive()
            finally:
                display.close()
        finally:
            launcher.close()
    return _conclude(chosen, taken.runs, outcome, root)


def _conclude(chosen: Recipe, runs: Sequence[RunSpec], outcome: driver.Outcome, root: Path) -> int:  # type: ignore[name-defined]  # noqa: F821
    without = f", {len(outcome.not_taken)} not needed" if outcome.not_taken else ""
    held = f", {len(outcome.held)} held" if outcome.held else ""
    print(f"{len(outcome.done)} of {len(runs)} runs done, {len(outcome.failed)} failed{held}{without}; store {root}")
    if outcome.interrupted:
        print("interrupted: start the same command again to go on where it stopped")
        return INTERRUPTED
    for run_id, reason in {**outcome.failed, **outcome.held}.items():
        print(f"  {run_id}: {reason}")
    if outcome.failed or outcome.held:
        return FAILED
    print(f"next: python -m analysis.fit runs={root} sweep={chosen.name}")
    if outcome.damage:
        for sentence in outcome.damage:
            print(f"  {sentence}")
        return DAMAGED
    return DONE


def _refuse_unbuilt(chosen: Recipe, runs: list[RunSpec]) -> None:
    """Tensor and pipeline parallelism are planned, not built: say so before anything starts."""
    if chosen.family != "gpt3":
        return
    for run in runs:
        layout = planning.on_gpus(run, chosen.plan).layout
        if layout is None or layout.tensor * layout.pipeline > 1:
            degrees = f"tensor {layout.tensor} x pipeline {layout.pipeline}" if layout else "more memory than a GPU has"
            raise UsageError(
                f"{run.label} needs {degrees} on {chosen.plan.gpu}, and this version trains data-parallel only: "
                "use --plan, or give smaller sizes (sizes=[125M,350M])"
            )


# --------------------------------------------------------------------------------------------------------------- plan


def show_plan(chosen: Recipe, cells: grid.Grid) -> None:
    """Print what would run and what it would cost."""
    console = Console(width=None if Console().is_terminal else 160, highlight=False)
    if chosen.family == "gpt3":
        _gpu_plan(console, chosen, cells.runs)
    else:
        _cpu_plan(console, chosen, cells)


def _cpu_plan(console: Console, chosen: Recipe, cells: grid.Grid) -> None:
    root = rundir.default_root()
    table = Table(title=f"{chosen.name}: {len(cells.runs)} runs", title_justify="left")
    for name in (
        "run",
        "budget",
        "N non-emb.",
        "N total",
        "D tokens",
        "steps",
        "batch",
        "lr",
        "C exact",
        "C 6ND",
        "core-min",
        "state",
    ):
        table.add_column(name, justify="left" if name in ("run", "state") else "right")
    workers = chosen.placement.workers
    total = 0.0
    for run in cells.runs:
        counts, flops = costs.params(run.model), costs.train_flops(run.model, run.tokens)
        seconds = planning.seconds(run, workers=workers, gpus=chosen.placement.gpus, plan=chosen.plan)
        done = rundir.RunDir(root, run.run_id).trained
        total += 0.0 if done else seconds * workers
        table.add_row(
            run.run_id,
            f"{run.budget_flops:.3g}",
            f"{counts.nonembedding:,}",
            f"{counts.total:,}",
            f"{run.tokens / 1e6:.2f}M",
            f"{run.steps:,}",
            str(run.optim.batch_tokens),
            f"{run.optim.lr:.4f}",
            f"{flops:.3g}",
            f"{costs.six_nd(counts.nonembedding, run.tokens):.3g}",
            f"{seconds * workers / 60:.1f}",
            "done" if done else "to train",
        )
    console.print(table)
    if cells.left:
        console.print(
            "left out: " + "; ".join(f"{c.size} at {c.budget:.3g} ({c.reason})" for c in cells.left), style="dim"
        )
    console.print(
        f"to train: {total / 60:.0f} core-minutes by a first guess of speed (the sweep corrects it as runs "
        f"finish); store {root}"
    )


def _gpu_plan(console: Console, chosen: Recipe, runs: list[RunSpec]) -> None:
    device = planning.gpu(chosen.plan)
    title = (
        f"{chosen.name} on {chosen.plan.gpu}: {device.peak_flops / 1e12:.0f} TFLOP/s and "
        f"{device.memory_bytes / 1e9:.0f} GB a GPU; "
        f"assumed MFU from {device.source}"
    )
    table = Table(title=title, title_justify="left")
    columns = (
        "size",
        "tokens",
        "parameters",
        "of D.1",
        "6ND of D.1",
        "C exact",
        "PF-days",
        "GPUs",
        "data",
        "tensor",
        "pipe",
        "recompute",
    )
    for name in (*columns, "GB/GPU", "days", "USD", "MFU"):
        table.add_column(name, justify="left" if name == "size" else "right")
    for run in sorted(runs, key=lambda r: (-round(r.tokens, -9), costs.params(r.model).total)):
        row = sizes.GPT3[run.label]
        counts, flops = costs.params(run.model), costs.train_flops(run.model, run.tokens)
        planned = planning.on_gpus(run, chosen.plan)
        cells = [
            run.label,
            f"{run.tokens / 1e9:.0f}B",
            f"{counts.total:,}",
            f"{row.params_printed / 1e6:,.0f}M",
            f"{costs.six_nd(row.params_printed, round(run.tokens, -9)):.3g}",
            f"{flops:.3g}",
            f"{flops / costs.PF_DAY:,.1f}",
        ]
        layout = planned.layout
        if layout is None:
            cells += ["-"] * 8 + [planned.reason]
        else:
            cells += [f"{layout.gpus:,}", str(layout.data), str(layout.tensor), str(layout.pipeline), layout.recompute]
            late = (
                "" if planned.days <= chosen.plan.max_days or math.isinf(chosen.plan.max_days) else " (over max_days)"
            )
            cells += [
                f"{layout.memory_bytes / 1e9:.0f}",
                f"{planned.days:.1f}{late}",
                f"{planned.usd:,.0f}",
                f"{planned.mfu:.0%}",
            ]
        table.add_row(*cells)
    console.print(table)
    console.print(
        "parameters: exact, head tied; 6ND of D.1: with Table D.1's parameter counts and tokens in whole billions; "
        "C exact: matrix "
        "products incl. head and the pairs that causal and banded masks leave, x3. 1.3B and 13B are built as D.1 "
        "counts them (16 heads; "
        "d_model 5120). Days at the assumed MFU with no failures."
    )
    if chosen.plan.usd_per_gpu_hour is None:
        console.print(
            f"USD at {device.usd_per_hour:.2f} a GPU-hour, a round figure: set plan.usd_per_gpu_hour to yours."
        )
