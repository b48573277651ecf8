"""A sweep's standing as a page of a terminal: text from outside is text, never markup, and the page fits its lines."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gpt3core import terminal
from gpt3core.words import count, duration, percent
from sweeps.watching import said, standing
from sweeps.watching.standing import Live, Standing

ROWS = 40  # of a part of the page that is printed once
SHORT = 20  # lines below which a page leaves out what is least needed
BARS = ((110, 20), (60, 6))  # from how many columns a run's bar has how many cells
OTHERS = {"failed": "red", "held": "yellow", "pruned": "dim"}
STYLES = {standing.DEAD: "red", "failed": "red", standing.SILENT: "yellow", "driving": "green"}


def page(sweep: Standing, *, width: int, lines: int | None = None) -> RenderableType:
    """One sweep.

    Args:
        width: columns.
        lines: that the page may take; None prints up to ROWS of each part.
    """
    head = [*_head(sweep, short=lines is not None and lines < SHORT)]
    head += [Text(remark, style="yellow") for remark in sweep.remarks[:3]]
    taken = sum(-(-len(line.plain) // width) for line in head)
    running, others, finished = _shares(sweep, None if lines is None else lines - taken)
    parts: list[RenderableType] = [*head]
    if sweep.running and running:
        parts.append(_running(sweep, running, width))
    if others:
        parts.append(_others(sweep, others, width, one_line=lines is not None))
    if sweep.finished and finished:
        parts.append(_finished(sweep, finished))
    return Group(*parts)


def _shares(sweep: Standing, room: int | None) -> tuple[int, int, int]:
    """Rows of running runs, of those that wait or failed, and of the last that ended.

    Args:
        room: lines for the three, each with a line for its head and one for what it leaves out.
    """
    there = len(sweep.running), len(sweep.waiting) + len(sweep.held) + len(sweep.failed) + len(sweep.pruned)
    if room is None:
        return min(ROWS, there[0]), min(ROWS, there[1]), 5
    left = room - 2 * sum(n > 0 for n in there)
    others = min(there[1], max(left // 2, left - there[0]))
    running = min(there[0], left - max(0, others))
    return max(0, running), max(0, others), max(0, min(5, left - running - others - 2))


def _head(sweep: Standing, *, short: bool) -> list[Text]:
    """What stands at the top; ``short`` leaves out how wrong the estimates were."""
    told = [f"{sweep.name}: {sweep.done}/{sweep.asked} done", said.counts(sweep), said.ends(sweep)]
    title = Text(", ".join(filter(None, told)), style="bold")
    lines = [title, Text(said.driver(sweep), style=STYLES.get(sweep.driver, "")), Text(said.spent(sweep))]
    return [*lines, *([Text(said.wrong(sweep), style="dim")] if sweep.estimates and not short else [])]


# --------------------------------------------------------------------------------------------------------------- parts


def _running(sweep: Standing, rows: int, width: int) -> Table:
    speed = "MFU" if any(live.mfu is not None for live in sweep.running) else "GFLOP/s"
    columns = ["running", "done", "loss", "tok/s", speed, "heard", "saved", "ends in"]
    shown = [_live(live, sweep, speed, _cells(width)) for live in sweep.running[:rows]]
    wide = _whole(columns, shown, width, last=(speed, "saved", "heard", "tok/s", "loss"))
    table = _table(wide, left=("running", "done"))
    for live, cells in zip(sweep.running, shown, strict=False):
        kept = [Text(cell) for name, cell in zip(columns, cells, strict=True) if name in wide]
        table.add_row(*kept, style="yellow" if said.silent(live, sweep) else "")
    if (more := len(sweep.running) - rows) > 0:
        table.add_row(Text(f"and {more} more"), style="dim")
    return table


def _whole(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int, last: Sequence[str]) -> list[str]:
    """The columns whose cells all fit.

    Args:
        last: columns that may be left out, the first one first.
    """
    wide = {name: 2 + max(map(len, (name, *(row[i] for row in rows)))) for i, name in enumerate(columns)}
    for name in last:
        if sum(wide.values()) - 2 > width:
            del wide[name]
    return [*wide]


def _cells(width: int) -> int:
    """Of a run's bar."""
    return next((cells for least, cells in BARS if width >= least), 0)


def _live(live: Live, sweep: Standing, speed: str, cells: int) -> list[str]:
    bar = f"{terminal.bar(live.share, cells)} " if cells and said.trains(live) else ""
    flops = None if not live.flops_per_second else live.flops_per_second / 1e9
    fast = percent(live.mfu) if speed == "MFU" else "" if flops is None else f"{flops:,.0f}"
    return [
        live.run_id,
        bar + said.done(live),
        "" if live.loss is None else f"{live.loss:.3f}",
        count(live.tokens_per_second) if live.tokens_per_second else "",
        fast,
        said.ago(live.heartbeat, sweep.time),
        said.ago(live.checkpoint, sweep.time),
        said.left(live, sweep),
    ]


def _others(sweep: Standing, rows: int, width: int, *, one_line: bool) -> Table:
    """Runs that failed, wait, or are held, with the reason in the columns that are left."""
    lines = said.others(sweep)
    taken = max((len(other.run) for other in lines[:rows]), default=0) + len("starts in") + 2 * 3
    states = ", ".join(dict.fromkeys(other.state for other in lines))
    table = _table((states, "starts in"), left=(states,))
    reasons = max(width // 3, width - taken)
    table.add_column("why", no_wrap=one_line, overflow="ellipsis" if one_line else "fold", max_width=reasons)
    for other in lines[:rows]:
        table.add_row(Text(other.run), Text(other.when), Text(other.reason), style=OTHERS.get(other.state, ""))
    if (more := len(lines) - rows) > 0:
        table.add_row(Text(f"and {more} more"), style="dim")
    return table


def _finished(sweep: Standing, rows: int) -> Table:
    table = _table(("last done", "loss", "ago"), left=("last done",))
    for run in sweep.finished[:rows]:
        loss = f"{run.loss:.4f}" if run.loss is not None else run.status
        table.add_row(Text(run.run_id), Text(loss), Text(said.ago(run.time, sweep.time)))
    return table


def overview(sweeps: Sequence[Standing], *, width: int) -> RenderableType:
    """Several sweeps of a root, a row each."""
    columns = ("sweep", "driver", "done", "running", "waiting", "failed", "held", "ends in", "taken")
    rows = [_row(sweep) for sweep in sweeps]
    whole = _whole(columns, rows, width, last=("taken", "held", "driver", "ends in", "failed"))
    table = _table(whole, left=("sweep", "driver"))
    for sweep, row in zip(sweeps, rows, strict=True):
        kept = [Text(cell) for name, cell in zip(columns, row, strict=True) if name in whole]
        table.add_row(*kept, style=STYLES.get(sweep.driver, "") if sweep.driver != "driving" else "")
    return Group(table, Text("python -m sweeps.status name=SWEEP shows one of them", style="dim"))


def _row(sweep: Standing) -> list[str]:
    counts = [str(sweep.counts.get(name, 0)) for name in ("running", "waiting", "failed", "held")]
    ends = "" if sweep.ends is None or sweep.done >= sweep.asked else duration(sweep.ends - sweep.time)
    hours = sweep.taken.get("hours", 0.0)
    taken = f"{hours:,.0f}" if hours >= 1000 else f"{hours:.3g}"
    return [sweep.name, sweep.driver, f"{sweep.done}/{sweep.asked}", *counts, ends, f"{taken} {sweep.unit}-h"]


def _table(columns: Sequence[str], *, left: Sequence[str]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    for name in columns:
        table.add_column(name, justify="left" if name in left else "right", no_wrap=True, overflow="ellipsis")
    return table
