"""The terms of a lease in an object store: created by a conditional write, or by one that is verified after a while."""

from __future__ import annotations

import time

from gpt3core.store.lease import Term, as_bytes, parse
from gpt3core.store.objects import Objects

# where creation is not conditional: a listing shows what was written so long before
LISTED_SECONDS = 5.0
WRITTEN_SECONDS = 5.0  # from the look at a number to its write; who takes longer withdraws


def board(objects: Objects, prefix: str) -> ConditionalBoard | VerifiedBoard:
    """The terms below a prefix, by the best way that the store has."""
    return ConditionalBoard(objects, prefix) if objects.creates else VerifiedBoard(objects, prefix)


class ConditionalBoard:
    """``00000001.json`` and so on, each created by one conditional request; none is ever removed.

    A release is an object of its own beside it, for a renewal that comes late again would undo it.
    """

    how = "by conditional writes"

    def __init__(self, objects: Objects, prefix: str) -> None:
        self._objects, self._prefix = objects, prefix

    def newest(self) -> int:
        """The highest number in the listing, and beyond it, for a listing is old and reading by key is not."""
        found = max((_number(key) for key in self._objects.list(self._prefix)), default=0)
        while self._objects.get(self._key(found + 1)) is not None:
            found += 1
        return found

    def read(self, number: int) -> Term | None:
        """A term, or None."""
        return _read(self._objects, self._key(number))

    def create(self, number: int, term: Term) -> bool:
        """Write a term that is not there."""
        return self._objects.create(self._key(number), as_bytes(term))

    def write(self, number: int, term: Term) -> None:
        """Renew or release one's own."""
        _write(self._objects, self._key(number), term)

    def _key(self, number: int) -> str:
        return f"{self._prefix}/{number:08d}.json"


class VerifiedBoard:
    """``00000001/<nonce>.json`` and so on: of several that claim one number the smallest nonce has it.

    A claim is written only where a listing shows none, and read again after twice the time that a listing may be old
    and a write may take: by then every rival claim shows, and whoever comes later sees this one. So it holds as long
    as these times do, which a conditional write needs none of.
    """

    how = f"by writes that are read again after {2 * LISTED_SECONDS + WRITTEN_SECONDS:g} s"

    def __init__(self, objects: Objects, prefix: str) -> None:
        self._objects, self._prefix = objects, prefix

    def newest(self) -> int:
        """The highest number that the listing shows."""
        return max((_number(key) for key in self._objects.list(self._prefix)), default=0)

    def read(self, number: int) -> Term | None:
        """The term of whoever has the number."""
        claims = self._claims(number)
        return _read(self._objects, claims[0]) if claims else None

    def create(self, number: int, term: Term) -> bool:
        """Claim a number, and see whether it was given."""
        began = time.monotonic()
        if self._claims(number):
            return False
        key = self._key(number, term)
        self._objects.put(key, as_bytes(term))
        if time.monotonic() - began > WRITTEN_SECONDS:
            self._objects.delete([key])
            return False
        time.sleep(2 * LISTED_SECONDS + WRITTEN_SECONDS)
        if self._claims(number)[:1] == [key]:
            return True
        self._objects.delete([key])
        return False

    def write(self, number: int, term: Term) -> None:
        """Renew or release one's own."""
        _write(self._objects, self._key(number, term), term)

    def _claims(self, number: int) -> list[str]:
        found = self._objects.list(f"{self._prefix}/{number:08d}")
        return sorted(key for key in found if key.endswith(".json"))

    def _key(self, number: int, term: Term) -> str:
        return f"{self._prefix}/{number:08d}/{term.nonce}.json"


def _read(objects: Objects, key: str) -> Term | None:
    if (data := objects.get(key)) is None:
        return None
    released = objects.get(_release(key))
    return parse(data if released is None else released)


def _write(objects: Objects, key: str, term: Term) -> None:
    objects.put(_release(key) if term.released else key, as_bytes(term))


def _release(key: str) -> str:
    return f"{key.removesuffix('.json')}.released"


def _number(key: str) -> int:
    """The number in a key of either kind."""
    words = [word for word in key.removesuffix(".json").split("/") if len(word) == 8 and word.isdecimal()]
    return int(words[-1]) if words else 0
