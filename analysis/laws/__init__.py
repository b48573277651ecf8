"""Each law in one place: its value and analytic gradient, vectorised over batches of parameters."""

import copyreg
from collections.abc import Callable

from analysis.laws.base import EXPONENT_NAMES, Array, Data, Evaluated, Law, PowerSum, not_falling
from analysis.laws.broken import BROKEN
from analysis.laws.chinchilla import CHINCHILLA, OVER_TRAINING, allocation, optimal_exponents
from analysis.laws.fixed import HELD, FixedExponents, fixed
from analysis.laws.fixed import named as fixed_named
from analysis.laws.kaplan import (
    LOSS_OF_C,
    LOSS_OF_C_MIN,
    LOSS_OF_C_WITH_FLOOR,
    LOSS_OF_D,
    LOSS_OF_N,
    LOSS_OF_N_AND_D,
    LOSS_OF_N_AND_S,
)
from analysis.laws.repeated import DATA_CONSTRAINED, FRESH, MOST_REPEATS, REPEATS

LAWS: dict[str, Law] = {
    law.name: law
    for law in (
        LOSS_OF_C,
        LOSS_OF_C_WITH_FLOOR,
        BROKEN,
        LOSS_OF_C_MIN,
        LOSS_OF_N,
        LOSS_OF_D,
        LOSS_OF_N_AND_D,
        LOSS_OF_N_AND_S,
        CHINCHILLA,
        OVER_TRAINING,
        DATA_CONSTRAINED,
    )
}

AUTHORS = {  # the law that each is known for
    "hoffmann": CHINCHILLA.name,
    "hestness": LOSS_OF_D.name,
    "kaplan": LOSS_OF_N_AND_D.name,
    "muennighoff": DATA_CONSTRAINED.name,
    "gadre": OVER_TRAINING.name,
    "caballero": BROKEN.name,
    "bnsl": BROKEN.name,
}


def named(word: str) -> str | None:
    """The key in LAWS of a law by its name or its author's; None for a stranger."""
    word = word.strip().lower()
    return word if word in LAWS else AUTHORS.get(word)


def by_name(name: str) -> Law:
    """The law of a name, one with fixed exponents among them."""
    return LAWS.get(name) or fixed_named(name)


def _named(law: Law) -> tuple[Callable[[str], Law], tuple[str]]:
    return by_name, (law.name,)


for _kind in {type(law) for law in LAWS.values()}:
    copyreg.pickle(_kind, _named)  # what another process fitted is of the same laws as here, not of others like them


__all__ = [
    "AUTHORS",
    "BROKEN",
    "CHINCHILLA",
    "DATA_CONSTRAINED",
    "EXPONENT_NAMES",
    "FRESH",
    "HELD",
    "LAWS",
    "LOSS_OF_C",
    "LOSS_OF_C_MIN",
    "LOSS_OF_C_WITH_FLOOR",
    "LOSS_OF_D",
    "LOSS_OF_N",
    "LOSS_OF_N_AND_D",
    "LOSS_OF_N_AND_S",
    "MOST_REPEATS",
    "OVER_TRAINING",
    "REPEATS",
    "Array",
    "Data",
    "Evaluated",
    "FixedExponents",
    "Law",
    "PowerSum",
    "allocation",
    "by_name",
    "fixed",
    "named",
    "not_falling",
    "optimal_exponents",
]
