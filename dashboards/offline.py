"""Figures as a folder of offline HTML: no server, no network, no upload button."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from dashboards import exports, run_list
from dashboards.figures.look import COLOURS, CONFIG
from dashboards.figures.style import Page
from dashboards.glossary import WORDS
from dashboards.run_list import RunList
from dashboards.templates import render
from gpt3core.store import files

MOST_COUNTED = 1e10  # that is printed in full
MOST_ROWS = 300  # that a page shows; its files hold all
ASSETS = Path(__file__).resolve().parent / "assets"


def write_pages(
    name: str,
    made: Sequence[Page],
    out: Path,
    index: str,
    code: Mapping[str, str] | None = None,
    runs: RunList | None = None,
    **values: Any,
) -> None:
    """Write a page a figure and the index, the rows behind each figure, and plotly's script once.

    Args:
        index: the template of the index page, which is given ``values``.
        code: Python that draws a figure, by its slug.
        runs: have a page too, where there are any.
    """
    from plotly.offline import get_plotlyjs

    known = {
        "name": name,
        "pages": made,
        "drawn": {page.slug: _plot(page) for page in made if page.figure.data},
        "code": code or {},
        "css": Markup((ASSETS / "isoflop.css").read_text()),
        "colours": COLOURS,
        "runs": runs,
        "words": WORDS,
    }
    with files.explained(out, setting=files.OUT):
        files.make_folder(out / "data")
        files.write_bytes(out / "plotly.min.js", get_plotlyjs().encode())
        files.write_bytes(out / "figures.js", (ASSETS / "figures.js").read_bytes())
        for page in made:
            for kind, (write, _) in exports.KINDS.items():
                files.write_bytes(out / "data" / f"{page.slug}.{kind}", write(page.rows))
            text = render("figure.html", **known, title=page.title, current=page.slug, page=page, **_behind(page))
            files.write_bytes(out / f"{page.slug}.html", text.encode())
        if runs is not None:
            listed = {"header": run_list.HEADER, "rows": runs.rows()}
            text = render("runs.html", **known, title=f"isoflop: {name}", current="runs", **listed)
            files.write_bytes(out / run_list.PAGE, text.encode())
        text = render(index, **known, title=f"isoflop: {name}", current="index", **values)
        files.write_bytes(out / "index.html", text.encode())


def _plot(page: Page) -> Markup:
    """A page's figure: plotly writes what is inside its script so that no text of it can end that."""
    return Markup(page.figure.to_html(full_html=False, include_plotlyjs=False, config=CONFIG, div_id=page.slug))


def _behind(page: Page) -> dict[str, Any]:
    """The table below a figure: of its rows, or in short where they are many."""
    shown = page.rows if page.summary is None else page.summary
    rows = [[_cell(value) for value in row] for row in shown.head(MOST_ROWS).itertuples(index=False)]
    return {"header": list(map(str, shown.columns)), "rows": rows, "shown": len(shown), "count": len(page.rows)}


def _cell(value: Any) -> str:
    """A cell: words as they are, counts in full, other numbers to five digits."""
    if value is None or (pd.api.types.is_scalar(value) and pd.isna(value)):
        return ""
    if not isinstance(value, Real) or isinstance(value, (bool, np.bool_)):
        return str(value)
    number = float(value)
    is_count = abs(number) < 1e6 or number.is_integer()
    return f"{number:,.0f}" if 1000 <= abs(number) < MOST_COUNTED and is_count else f"{number:.5g}"
