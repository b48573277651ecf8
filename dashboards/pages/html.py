"""Figures as a folder of offline HTML: no server, no network, no upload button."""

from __future__ import annotations

import html
from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dashboards.figures.style import Page
from gpt3core.store import files

# plotly 7 shows a button that uploads the figure to a cloud service unless told not to
CONFIG = {"showSendToCloud": False, "plotlyServerURL": "", "displaylogo": False, "responsive": True}

CSS = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #fff; --line: #ddd; --faint: #555; --link: #0057a3; }
:root { --warning: #8a3b00; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0; color: var(--ink); background: var(--paper); }
header, main { max-width: 1080px; margin: 0 auto; padding: 0 20px; }
header { border-bottom: 1px solid var(--line); padding-top: 14px; padding-bottom: 10px; }
nav a { margin-right: 16px; } a { color: var(--link); }
nav a[aria-current] { color: inherit; font-weight: 600; text-decoration: none; }
h1 { font-size: 21px; margin: 4px 0; } h2 { font-size: 17px; margin-top: 28px; }
table { border-collapse: collapse; font-size: 13px; margin: 8px 0; } .wide { overflow-x: auto; }
th, td { text-align: left; padding: 3px 10px 3px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td { font-variant-numeric: tabular-nums; } .warning { color: var(--warning); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 5px 16px; margin: 16px 0; }
td.number { text-align: right; white-space: nowrap; } summary { font-weight: 600; margin-top: 24px; cursor: pointer; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --paper: #141414; --line: #383838; --faint: #a8a8a8; --link: #7ab8f5; --warning: #f0a868; }
  .js-plotly-plot { filter: invert(0.92) hue-rotate(180deg); } /* white becomes the paper, hues stay */
}
@media print { nav, .modebar-container { display: none; } }
dt { color: var(--faint); } dd { margin: 0; overflow-wrap: anywhere; }
"""


def write_pages(name: str, made: list[Page], out: Path, summary: str) -> None:
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


def _document(name: str, pages: list[Page], current: str, title: str, body: str) -> str:
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


def plot(page: Page) -> str:
    """A page's figure; plotly's script stands beside the page."""
    text: str = page.figure.to_html(full_html=False, include_plotlyjs=False, config=CONFIG, div_id=page.slug)
    return f'<script src="plotly.min.js"></script>{text}'


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of words, escaped."""
    head = "".join(f"<th>{html.escape(h)}</th>" for h in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def definitions(lines: Sequence[tuple[str, str]]) -> str:
    """Labels with their sentences, escaped."""
    parts = "".join(f"<dt>{html.escape(label)}</dt><dd>{html.escape(sentence)}</dd>" for label, sentence in lines)
    return f"<dl>{parts}</dl>"


def _figure_page(name: str, pages: list[Page], page: Page) -> str:
    behind = f"<details><summary>The {len(page.rows)} rows behind it</summary>{_rows(page.rows)}</details>"
    if page.summary is not None:
        behind = _rows(page.summary)
    body = (
        f"<h2>{html.escape(page.title)}</h2><p>{html.escape(page.about)}</p>{plot(page)}{behind}"
        f'<p><a href="data/{page.slug}.csv" download>{len(page.rows):,} rows as CSV</a></p>'
    )
    return _document(name, pages, page.slug, page.title, body)


def _rows(rows: pd.DataFrame) -> str:
    """The rows behind a figure, numbers to the right."""
    head = "".join(f"<th>{html.escape(str(column))}</th>" for column in rows.columns)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows.itertuples(index=False))
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: Any) -> str:
    """A cell: words as they are, counts in full up to a million, other numbers to five digits."""
    if value is None or pd.isna(value):
        return "<td></td>"
    if not isinstance(value, Real) or isinstance(value, (bool, np.bool_)):
        return f"<td>{html.escape(str(value))}</td>"
    number = float(value)
    whole = number.is_integer() and 1000 <= abs(number) < 1e6
    text = f"{number:,.0f}" if whole else f"{number:.5g}".replace("e+", "e")
    return f'<td class="number">{text}</td>'
