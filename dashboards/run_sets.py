"""The runs behind a number as an address names them: by their ids where these are few, else by the name of their set.

A set is known as long as the answer leads to it (of those that only choices of readers lead to, the last ones), and for
good once a reader has opened it: the store has it.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlencode

from dashboards import query
from gpt3core.errors import StoreError
from gpt3core.store import run_sets

FEW = 60  # runs whose ids stand in the address
MOST_KEPT = 200  # sets beside those of the answer


class RunSets:
    """The sets of one store."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._answer: dict[str, tuple[str, ...]] = {}
        self._known: OrderedDict[str, tuple[str, ...]] = OrderedDict()  # a tenth of the memory of sets
        self._opened = set[str]()  # of those known, which the store has

    def address(self, run_ids: Iterable[str]) -> str:
        """Of the page Runs with these runs and no others."""
        ids = tuple(sorted(set(run_ids)))
        return f"/runs?{urlencode({'filter': query.of_runs(ids) if len(ids) <= FEW else self._named(ids)})}"

    def learn(self, sets: Iterable[Iterable[str]]) -> None:
        """Know the sets of a new answer, whose page may be made later or stay open for long: no more the former's."""
        found = (tuple(sorted(set(run_ids))) for run_ids in sets)
        self._answer = {run_sets.name_of(ids): ids for ids in found if len(ids) > FEW}

    def find(self, name: str) -> frozenset[str] | None:
        """The runs of a set, which is kept from now on; None where nobody knows it."""
        with self._lock:
            ids = self._answer.get(name) or self._known.get(name)
        ids = run_sets.find(self._root, name) if ids is None else ids
        if ids is None:
            return None
        self._remember(name, ids)
        if name not in self._opened:
            with contextlib.suppress(StoreError, OSError):  # not now: it is known here, and the next look tries again
                run_sets.keep(self._root, ids)
                self._opened.add(name)
        return frozenset(ids)

    def _named(self, ids: tuple[str, ...]) -> str:
        """The filter of a set, which is known from now on."""
        name = run_sets.name_of(ids)
        self._remember(name, ids)
        return query.of_set(name)

    def _remember(self, name: str, ids: tuple[str, ...]) -> None:
        with self._lock:
            self._known[name] = ids
            self._known.move_to_end(name)
            if len(self._known) > MOST_KEPT:
                self._opened.discard(self._known.popitem(last=False)[0])
