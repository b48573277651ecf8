"""Which runs enter a fit: rules with names, each listed in the output with the runs that it takes out. Nothing drops
in silence.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

MAX_EPOCHS = 4.0  # up to about four epochs repeated data is nearly as good as new (Muennighoff et al. 2023)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A named rule and the runs it took out."""

    name: str
    meaning: str
    excluded: list[str]


def apply(table: pd.DataFrame, min_tokens: float) -> tuple[pd.DataFrame, list[Rule]]:
    """The runs that pass every rule, and the rules."""
    checks = (
        (
            "diverged",
            "the loss is missing or not finite, or the run says that it diverged",
            table.loss.isna() | (table.status != "done"),
        ),
        (
            "short-run",
            f"fewer than {min_tokens:,.0f} training tokens (min_tokens): such a run is still between a unigram and "
            f"a bigram model",
            table.tokens < min_tokens,
        ),
        ("repeated-data", f"the text was seen more than {MAX_EPOCHS:g} times", table.epochs > MAX_EPOCHS),
    )
    rules, out = [], pd.Series(False, index=table.index)
    for name, meaning, hit in checks:
        rules.append(Rule(name=name, meaning=meaning, excluded=sorted(table.run_id[hit & ~out])))
        out |= hit
    return table[~out].reset_index(drop=True), rules
