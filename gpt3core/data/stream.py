"""A source's tokens, in the pieces in which its files hold them, and the sequences that they are cut into."""

from __future__ import annotations

import bisect
import errno
import functools
import itertools
import mmap
import resource
from dataclasses import dataclass
from pathlib import Path

import numpy as np


def mapped(path: Path) -> np.ndarray:
    """The 1-d array of a .npy file, as it lies on the disk.

    Sequences are read in random order, so the disk is told not to read ahead: on a text beyond memory that is most of
    the time of a row (8 ms of 8, on a sparse file of 600 GB).

    Raises:
        ValueError: where the process has no descriptor left: each mapped file keeps one.
    """
    try:
        with open(path, "rb") as file:
            np.lib.format.read_magic(file)
            (length,), _, dtype = np.lib.format.read_array_header_1_0(file)
            begin, held = file.tell(), mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        raise ValueError(
            f"{path} cannot be opened, for this process may have {most} files open: raise that by ulimit -n"
        ) from error
    held.madvise(mmap.MADV_RANDOM)
    return np.frombuffer(held, dtype=dtype, count=length, offset=begin)


@dataclass(frozen=True, kw_only=True)
class Stream:
    """One side of one source. A sequence lies within one piece; what is left at its end is unused."""

    name: str  # of the source
    weight: float  # its share of a mixture is this over the sum of all
    pieces: tuple[np.ndarray, ...]  # 1-d, of any unsigned type, memory-mapped

    @functools.cached_property
    def tokens(self) -> int:
        """Tokens of all pieces."""
        return sum(map(len, self.pieces))

    def sequences(self, n_ctx: int) -> int:
        """Sequences of ``n_ctx`` inputs, each with one target more."""
        return self.ends(n_ctx)[-1] if self.pieces else 0

    def ends(self, n_ctx: int) -> list[int]:
        """The number of the sequence that follows each piece."""
        return list(itertools.accumulate(max(0, len(piece) - 1) // n_ctx for piece in self.pieces))

    def rows(self, first: int, last: int, n_ctx: int) -> np.ndarray:
        """The sequences ``first`` ... ``last`` - 1 in the order of the text, int64 (B, T+1)."""
        ends = self.ends(n_ctx)
        found = np.empty((last - first, n_ctx + 1), dtype=np.int64)
        for row, number in enumerate(range(first, last)):
            piece = bisect.bisect_right(ends, number)
            start = (number - (ends[piece - 1] if piece else 0)) * n_ctx
            found[row] = self.pieces[piece][start : start + n_ctx + 1]
        return found
