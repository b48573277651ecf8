"""A sweep's standing as a page of a terminal: text from outside is text, never markup, and the page fits its lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gpt3core import terminal
from sweeps.driving.progress import duration
from sweeps.driving.status import SILENT_SECONDS
from sweeps.watching import standing
from sweeps.watching.last_words import LATEST
from sweeps.watching.standing import Live, Standing

ROWS = 40  # of a part of the page that is printed once
SHORT = 20  # lines below which a page leaves out what is least needed
BARS = ((110, 20), (60, 6))  # from how many columns a run's bar has how many cells
ALIVE = ("driving", standing.SILENT)
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
    counts = sweep.counts
    told = ", ".join(
        f"{counts[name]} {name}" for name in ("running", "waiting", "failed", "held", "pruned") if counts.get(name)
    )
    title = Text(f"{sweep.name}: {sweep.done}/{sweep.asked} done{', ' + told if told else ''}", style="bold")
    if sweep.ends is not None and sweep.done < sweep.asked:
        title.append(f", ends in {duration(sweep.ends - sweep.time)} ({_moment(sweep.ends, sweep.time)})")
    lines = [title, _driver(sweep), Text(_spent(sweep))]
    return [*lines, *([Text(_wrong(sweep), style="dim")] if sweep.estimates and not short else [])]


def _driver(sweep: Standing) -> Text:
    since = "" if sweep.spoke is None else duration(max(0.0, sweep.time - sweep.spoke))
    said = {
        "driving": f"driver: {sweep.driver_at}, heard {since} ago",
        "ended": f"driver: ended {since} ago",
        "failed": f"driver: ended by an error {since} ago; start the same command again once that is mended",
        "interrupted": f"driver: interrupted {since} ago; start the same command again to go on",
        standing.DEAD: f"driver: DEAD ({sweep.driver_at}), last heard {since} ago; start the same command again to go "
        "on: runs on a cluster go on without it",
        standing.SILENT: f"driver: SILENT for {since} ({sweep.driver_at}): it hangs, its disk does not answer, or its "
        "machine is gone",
        standing.NONE: "driver: none has spoken yet",
    }
    return Text(said.get(sweep.driver, f"driver: {sweep.driver}"), style=STYLES.get(sweep.driver, ""))


def _spent(sweep: Standing) -> str:
    """Device-hours and dollars: taken, to come, and their limits."""
    unit, taken, come = f"{sweep.unit}-hours", sweep.taken, sweep.to_come
    gpu = sweep.unit == "GPU"

    def both(hours: float, usd: float) -> str:
        return f"{hours:,.3g} {unit}" + (f" ({usd:,.2f} USD)" if gpu else "")

    words = [f"taken: {both(taken.get('hours', 0.0), taken.get('usd', 0.0))}"]
    if come.get("hours"):
        words.append(f"to come: {both(come['hours'], come.get('usd', 0.0))}")
    if come.get("held_hours"):
        words.append(f"held: {both(come['held_hours'], come.get('held_usd', 0.0))}")
    limit = sweep.limit
    limits = [f"{limit['hours']:g} {unit}"] if "hours" in limit else []
    limits += [f"{limit['usd']:g} USD"] if "usd" in limit else []
    limits += [f"until {_moment(limit['deadline'], sweep.time)}"] if "deadline" in limit else []
    limits += [f"{limit['devices']:g} {sweep.unit}s at once"] if "devices" in limit else []
    return "; ".join([*words, *([f"limit: {', '.join(limits)}"] if limits else [])])


def _wrong(sweep: Standing) -> str:
    """How wrong the estimates were."""
    told = sweep.estimates
    runs = int(told.get("runs", 0))
    return (
        f"estimates: {runs} run{'s' * (runs != 1)} took {told.get('first', 1.0):.2g} times the first guess; the "
        f"corrected ones were {_off(told.get('error', 0.0))} off in the median"
    )


def _off(error: float) -> str:
    """How far off an estimate was, by |ln(actual / estimate)|."""
    return f"{math.expm1(error):.0%}" if error < 0.7 else f"a factor of {math.exp(min(error, 50)):.1f}"


# --------------------------------------------------------------------------------------------------------------- parts


def _running(sweep: Standing, rows: int, width: int) -> Table:
    speed = "MFU" if any(live.mfu is not None for live in sweep.running) else "GFLOP/s"
    columns = ["running", "done", "loss", "tok/s", speed, "heard", "saved", "ends in"]
    shown = [_live(live, sweep, speed, _cells(width)) for live in sweep.running[:rows]]
    wide = {name: 2 + max(map(len, (name, *(cells[i] for cells in shown)))) for i, name in enumerate(columns)}
    for name in (speed, "saved", "heard", "tok/s", "loss"):  # whole cells of fewer columns, the least needed gone first
        if sum(wide.values()) - 2 > width:
            del wide[name]
    table = _table([*wide], left=("running", "done"))
    for live, cells in zip(sweep.running, shown, strict=False):
        silent = live.heartbeat is not None and sweep.time - live.heartbeat > SILENT_SECONDS
        kept = [Text(cell) for name, cell in zip(columns, cells, strict=True) if name in wide]
        table.add_row(*kept, style="yellow" if silent else "")
    if (more := len(sweep.running) - rows) > 0:
        table.add_row(Text(f"and {more} more"), style="dim")
    return table


def _cells(width: int) -> int:
    """Of a run's bar."""
    return next((cells for least, cells in BARS if width >= least), 0)


def _live(live: Live, sweep: Standing, speed: str, cells: int) -> list[str]:
    done = "stopping" if live.stopping else live.phase
    if done == "training":
        done = f"{terminal.bar(live.share, cells)} " if cells else ""
        done += f"{live.share:4.0%}" + (f", resumed at {live.resumed:.0%}" if live.resumed is not None else "")
    flops = None if not live.flops_per_second else live.flops_per_second / 1e9
    fast = _percent(live.mfu) if speed == "MFU" else "" if flops is None else f"{flops:,.0f}"
    return [
        live.run_id,
        done,
        "" if live.loss is None else f"{live.loss:.3f}",
        _thousands(live.tokens_per_second),
        fast,
        _ago(live.heartbeat, sweep.time),
        _ago(live.checkpoint, sweep.time),
        "" if live.ends is None or sweep.driver not in ALIVE else duration(max(0.0, live.ends - sweep.time)),
    ]


def _others(sweep: Standing, rows: int, width: int, *, one_line: bool) -> Table:
    """Runs that failed, wait, or are held, with the reason in the columns that are left."""
    lines = [(run_id, "failed", reason, "red") for run_id, reason in sweep.failed.items()]
    lines += [(_named(g.runs, g.count), _starts(g.starts, sweep.time), g.reason, "") for g in sweep.waiting]
    lines += [(_named(g.runs, g.count), "held", g.reason, "yellow") for g in sweep.held]
    lines += [(_named(g.runs, g.count), "pruned", g.reason, "dim") for g in sweep.pruned]
    taken = max((len(run) for run, *_ in lines[:rows]), default=0) + len("starts in") + 2 * 3
    table = _table(("waiting", "starts in"), left=("waiting",))
    reasons = max(width // 3, width - taken)
    table.add_column("why", no_wrap=one_line, overflow="ellipsis" if one_line else "fold", max_width=reasons)
    for run, when, reason, style in lines[:rows]:
        table.add_row(Text(run), Text(when), Text(reason or "its turn comes"), style=style)
    if (more := len(lines) - rows) > 0:
        table.add_row(Text(f"and {more} more"), style="dim")
    return table


def _finished(sweep: Standing, rows: int) -> Table:
    table = _table(("last done", "loss", "ago"), left=("last done",))
    for run in sweep.finished[:rows]:
        loss = f"{run.loss:.4f}" if run.loss is not None else run.status
        table.add_row(Text(run.run_id), Text(loss), Text(_ago(run.time, sweep.time)))
    return table


def overview(sweeps: Sequence[Standing]) -> RenderableType:
    """Several sweeps of a root, a row each."""
    table = _table(
        ("sweep", "driver", "done", "running", "waiting", "failed", "held", "ends in", "taken"),
        left=("sweep", "driver"),
    )
    for sweep in sweeps:
        counts = [str(sweep.counts.get(name, 0)) for name in ("running", "waiting", "failed", "held")]
        ends = "" if sweep.ends is None or sweep.done >= sweep.asked else duration(sweep.ends - sweep.time)
        taken = f"{sweep.taken.get('hours', 0.0):,.3g} {sweep.unit}-h"
        cells = [sweep.name, sweep.driver, f"{sweep.done}/{sweep.asked}", *counts, ends, taken]
        table.add_row(*map(Text, cells), style=STYLES.get(sweep.driver, "") if sweep.driver != "driving" else "")
    return Group(table, Text("python -m sweeps.status name=SWEEP shows one of them", style="dim"))


def _table(columns: Sequence[str], *, left: Sequence[str]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    for name in columns:
        table.add_column(name, justify="left" if name in left else "right", no_wrap=True, overflow="ellipsis")
    return table


def _named(runs: Sequence[str], count: int) -> str:
    return (runs[0] if runs else "?") + (f" and {count - 1} more" if count > 1 else "")


def _starts(starts: Sequence[float | None], now: float) -> str:
    """When the first of a group should start."""
    known = [start for start in starts if start is not None]
    return duration(max(0.0, min(known) - now)) if known else ""


def _ago(moment: float | None, now: float) -> str:
    """Age, in the largest unit that says something."""
    if moment is None:
        return "-"
    seconds = max(0.0, now - moment)
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


def _moment(moment: float, now: float) -> str:
    """A moment of this machine's time zone; without the date where that is today."""
    then, today = datetime.fromtimestamp(min(max(0.0, moment), LATEST)), datetime.fromtimestamp(now)
    return then.strftime("%H:%M" if then.date() == today.date() else "%Y-%m-%d %H:%M")


def _thousands(number: float | None) -> str:
    if not number:
        return ""
    return f"{number / 1000:,.0f}k" if number >= 10_000 else f"{number:,.0f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"
