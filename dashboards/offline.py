"""Figures as a folder of offline HTML: no server, no network, no upload button."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
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
from gpt3core.errors import UsageError
from gpt3core.store import files
from gpt3core.words import Name

MOST_COUNTED = 1e10  # that is printed in full
INDEX = "index.html"
UNFINISHED, LONGEST_HOURS = ".isoflop-unfinished", 6.0  # a folder of pages under way, and how long they may be so
MOST_ROWS = 300  # that a page shows; its files hold all
NAMED = ("run", "run_id", "size", "task", "label", "seed")  # columns of names, which are no words of ours, nor counts
MARK = b"<h1>isoflop: "  # of every page
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

    All of it is whole before any of it is seen: whatever ends this before leaves what stood there.

    Args:
        index: the template of the index page, which is given ``values``.
        code: Python that draws a figure, by its slug.
        runs: have a page too, where there are any.

    Raises:
        UsageError: where the folder has another's pages.
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
    with files.explained(out, setting=files.OUT), _in_place_of(out) as new:
        files.write_bytes(new / "plotly.min.js", get_plotlyjs().encode())
        files.write_bytes(new / "figures.js", (ASSETS / "figures.js").read_bytes())
        for page in made:
            for kind, (write, _) in exports.KINDS.items():
                files.write_bytes(new / "data" / f"{page.slug}.{kind}", write(page.rows))
            text = render("figure.html", **known, title=page.title, current=page.slug, page=page, **_behind(page))
            files.write_bytes(new / f"{page.slug}.html", text.encode())
        if runs is not None:
            listed = {"header": run_list.HEADER, "rows": runs.rows()}
            text = render("runs.html", **known, title=f"isoflop: {name}", current="runs", **listed)
            files.write_bytes(new / run_list.PAGE, text.encode())
        text = render(index, **known, title=f"isoflop: {name}", current="index", **values)
        files.write_bytes(new / INDEX, text.encode())


@contextlib.contextmanager
def _in_place_of(out: Path) -> Iterator[Path]:
    """A folder for new pages, which take the place of those in ``out`` at the end of the block: the index last.

    Raises:
        UsageError: where somebody else's are there.
    """
    _require_ours(out / INDEX)
    files.make_folder(out / "data")
    for left in out.glob(f"{UNFINISHED}*"):  # by a process that was killed
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > LONGEST_HOURS * 3600:
                shutil.rmtree(left)
    new = Path(tempfile.mkdtemp(prefix=f"{UNFINISHED}-", dir=out))  # its own: another process may be writing here
    try:
        files.make_folder(new / "data")
        yield new
        for slug in _pages_of(out / INDEX):
            if not (new / f"{slug}.html").exists():  # a figure that there was, and is no more
                data = (out / "data" / f"{slug}.{kind}" for kind in exports.KINDS)
                for gone in (out / f"{slug}.html", out / f"{slug}.svg", *data):
                    gone.unlink(missing_ok=True)
        (out / INDEX).unlink(missing_ok=True)  # after what it names, that one who is interrupted can tell what is gone
        written = sorted(path.relative_to(new) for path in new.rglob("*") if path.is_file())
        for path in sorted(written, key=lambda path: path.name == INDEX):
            os.replace(new / path, out / path)
        files.sync_folder(out)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _pages_of(index: Path) -> list[str]:
    """The pages that an index of ours names."""
    return re.findall(r'<a href="([\w-]+)\.html"', index.read_text(errors="replace")) if index.is_file() else []


def _require_ours(index: Path) -> None:
    """Replace no page that somebody else wrote."""
    if index.is_file() and MARK not in index.read_bytes():
        raise UsageError(f"{index} is no report of isoflop's, which would take its place: name another folder by out=")


def _plot(page: Page) -> Markup:
    """A page's figure: plotly writes what is inside its script so that no text of it can end that."""
    return Markup(page.figure.to_html(full_html=False, include_plotlyjs=False, config=CONFIG, div_id=page.slug))


def _behind(page: Page) -> dict[str, Any]:
    """The table below a figure: of its rows, or in short where they are many."""
    shown = page.rows if page.summary is None else page.summary
    header = list(map(str, shown.columns))
    rows = [list(map(_cell, row, header)) for row in shown.head(MOST_ROWS).itertuples(index=False)]
    return {"header": header, "rows": rows, "shown": len(shown), "count": len(page.rows)}


def _cell(value: Any, column: str = "") -> str:
    """A cell: words and names as they are, counts in full, other numbers to five digits."""
    if value is None or (pd.api.types.is_scalar(value) and pd.isna(value)):
        return ""
    is_number = isinstance(value, Real) and not isinstance(value, (bool, np.bool_))
    if column in NAMED:
        return Name(int(value) if is_number and float(value).is_integer() else value)  # of a column with gaps: 7.0
    if not is_number:
        return str(value)
    number = float(value)
    return f"{number:,.0f}" if 1000 <= abs(number) < MOST_COUNTED and number.is_integer() else f"{number:.5g}"
