"""A study as one folder of offline HTML: ``python -m dashboards.report runs=ROOT``. Takes the settings of analysis.fit.

The folder (default ROOT/sweeps/NAME/report) opens from disk: no server, no network, no upload button.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import fit
from gpt3core import cli
from gpt3core.store import files

# plotly 7 shows a button that uploads the figure to a cloud service unless told not to
CONFIG = {"showSendToCloud": False, "plotlyServerURL": "", "displaylogo": False, "responsive": True}

CSS = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0; color: #1a1a1a; background: #fff; }
header, main { max-width: 1080px; margin: 0 auto; padding: 0 20px; }
header { border-bottom: 1px solid #ddd; padding-top: 14px; padding-bottom: 10px; }
nav a { margin-right: 16px; } a { color: #0057a3; }
nav a[aria-current] { color: inherit; font-weight: 600; text-decoration: none; }
h1 { font-size: 21px; margin: 4px 0; } h2 { font-size: 17px; margin-top: 28px; }
table { border-collapse: collapse; font-size: 13px; margin: 8px 0; } .wide { overflow-x: auto; }
th, td { text-align: left; padding: 3px 10px 3px 0; border-bottom: 1px solid #eee; vertical-align: top; }
td { font-variant-numeric: tabular-nums; } .warning { color: #8a3b00; }
"""


def main(argv: Sequence[str]) -> int:
    """The command."""
    if "--help" in argv:
        print(__doc__)
        print(fit.__doc__)
        return 0
    given = fit.settings(argv)
    study, folder = fit.analyse(given)
    out = Path(given.out).expanduser().absolute() if given.out else folder.parent / "report"
    write(study, out)
    print(f"report: {out / 'index.html'}")
    return 0


def write(study: Any, out: Path) -> None:
    """Write a study's pages: a summary, and one for each figure."""
    from dashboards import figures

    made = figures.pages(study)
    write_pages(study.runs.name, made, out, _summary(study, made[0]))


def write_pages(name: str, made: list[Any], out: Path, summary: str) -> None:
    """Write pages, the rows behind each figure as CSV, and plotly's script once.

    Args:
        summary: HTML of the index page.
    """
    from plotly.offline import get_plotlyjs

    files.make_folder(out / "data")
    files.write_bytes(out / "plotly.min.js", get_plotlyjs().encode())
    for page in made:
        files.write_bytes(out / "data" / f"{page.slug}.csv", page.rows.to_csv(index=False).encode())
        files.write_bytes(out / f"{page.slug}.html", _figure_page(name, made, page).encode())
    files.write_bytes(out / "index.html", _document(name, made, "index", f"isoflop: {name}", summary).encode())


def write_svg(study: Any, out: Path) -> None:
    """The figures as SVG too, where kaleido and a browser are there to draw them."""
    import importlib.util

    from dashboards import figures

    if importlib.util.find_spec("kaleido") is None:
        return
    for page in figures.pages(study):
        try:
            image = page.figure.to_image(format="svg", width=900, height=560)
        except (RuntimeError, ValueError, OSError) as error:  # no browser: the HTML is there
            print(f"no SVG figures: {' '.join(str(error).split())[:120]}")
            return
        files.write_bytes(out / f"{page.slug}.svg", image)


def _document(name: str, pages: list[Any], current: str, title: str, body: str) -> str:
    links = [("index", "Summary"), *((p.slug, p.title) for p in pages)]
    nav = "".join(
        f'<a href="{slug}.html"{" aria-current=page" if slug == current else ""}>{html.escape(label)}</a>'
        for slug, label in links
    )
    policy = (
        "default-src 'none'; script-src 'self' 'unsafe-inline' file:; style-src 'unsafe-inline'; img-src data: "
        "blob:; font-src data:"
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{html.escape(title)}</title><style>{CSS}</style></head><body><header><h1>isoflop: "
        f"{html.escape(name)}</h1><nav>{nav}</nav></header><main>{body}</main></body></html>"
    )


def _plot(page: Any) -> str:
    text: str = page.figure.to_html(full_html=False, include_plotlyjs=False, config=CONFIG, div_id=page.slug)
    return f'<script src="plotly.min.js"></script>{text}'


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(h)}</th>" for h in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _figure_page(name: str, pages: list[Any], page: Any) -> str:
    rows = [[_cell(value) for value in row] for row in page.rows.itertuples(index=False)]
    body = (
        f"<h2>{html.escape(page.title)}</h2><p>{html.escape(page.about)}</p>{_plot(page)}"
        f'<h2>The {len(page.rows)} rows behind it</h2><p><a href="data/{page.slug}.csv" download>as CSV</a></p>'
        f"{_table(list(page.rows.columns), rows)}"
    )
    return _document(name, pages, page.slug, page.title, body)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:.5g}"
    return "" if value is None or value is pd.NA else str(value)


def _summary(study: Any, first: Any) -> str:
    from analysis import text
    from analysis.conventions import LABELS

    parts = [
        f"<p>{len(study.table)} of {len(study.everything)} runs fitted; N {html.escape(LABELS[study.size])}, C "
        f"{html.escape(LABELS[study.compute])}; loss in nats per token.</p>",
        _plot(first),
        f"<p>{html.escape(first.about)}</p>",
    ]
    for title, header, rows in text.tables(study):
        if rows:
            parts.append(f"<h2>{html.escape(title)}</h2>{_table(header, rows)}")
    notes = "".join(
        f'<li class="{n.severity}">{html.escape(n.message)} <code>{n.code}</code></li>' for n in study.notes
    )
    parts.append(f"<h2>Notes</h2><ul>{notes}</ul>")
    return "".join(parts)


if __name__ == "__main__":
    cli.run(main)
