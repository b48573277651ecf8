"""Which parameters N counts and which compute C means: typed fields, named beside every number.

Exponents change with the convention (Kaplan et al.'s 0.73 and Hoffmann et al.'s 0.50 differ mostly by it: Pearce and
Song 2024, arXiv 2406.12907), so a law is fitted under one of each and the report shows the others beside it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd

from analysis.laws import kaplan
from gpt3core.errors import UsageError

TUNED = ("lr", "noise_scale", "warmup_fraction", "final_fraction")  # columns of how a run was trained, where known


class Parameters(StrEnum):
    """What N counts."""

    NONEMBEDDING = "nonembedding"  # Kaplan et al. 2020
    TOTAL = "total"  # Hoffmann et al. 2022
    GIVEN = "given"  # a foreign table's N, whatever it counts


class Compute(StrEnum):
    """What C is."""

    EXACT = "exact"  # the training FLOPs of the run: attention and head counted; a foreign table's own column C
    SIX_ND = "6nd"  # 6 x N x D with N as counted
    KAPLAN = "kaplan"  # 6 x non-embedding N x D


@dataclass(frozen=True, kw_only=True)
class Convention:
    """What N and C mean."""

    n: Parameters
    c: Compute


LABELS = {
    Parameters.NONEMBEDDING: "non-embedding",
    Parameters.TOTAL: "total",
    Parameters.GIVEN: "as the table counts it",
    Compute.EXACT: "training FLOPs as recorded",
    Compute.SIX_ND: "6ND",
    Compute.KAPLAN: "6ND of non-embedding N",
}

UNRECORDED = "compute_unrecorded"  # column of a table that says no compute: it is 6ND, of the N that is fitted to
_STORE = {
    **{"params_total": "N_total", "params_nonembedding": "N_nonembedding", "tokens": "D", "unique_tokens": "U"},
    "flops_model": "C",
}
COUNTED = {Parameters.NONEMBEDDING: "N_nonembedding", Parameters.TOTAL: "N_total", Parameters.GIVEN: "N"}

OTHER_COUNT = {Parameters.NONEMBEDDING: "N_total", Parameters.TOTAL: "N_nonembedding"}  # column, by what N counts
OTHER_N = "N_other"  # column of points: the count of parameters that was not asked for


def available(table: pd.DataFrame) -> list[Convention]:
    """The conventions under which a table of runs can be read, the preferred first."""
    there = counts(table)
    found = []
    for n in (n for n in COUNTED if COUNTED[n] in there):
        if UNRECORDED not in table:
            found.append(Convention(n=n, c=Compute.EXACT))
        found.append(Convention(n=n, c=Compute.SIX_ND))
        if n is Parameters.TOTAL and COUNTED[Parameters.NONEMBEDDING] in there:
            found.append(Convention(n=n, c=Compute.KAPLAN))
    return found


def counts(table: pd.DataFrame) -> list[str]:
    """The counts of parameters that a table of runs has: N_nonembedding, N_total, and N where it is neither."""
    renamed = table.rename(columns=_STORE)
    found = [COUNTED[n] for n in (Parameters.NONEMBEDDING, Parameters.TOTAL) if COUNTED[n] in renamed]
    found = [name for name in found if renamed[name].notna().all()]
    own = "N" in renamed and not any(renamed.N.equals(renamed[name]) for name in found)
    return [*found, "N"] if own else found


def chosen(table: pd.DataFrame, n: Parameters | None, c: Compute | None, named: Collection[str] = ()) -> Convention:
    """What was asked for, and the preferred convention for what was not.

    Args:
        named: columns that the user named: a count among them is preferred, N first.
    """
    first = available(table)[0]
    preferred = next((known for known in reversed(COUNTED) if COUNTED[known] in named), first.n)
    return Convention(n=n or preferred, c=c or first.c)


def _unique(frame: pd.DataFrame, renamed: pd.DataFrame) -> pd.Series:
    """Different tokens that each run saw: as it says, else those of a text that is all seen equally often."""
    even = frame.D / np.maximum(frame.epochs, 1.0)
    return renamed.U.astype(float).fillna(even) if "U" in renamed else even


def points(table: pd.DataFrame, convention: Convention) -> pd.DataFrame:
    """The runs as a law sees them, one row each, under one convention of N and one of C.

    Columns: run_id, size, N, D, C, U, loss, epochs, status, seed; N_other (the total for the non-embedding count and
    the other way round), loss_se, budget_flops, gpu_hours, precision, mup_base_width (zero without muP) and TUNED where
    they are known; with batch_tokens also S_min and C_min, steps and compute at the critical batch (Kaplan et al.).

    Args:
        table: of a store, or of foreign.check_runs.

    Raises:
        UsageError: when the table does not know the convention asked for.
    """
    n, c = convention.n, convention.c
    renamed = table.rename(columns=_STORE)
    if not {"N_total", "N_nonembedding"} & set(renamed):  # the table does not say what its N counts: the user may
        renamed = renamed.assign(**{COUNTED[n]: renamed.N})
    if COUNTED[n] not in renamed:
        there = ", ".join(sorted({str(known.n) for known in available(table)}))
        raise UsageError(f"N={n}: these runs do not say it; they have N={there}")
    if c is Compute.EXACT and UNRECORDED in renamed:
        raise UsageError("C=exact: these runs do not say their compute (columns.C=NAME names it); without it C is 6ND")
    if c is Compute.KAPLAN and "N_nonembedding" not in renamed:
        raise UsageError("C=kaplan needs the non-embedding parameters, which these runs do not say")
    frame = pd.DataFrame({"run_id": renamed.run_id.astype(str), "size": renamed["size"].astype(str)})
    frame["N"] = renamed[COUNTED[n]].astype(float)
    if (other := OTHER_COUNT.get(n)) in renamed:
        frame[OTHER_N] = renamed[other].astype(float)
    frame["D"] = renamed.D.astype(float)
    counted = frame.N if c is not Compute.KAPLAN else renamed.N_nonembedding.astype(float)
    frame["C"] = renamed.C.astype(float) if c is Compute.EXACT else 6 * counted * frame.D
    frame["epochs"] = renamed.epochs.astype(float)
    frame["U"] = _unique(frame, renamed)
    for name in ("loss", "loss_se", "budget_flops", "batch_tokens", "gpu_hours", *TUNED):
        if name in renamed:
            frame[name] = renamed[name].astype(float)
    frame["status"] = renamed.status.astype(str)
    if "duplicate" in renamed:
        frame["duplicate"] = renamed.duplicate
    if "precision" in renamed:
        frame["precision"] = renamed.precision.astype("string").fillna("unknown").astype(str)
    if "mup_base_width" in renamed:
        frame["mup_base_width"] = renamed.mup_base_width.fillna(0).astype(int)
    frame["seed"] = renamed.seed if "seed" in renamed else 0
    if "batch_tokens" in frame:
        loss, batch, tokens = (frame[name].to_numpy(float) for name in ("loss", "batch_tokens", "D"))
        steps = renamed.steps.to_numpy(float) if "steps" in renamed else tokens / batch
        frame["C_min"] = kaplan.minimum_compute(frame.C.to_numpy(float), batch, loss)
        frame["S_min"] = kaplan.minimum_steps(steps, batch, loss)
    return frame
