"""A sweep's standing in sentences: the same on a terminal and on a page of the app."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from gpt3core.words import cost, duration
from sweeps.driving.run_state import AGAIN
from sweeps.driving.status import SILENT_SECONDS
from sweeps.watching import standing
from sweeps.watching.last_words import LATEST
from sweeps.watching.standing import Live, Standing

ALIVE = ("driving", standing.SILENT)
PHASES = ("running", "waiting", "failed", "held", "pruned")
GONE = {  # why runs wait whose driver is no more: what it said last is past
    "interrupted": "the sweep was interrupted; start the same command again to go on",
    "failed": "the driver ended by an error; start the same command again once that is mended",
    standing.DEAD: "the driver is dead; start the same command again to go on",
}
TOLD = 3  # runs that must have ended before anything is said of how far off the rest may be
# of a normal distribution: its 95th percentile over its 75th, which is the median of the absolute deviations
TO_90_PERCENT = 1.6448536 / 0.6744898


def counts(sweep: Standing) -> str:
    """``3 running, 2 waiting``; empty where there is nothing beside what is done."""
    return ", ".join(f"{sweep.counts[name]:,} {name}" for name in PHASES if sweep.counts.get(name))


def ends(sweep: Standing) -> str:
    """When the last run should end, with an interval where ended runs tell how far off that may be; or nothing."""
    if sweep.ends is None or sweep.done >= sweep.asked:
        return ""
    if sweep.ends < sweep.time:
        late = duration(sweep.time - sweep.ends)
        return f"overdue by {late}: by the driver's last word it was to end at {moment(sweep.ends, sweep.time)}"
    words = f"ends in {duration(sweep.ends - sweep.time)} ({moment(sweep.ends, sweep.time)})"
    between = left_between(sweep)
    return words if between is None else f"{words}, 90%: {' to '.join(map(duration, between))}"


def left_between(sweep: Standing) -> tuple[float, float] | None:
    """Seconds that are left, as a 90% interval: off as the estimates of the runs that ended were, all by one factor.

    None where ``off_by`` is.
    """
    factor = off_by(sweep)
    if factor is None or sweep.ends is None:
        return None
    spoke = sweep.time if sweep.spoke is None else min(sweep.spoke, sweep.time)
    return between(spoke, sweep.ends, sweep.time, factor)


def between(spoke: float, ends: float, now: float, factor: float) -> tuple[float, float]:
    """Seconds from now to the ends of an interval: what a driver saw to come as it spoke last is off by a factor."""
    low, high = (spoke + f * (ends - spoke) - now for f in (1 / factor, factor))
    return max(0.0, low), max(0.0, high)


def off_by(sweep: Standing) -> float | None:
    """The factor that what is to come, time and cost, is off by at most with 90%, either way.

    None where too few runs ended to tell it, or the sweep is overdue: then that factor is what was wrong.
    """
    error = sweep.estimates.get("error")
    if sweep.ends is None or sweep.ends < sweep.time or error is None or sweep.estimates.get("runs", 0) < TOLD:
        return None
    return math.exp(min(TO_90_PERCENT * error, 50.0))


def driver(sweep: Standing) -> str:
    """What became of the driver, and what to do about it."""
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
    return said.get(sweep.driver, f"driver: {sweep.driver}")


def spent(sweep: Standing) -> str:
    """Device-hours and dollars: taken, to come, and their limits."""
    unit, taken, come = sweep.unit, sweep.taken, sweep.to_come
    words = [f"taken: {cost(taken.get('hours', 0.0), taken.get('usd', 0.0), unit)}"]
    if come.get("hours"):
        words.append(f"to come: {cost(come['hours'], come.get('usd', 0.0), unit)}")
    if come.get("held_hours"):
        words.append(f"held: {cost(come['held_hours'], come.get('held_usd', 0.0), unit)}")
    limit = sweep.limit
    limits = [f"{limit['hours']:g} {unit}-hours"] if "hours" in limit else []
    limits += [f"{limit['usd']:g} USD"] if "usd" in limit else []
    limits += [f"until {moment(limit['deadline'], sweep.time)}"] if "deadline" in limit else []
    limits += [f"{limit['devices']:g} {unit}s at once"] if "devices" in limit else []
    return "; ".join([*words, *([f"limit: {', '.join(limits)}"] if limits else [])])


def wrong(sweep: Standing) -> str:
    """How wrong the estimates were; nothing before a run has ended."""
    told = sweep.estimates
    if not told:
        return ""
    runs = int(told.get("runs", 0))
    return (
        f"estimates: {runs} run{'s' * (runs != 1)} took {told.get('first', 1.0):.2g} times the first guess; the "
        f"corrected ones were {_off(told.get('error', 0.0))} off in the median"
    )


def _off(error: float) -> str:
    """How far off an estimate was, by |ln(actual / estimate)|."""
    return f"{math.expm1(error):.0%}" if error < 0.7 else f"a factor of {math.exp(min(error, 50)):.1f}"


# -------------------------------------------------------------------------------------------------------------- of runs


def trains(live: Live) -> bool:
    """Whether a run gets on: it has begun, and is not being stopped."""
    return live.phase == "training" and not live.stopping


def done(live: Live) -> str:
    """How far a run is, and from where it went on."""
    if not trains(live):
        return "stopping" if live.stopping else live.phase
    return f"{live.share:4.0%}" + (f", resumed at {live.resumed:.0%}" if live.resumed is not None else "")


def left(live: Live, sweep: Standing) -> str:
    """Until a run should end; nothing where no driver tells it."""
    if live.ends is None or sweep.driver not in ALIVE:
        return ""
    return duration(max(0.0, live.ends - sweep.time))


@dataclass(frozen=True, kw_only=True)
class Other:
    """Runs that are neither done nor under way, for one reason."""

    run: str  # the first of them, and how many more
    state: str  # failed | waiting | held | pruned
    when: str  # it should start, or its state
    reason: str


def others(sweep: Standing) -> list[Other]:
    """Those that failed first, then those that wait, in the order of the queue."""
    failed = [Other(run=run, state="failed", when="failed", reason=why) for run, why in sweep.failed.items()]
    waiting = [
        Other(
            run=named(group.runs, group.count),
            state="waiting",
            when=starts(group.starts, sweep.time) if sweep.driver in ALIVE else "",
            reason=_waits(group.reason, GONE.get(sweep.driver, "")) or "its turn comes",
        )
        for group in sweep.waiting
    ]
    rest = [
        Other(run=named(group.runs, group.count), state=state, when=state, reason=group.reason)
        for state, groups in (("held", sweep.held), ("pruned", sweep.pruned))
        for group in groups
    ]
    return [*failed, *waiting, *rest]


def _waits(reason: str, gone: str) -> str:
    """Why a run waits: of a driver that is gone what it expected is past, not what failed."""
    if not gone or reason.endswith(gone):
        return reason
    return f"{reason}; {gone}" if reason.startswith(AGAIN) else gone


def silent(live: Live, sweep: Standing) -> bool:
    """Whether a run under way has given no sign of life for long."""
    return live.heartbeat is not None and sweep.time - live.heartbeat > SILENT_SECONDS


def named(runs: Sequence[str], count: int) -> str:
    """Runs that wait for the same, by the first of them."""
    return (runs[0] if runs else "?") + (f" and {count - 1} more" if count > 1 else "")


def starts(times: Sequence[float | None], now: float) -> str:
    """When the first of a group should start."""
    known = [start for start in times if start is not None]
    return duration(max(0.0, min(known) - now)) if known else ""


def ago(then: float | None, now: float) -> str:
    """Age; a dash where there was nothing."""
    return "-" if then is None else duration(now - then)


def moment(then: float, now: float) -> str:
    """A moment of this machine's time zone; without the date where that is today."""
    at, today = datetime.fromtimestamp(min(max(0.0, then), LATEST)), datetime.fromtimestamp(now)
    return at.strftime("%H:%M" if at.date() == today.date() else "%Y-%m-%d %H:%M")
