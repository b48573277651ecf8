"""Which text is held out: whole groups, in the order of their hash, until the share that was asked for is reached.

A group is what must not be torn apart: one document, one work, or a stretch of a long text. Its name is a hash of its
content (or the name of a work of the starter corpus), so the split knows neither paths nor the order of files.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping

PASSAGE_CHARS = 3000  # a long text becomes passages of at most this length, so that shuffling mixes them
GROUP_CHARS = 30_000  # of a long text: neighbouring passages resemble each other and stay on one side
GROUPS_HELD_OUT = 8  # of a small text at least about this many groups are held out, so the share is met to 1/16 of it
GROUP_CHARS_MIN = 100


def group_chars(total_chars: int, fraction: float) -> int:
    """The length of a group of a long text, given the length of all the text: smaller for small texts."""
    smaller_side = total_chars * min(fraction, 1 - fraction)
    return max(GROUP_CHARS_MIN, min(GROUP_CHARS, int(smaller_side / GROUPS_HELD_OUT)))


def held_out(sizes: Mapping[str, int], fraction: float) -> set[str]:
    """The groups that are held out, given every group's bytes of text.

    A group of more than twice the share cannot bring it nearer and stays in the training text. One that would overshoot
    is taken if the share is nearer with it than without, and passed over else. Of two groups or more neither side is
    empty.
    """
    target = fraction * sum(sizes.values())
    order = sorted(sizes, key=lambda group: hashlib.sha256(f"split:{group}".encode()).digest())
    small = [group for group in order if sizes[group] <= 2 * target] or [min(order, key=lambda group: sizes[group])]
    chosen: set[str] = set()
    size = 0
    for group in small[: len(order) - 1]:
        missing = target - size
        if abs(missing - sizes[group]) > missing and chosen:
            continue  # a smaller one may follow
        chosen.add(group)
        size += sizes[group]
        if size >= target:
            break
    return chosen


def pieces(text: str, chars: int) -> Iterator[str]:
    """Cut a text into pieces of at most ``chars`` characters: at line ends, else at spaces, else anywhere."""
    piece: list[str] = []
    length = 0
    for line in text.split("\n"):
        for part in _parts(line.rstrip(), chars):
            if piece and length + len(part) > chars:
                yield from _stripped(piece)
                piece, length = [], 0
            piece.append(part)
            length += len(part) + 1
    yield from _stripped(piece)


def _parts(line: str, chars: int) -> list[str]:
    if len(line) <= chars:
        return [line]
    return [part.strip() for part in re.findall(rf".{{1,{chars}}}(?:\s|$)|.{{1,{chars}}}", line)]


def _stripped(lines: list[str]) -> Iterator[str]:
    if text := "\n".join(lines).strip():
        yield text
