"""Which text is held out: whole groups, in the order of their draws, until the share that was asked for is reached.

A group is what must not be torn apart: one document, the editions of one work, or a stretch of a long text. Its draw is
a hash of its content or its work's name, so the split knows neither paths nor the order of files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

SIDES = TRAIN, VALIDATION = "train", "validation"
PASSAGE_CHARS = 3000  # a long text becomes passages of at most this length, so that shuffling mixes them
GROUP_CHARS = 30_000  # of a long text: neighbouring passages resemble each other and stay on one side
GROUPS_HELD_OUT = 8  # of a small text at least about this many groups are held out, so the share is met to 1/16 of it
GROUP_CHARS_MIN = 100


def group_chars(total_chars: int, fraction: float) -> int:
    """The length of a group of a long text, given the length of all the text: smaller for small texts."""
    smaller_side = total_chars * min(fraction, 1 - fraction)
    return max(GROUP_CHARS_MIN, min(GROUP_CHARS, int(smaller_side / GROUPS_HELD_OUT)))


def held_out(sizes: Sequence[int], fraction: float, decided: Mapping[int, bool]) -> set[int]:
    """Which groups are held out, by their numbers, given every group's bytes of text in the order of their draws.

    A group of more than half the share stays in the training text where there are enough smaller ones: a loss is to be
    measured on several. Where there are not, one of more than twice the share does, for it cannot bring it nearer. One
    that would overshoot is taken if the share is nearer with it than without, and passed over else. Of two groups or
    more neither side is empty, as far as it is not decided.

    Args:
        decided: of some groups, whether they are held out.
    """
    chosen = {n for n, side in decided.items() if side}
    free = [n for n in range(len(sizes)) if n not in decided]
    target, size = fraction * sum(sizes), sum(sizes[n] for n in chosen)
    small = [n for n in free if sizes[n] <= target / 2]
    if size + sum(sizes[n] for n in small) < target:
        small = [n for n in free if sizes[n] <= 2 * target]
    if free and not small and not chosen:
        small = [min(free, key=lambda n: sizes[n])]
    kept = 0 if len(chosen) < len(decided) else 1  # one must stay in the training text
    for n in small[: max(0, len(free) - kept)]:
        missing = target - size
        if chosen and missing <= 0:
            break
        if chosen and abs(missing - sizes[n]) > missing:
            continue  # a smaller one may follow
        chosen.add(n)
        size += sizes[n]
    return chosen


def passages(text: str, stretch: int) -> Iterator[tuple[str, str]]:
    """Cut a long text into passages, each with the stretch of so many characters that it lies in."""
    for whole in pieces(text, stretch):
        for passage in pieces(whole, PASSAGE_CHARS):
            yield whole, passage


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
