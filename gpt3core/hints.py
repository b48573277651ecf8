"""What a word that is not known was probably meant to be, and how one is repeated in a sentence."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

SHOWN = 120  # characters of a value in an error
ALIKE = 0.66  # of last names, at least, to be a hint


def nearest_keys(word: str, known: Sequence[str], count: int = 3) -> list[str]:
    """The known dotted keys whose last names are most like a word's (``lr`` is like ``optim.lr_max``)."""
    sections = {key.rpartition(".")[0] for key in known}
    scored = [(_likeness(word, key), key) for key in known if key not in sections]
    best = sorted((item for item in scored if item[0] >= ALIKE), key=lambda item: (-item[0], len(item[1]), item[1]))
    return [key for score, key in best[:count] if score >= best[0][0] - 0.15]


def _likeness(word: str, key: str) -> float:
    """From 0 to 1, and a little more in the same section; a name that contains the other counts more than letters."""
    (section, _, mine), (where, _, other) = (name[:SHOWN].lower().rpartition(".") for name in (word, key))
    letters = difflib.SequenceMatcher(None, mine, other).ratio()
    contained = bool(mine) and (mine in other or other in mine)
    starts = contained and (other.startswith(mine) or mine.startswith(other))
    alike = max(letters, 0.9 if starts else 0.8 if contained and min(len(mine), len(other)) > 2 else 0.0)
    return alike + (0.1 if section and section == where and alike >= ALIKE else 0.0)


def short(text: str, length: int = SHOWN) -> str:
    """A user's word as it can stand in a sentence."""
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[:length]}..."


def nearest(word: str, known: Sequence[str]) -> str:
    """``, did you mean X?`` or nothing."""
    matches = difflib.get_close_matches(word[:SHOWN], known, n=1, cutoff=0.5)
    return f", did you mean {matches[0]}?" if matches else ""
