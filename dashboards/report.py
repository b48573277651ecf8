"""A study as one folder of offline HTML: ``python -m dashboards.report runs=ROOT``.

Takes the settings of analysis.fit. The folder (default ROOT/sweeps/NAME/report) opens from disk: no server, no
network, no upload button. What ``analysis.fit`` wrote for the same runs and settings is drawn as it stands; otherwise
the laws are fitted first.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.settings import ReportSettings, StudySettings
from gpt3core import cli

if TYPE_CHECKING:
    from analysis.study import Study
    from dashboards.figures.style import Page


def main(argv: Sequence[str]) -> int:
    """The command."""
    if "--help" in argv:
        from analysis import fit

        print(__doc__)
        print(fit.__doc__)
        return 0
    given = cli.settings(ReportSettings(), argv)
    given.check()

    from analysis import fit
    from dashboards import data

    study, folder = data.load(given)
    out = given.folder(folder.parent / "report")
    write(study, out, given, fit.following(argv))
    print(f"report: {out / 'index.html'}")
    return 0


def write(study: Study, out: Path, given: StudySettings | None = None, next_command: str = "") -> None:
    """Write a study's pages: a summary, and one for each figure.

    Args:
        given: what the study was asked for by, for the line of Python below each figure.
        next_command: says what to run next.
    """
    from analysis.output.answer import spelt
    from dashboards import exports, offline, summary
    from dashboards.run_list import RunList

    made = _pages(study)
    code = {page.slug: exports.code(given, page.slug) for page in made}
    runs = RunList(study=study)
    left_out = [name for rule in study.rules for name in rule.excluded]
    said = [(label, summary.linked(parts, runs.address)) for label, parts in spelt(study)]
    lead, others = summary.split(said)
    offline.write_pages(
        study.runs.name,
        made,
        out,
        "summary.html",
        code,
        runs,
        lead=lead,
        others=others,
        next_command=next_command if study.ensemble is not None else "",
        figure_of=summary.figure_of,
        slugs=[page.slug for page in made],
        groups=summary.groups(study, runs.address),
        notes=[(note, summary.linked([(note.message, note.runs)], runs.address, left_out)) for note in study.notes],
    )


def write_svg(study: Study, out: Path) -> None:
    """The figures as SVG too, where kaleido and a browser are there to draw them."""
    from gpt3core.store import files

    if importlib.util.find_spec("kaleido") is None:
        return
    for page in _pages(study):
        try:
            image = page.figure.to_image(format="svg", width=900, height=560)
        except (RuntimeError, ValueError, OSError) as error:  # no browser: the HTML is there
            print(f"no SVG figures: {' '.join(str(error).split())[:120]}")
            return
        with files.explained(out, setting=files.OUT):
            files.write_bytes(out / f"{page.slug}.svg", image)


def _pages(study: Study) -> list[Page]:
    from dashboards import data
    from dashboards.figures.catalogue import pages

    return pages(study, data.losses(study.runs))


if __name__ == "__main__":
    cli.run(main)
