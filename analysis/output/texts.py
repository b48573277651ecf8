"""Equal texts once in memory: those of a study, and mostly of the next one. ``sys.intern`` would keep all for ever."""

from __future__ import annotations

from collections.abc import Iterable

MOST = 1 << 16  # that are kept before the oldest go, twice: figures of 10,000 runs have 60,000
_kept: list[dict[str, str]] = [{}, {}]  # of late, and before


def shared(texts: Iterable[str]) -> list[str]:
    """The same texts, each as the object that was kept of it."""
    if len(_kept[0]) > MOST:
        _kept[:] = {}, _kept[0]
    late, before = _kept
    return [late.setdefault(text, before.get(text, text)) for text in texts]
