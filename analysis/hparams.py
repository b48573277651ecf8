"""The best learning rate and batch as a law of N and D: ``python -m analysis.hparams runs=PATH``.

runs=PATH            runs that differ in learning rate and batch: a store (a sweep of sweeps/hparams.py, or any), or a
                     CSV, Parquet or JSON-lines file with columns N, D, lr, batch_tokens and loss
columns.lr=eta       a file's own names and units: columns.batch_tokens=batch*2048
sweep=NAME, N=, exclude=, rules=, min_tokens=, min_compute=, max_compute=, precision=   as for analysis.fit
batch_on=D           batch*(D), as Li et al. 2025 have it; or ND: batch*(N, D)
target_n=[1e9] target_d=[2e10]   what the law says for these parameters and tokens, each with each
name=NAME            of the rule (default: the sweep's or the file's)
out=FILE.yaml        where the rule goes (default: ROOT/sweeps/NAME/rule.yaml, or ./NAME-rule.yaml for a file)
figures=true         basins and laws as offline HTML, in the folder of the rule's name beside it (NAME-figures)
bootstrap=200 seed=0

Writes the rule, which a recipe names: optim.rule=FILE.yaml. It says what it was fitted on, and a plan warns where a run
lies outside of that.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.settings import HparamSettings
from gpt3core import cli

if TYPE_CHECKING:
    from analysis.tuning.study import Tuning

PIPE_WIDTH = 150  # of what is printed where the output is no terminal
COLUMNS = (
    *("N", "D", "runs", "best run's loss", "its lr", "its batch", "law's lr", "law's batch"),
    *("given away, left out", "B_crit"),
)
DRAWING = "dashboards.tuning"  # it stands above analysis, so it is called by name, as a shell would


def main(argv: Sequence[str]) -> int:
    """The command."""
    if "--help" in argv:
        print(__doc__)
        return 0
    given = cli.settings(HparamSettings(), argv)
    given.check()

    from analysis.tuning import study

    found = study.tune(given)
    show(found, study.targets(given))
    out = Path(given.out).expanduser().absolute() if given.out else study.default_file(found)
    print(f"written: {write(found, out)}; in a recipe or on its command line: optim.rule={out}")
    if given.figures:
        folder = out.with_name(f"{out.stem}-figures")
        importlib.import_module(DRAWING).write(found, folder)
        print(f"figures: {folder / 'index.html'}")
    return 0


def write(found: Tuning, out: Path) -> Path:
    """Write the rule's file."""
    from gpt3core import rule
    from gpt3core.store import files

    with files.explained(out, setting=files.OUT):
        files.make_folder(out.parent)
        files.write_bytes(out, rule.to_yaml(found.rule).encode())
    return out


def show(found: Tuning, targets: Sequence[tuple[float, float]] = ()) -> None:
    """Print a law, what it rests on and how far it may be trusted."""
    from gpt3core import terminal

    console = terminal.console(PIPE_WIDTH)
    title = f"{found.runs.name}: {len(found.table)} runs of {found.data.pairs} pairs of N and D"
    terminal.table(console, title, COLUMNS, _pairs(found), words=(), last=("runs", "B_crit", "its batch", "its lr"))
    for line in (*_laws(found), *_trust(found), *_beside(found)):
        console.print(line)
    for n, d in targets:
        console.print(_target(found, n, d))
    for note in found.notes:
        console.print(f"{note.severity}: {note.message} [{note.code}]")


def _pairs(found: Tuning) -> list[list[str]]:
    """A row a pair: its best run, the law's choice, what that gives away, and the critical batch."""
    import numpy as np

    from analysis.tuning import study
    from analysis.tuning.critical import Critical

    critical, rows = found.critical or Critical(), []
    for k, best in enumerate(study.best_rows(found)):
        n, d = np.exp(found.data.z[k])
        lr, batch = found.fitted.best(n, d)
        away = f"{found.judged.given_away[k]:.2%}" if len(found.judged.given_away) else "-"
        runs = int((found.data.pair == k).sum())
        row = (f"{n:.4g}", f"{d:.4g}", f"{runs}", f"{best.loss:.4f}", f"{best.lr:.3g}", f"{best.batch_tokens:,.0f}")
        rows.append([*row, f"{lr:.3g}", f"{batch:,.0f}", away, f"{float(critical.at(best.loss)):,.0f}"])
    return rows


def _laws(found: Tuning) -> list[str]:
    """The two laws with the intervals of their exponents."""
    said = []
    for which, law in (("lr", found.fitted.lr), ("batch", found.fitted.batch)):
        words = f"{which}*(N, D) = {law.words}"
        if found.resampled.known:
            parts = [
                f"{of} {low:.3f} to {high:.3f}"
                for of in ("N", "D")
                if getattr(law, of)
                for low, high in (found.resampled.exponent(which, of),)
            ]
            words += f"    95% of the exponents: {', '.join(parts)}" if parts else ""
        said.append(words)
    curve = found.fitted.curvature
    said.append(
        f"by {found.judged.form.words}: {found.fitted.runs} runs within it, spread {found.fitted.spread:.2%} of the "
        f"loss; twice or half the best lr at the best batch costs {100 * 0.24 * curve[0, 0]:.2f}%, of the batch at the "
        f"best lr {100 * 0.24 * curve[1, 1]:.2f}% of the loss (the parabola's, ln(2)^2 / 2 of the curvature)"
    )
    from analysis.tuning.critical import Critical

    paper = Critical()
    said.append(f"critical batch: {(found.critical or paper).words}" + (f"; {paper.words}" if found.critical else ""))
    return said


def _trust(found: Tuning) -> list[str]:
    """How good it was on pairs that it had not seen."""
    said = []
    if len(found.judged.given_away):
        away = found.judged.given_away
        said.append(
            f"a pair left out at a time: the law of the others gives away {away.mean():.2%} of the loss on it on "
            f"average, {away.max():.2%} at worst, against the best run there (whose luck counts against the law)"
        )
    if len(found.smaller):
        said.append(
            f"each next size from the smaller ones: {found.smaller.mean():.2%} on average, {found.smaller.max():.2%} "
            f"at worst, on {len(found.smaller)} pairs"
        )
    rows = found.table
    said.append(
        f"fitted on N {rows.N.min():.3g} to {rows.N.max():.3g} and D {rows.D.min():.3g} to {rows.D.max():.3g}: beyond "
        "them it extrapolates, and a plan that names it says by what factor"
    )
    return said


def _beside(found: Tuning) -> list[str]:
    """What warm-up and decay do."""
    return [
        f"{name.replace('_', ' ')} {value:g} in place of the commonest: {effect:+.2%} of the loss (standard error "
        f"{error:.2%})"
        for (name, value), effect, error in zip(
            found.data.values, found.fitted.effects, found.fitted.effects_se, strict=True
        )
    ]


def _target(found: Tuning, n: float, d: float) -> str:
    """What the law says elsewhere."""
    lr, batch = found.fitted.best(n, d)
    words = f"N={n:.3g}, D={d:.3g}: lr {lr:.3g}, batch {batch:,.0f} tokens"
    if found.resampled.known:
        rates, batches = found.resampled.at("lr", n, d), found.resampled.at("batch", n, d)
        words = (
            f"N={n:.3g}, D={d:.3g}: lr {lr:.3g} (95%: {rates[0]:.3g} to {rates[1]:.3g}), batch {batch:,.0f} tokens "
            f"({batches[0]:,.0f} to {batches[1]:,.0f})"
        )
    beyond = found.rule.beyond(n, d)
    return words + (
        f"; extrapolated: {', '.join(f'{name} by {factor:.3g}x' for name, factor in beyond.items())}" if beyond else ""
    )


if __name__ == "__main__":
    cli.run(main)
