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
from gpt3core.spec import DataSpec

MEASURES = ("loss", "loss_se", "bits_per_byte")
DOMAIN, DOMAIN_SE = "loss.", "loss_se."


def names(columns: Iterable[str]) -> list[str]:
    """The domains that a table has losses of."""
    return [str(column).removeprefix(DOMAIN) for column in columns if str(column).startswith(DOMAIN)]


def is_of_domain(column: str) -> bool:
    """Whether a column is of one domain."""
    return column.startswith(tuple(f"{measure}." for measure in MEASURES))


def held_out(data: DataSpec) -> str:
    """Which text losses are measured on, by the content that it is held out of, and how: equal where it is the same."""
    how = f"{data.validation_fraction:.6g} held out by version {data.pipeline_version}, as {data.tokenizer}"
    return f"text {data.corpus_sha256[:12]}, {how}"


def mixture(data: DataSpec) -> str:
    """In which shares its sources count in the loss; empty where they count as they are."""
    return ", ".join(f"{name} {share:.6g}" for name, share in data.weights)


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
