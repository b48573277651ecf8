"""Held-out text of several domains: a law of one of them is fitted to its own losses, in the place of the total's.

Columns ``loss.wikipedia``, ``loss_se.wikipedia``, ``bits_per_byte.wikipedia``: of a table as its file has them, of a
store's runs by the sources of their text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from analysis.runs.tidy import Runs
from gpt3core.errors import UsageError
from gpt3core.hints import nearest

MEASURES = ("loss", "loss_se", "bits_per_byte")
DOMAIN, DOMAIN_SE = "loss.", "loss_se."


def names(columns: Iterable[str]) -> list[str]:
    """The domains that a table has losses of."""
    return [str(column).removeprefix(DOMAIN) for column in columns if str(column).startswith(DOMAIN)]


def is_of_domain(column: str) -> bool:
    """Whether a column is of one domain."""
    return column.startswith(tuple(f"{measure}." for measure in MEASURES))


def of(runs: Runs, domain: str) -> Runs:
    """A store's runs with the losses of one domain, and no other.

    Raises:
        UsageError: where they have none of it.
    """
    known = tuple(names(runs.table.columns))
    if domain not in known:
        there = f"there are {', '.join(known)}" if known else "their held-out text is one"
        raise UsageError(f"domain={domain}: the runs have no loss of it{nearest(domain, known)}; {there}")
    own = {f"{measure}.{domain}": measure for measure in MEASURES}
    table = runs.table.drop(columns=list(MEASURES)).rename(columns=own)
    table = table.drop(columns=[name for name in table if is_of_domain(str(name))])
    return replace(runs, table=table, domain=domain)
