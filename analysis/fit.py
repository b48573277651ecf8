"""Fit scaling laws: ``python -m analysis.fit runs=PATH``.

runs=PATH            a store (default: ISOFLOP_ROOT or ~/.isoflop/runs), or a CSV (commas, semicolons or tabs; decimal
                     commas with the latter), Parquet or JSON-lines file with a run a row: columns N, D and loss; C
                     where it is known; unique_tokens, loss_se, seed, status as given
columns.N=params     a file's own names and units: columns.D=tokens_billion*1e9, columns.loss=val_loss, columns.C=...
scores=[MMLU,GSM8K/100]  a table's columns of accuracy (1-err_piqa: of errors); chance.MMLU=0.25 items.MMLU=14042
                     shots.MMLU=5 say what a guesser scores, how many items and how many examples; a loss may then lack
sweep=NAME           which sweep of a store (default: the one last driven)
domain=NAME          the law of the loss on one source of a store's held-out text, in the place of the total
out=DIR              where the files go (default: ROOT/sweeps/NAME/fit, of a domain fit-NAME; ./NAME-fit for a file)
law=all              or one law, which then predicts alone: chinchilla, kaplan_nd, compute_frontier, ..., or its
                     author: hoffmann, kaplan, muennighoff, gadre, caballero
loss_function=huber  or least_squares, soft_l1, cauchy;  delta=1e-3: of ln L, where they turn
N=nonembedding       or total;  C=exact, 6nd or kaplan: the conventions of the laws
fix.a=0.5            hold a of N* ~ C^a fixed; or fix.alpha=0.34, fix.beta=0.28, fix.alpha_equals_beta=true: a note says
                     what it costs in backtests
target_compute=[1e24]  FLOPs to predict (default: ten times the largest run's)
target=gpt3-175b     a published model as it was trained, and beside it the best one of its compute
predict=POINTS.csv   one prediction a row, in the file's order: columns N and D, or C (same columns.X=...)
exclude=[NAME]       runs to leave out;  min_tokens=4e5: rule short-run (default: the recipe's)
min_compute=1e18     only runs of so many FLOPs (as C counts them) or more; max_compute=1e21 or fewer
rules=all            which rules take runs out: all, none (a replication takes every run), or a list of duplicate,
                     diverged, stopped-early, repeated-data, not-best-tuned, worse-than-smaller, short-run,
                     under-trained, near (parabolas only)
precision=fp32       only runs that were trained in it (a store's runs say it, or a table's column precision)
bootstrap=1000 seed=0 figures=true
tables=none          or all: every table and note, beside the answer

Writes fit.json, runs.parquet, bootstrap.parquet, law.md, study.npz (from which the report and the app draw without
fitting again) and figures/ (HTML; SVG where kaleido and a browser are).
"""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.settings import EVERY, FitSettings, RunSettings
from gpt3core import cli

if TYPE_CHECKING:
    from analysis.study import Study

OF_RUNS = tuple(field.name for field in fields(RunSettings))
PIPE_WIDTH = 150  # of tables where the output is no terminal
NEXT = "next"  # the label of a command
DRAWING = "dashboards.report"  # draws studies; it stands above analysis, so it is called by name, as a shell would


def main(argv: Sequence[str]) -> int:
    """The command."""
    if "--help" in argv:
        print(__doc__)
        return 0
    given = cli.settings(FitSettings(), argv)
    given.check()

    from analysis import api
    from analysis.output import documents

    study, folder = api.study(given)
    out = given.folder(folder)
    documents.write(study, out)
    _print(study, whole=given.tables == EVERY, next_command=following(argv))
    written = [("written", str(out))]
    if given.figures:
        written.append(("report", str(_drawn(study, given, following(argv), out / "figures"))))
    _labelled(written)
    return 0


def _drawn(study: Study, given: FitSettings, next_command: str, folder: Path) -> Path:
    """Draw the study; the page to open."""
    pages = importlib.import_module(DRAWING)
    pages.write(study, folder, given, next_command)
    pages.write_svg(study, folder)
    return folder / "index.html"


def _labelled(lines: Sequence[tuple[str, str]]) -> None:
    """Sentences under their labels; commands and paths whole, to be copied."""
    from gpt3core import terminal

    print("\n".join(terminal.labelled(lines, terminal.console(PIPE_WIDTH).width, whole=(NEXT, "written", "report"))))


def _print(study: Study, *, whole: bool, next_command: str) -> None:
    """The answer, and the points of a file where there is one; all tables and notes where these are asked for."""
    from analysis.output import text
    from analysis.output.answer import answer
    from analysis.runs import domains
    from analysis.runs.store import sweeps
    from gpt3core import terminal
    from gpt3core.words import number_of, some

    out, runs, lines = terminal.console(PIPE_WIDTH), study.runs, answer(study)
    domain = f", losses on {runs.domain}" if runs.domain else ""
    others = [name for name in sweeps(runs.source) if name != runs.name] if runs.store else []
    print(f"{'sweep ' if runs.store else ''}{runs.name}{domain}, from {runs.source}")
    if others:
        lines.append(("others", f"{some(others)}: sweep=NAME"))
    if study.ensemble is not None:
        lines.append((NEXT, next_command))
    if not whole:
        warned = number_of(sum(note.severity == "warning" for note in study.notes), "warning")
        said = f"tables=all prints every table and the {number_of(len(study.notes), 'note')} ({warned})"
        if known := domains.names(runs.table.columns):
            said += f"; domain=NAME fits the losses on one of {', '.join(known)}"
        lines.append(("more", said))
    _labelled(lines)
    for table in text.tables(study) if whole else text.asked(study):
        terminal.table(out, table.title, table.header, [row.words for row in table.rows])
    for note in (n for n in study.notes if whole and not n.code.startswith("rule-")):  # a table lists these runs
        out.print(f"{note.severity}: {note.message} [{note.code}]", markup=False)


def following(argv: Sequence[str]) -> str:
    """The command that says what to run next, of the same runs."""
    words = [word for word in argv if word.partition("=")[0].partition(".")[0] in OF_RUNS]
    return shlex.join(["python", "-m", "analysis.design", *words])


if __name__ == "__main__":
    cli.run(main)
