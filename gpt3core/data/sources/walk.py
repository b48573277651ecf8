"""Which files a source has: a file, a folder and all below it, or a pattern."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from gpt3core.data.sources import formats, streams
from gpt3core.words import some

ALLOWED = (
    "allowed are .txt files, .jsonl files (one object with a text field a line) and .warc and .warc.wet archives, all "
    "also as .gz, .zst and .xz, and .parquet files with a column text"
)
NAMED = 3  # so many refused files are named


def files(given: str, named: str, instead: str, allowed: str = ALLOWED) -> list[Path]:
    """The files at a path in order of their names, in a folder and below it, but for hidden ones.

    Args:
        given: a file, a folder, or a pattern with ``*``.
        named: how a refusal calls it.
        instead: what to give in place of a path that does not exist.
        allowed: which files there may be, as a refusal says it.

    Raises:
        ValueError: for a path that does not exist, files that are none of the formats, and loops of links.
    """
    try:
        if not given:
            raise FileNotFoundError  # an empty path is not the current folder
        path = Path(given).expanduser()
        mode = path.stat().st_mode
    except (FileNotFoundError, RuntimeError):  # the second for the home of an unknown user
        if found := _matching(given):
            return _known(found, named, allowed)
        raise ValueError(f"{named}: no such file or folder; {instead}: {allowed}") from None
    except OSError as error:
        raise streams.unreadable(path, error) from error
    return _known(sorted(_walk(path, ())) if stat.S_ISDIR(mode) else [path], named, allowed)


def _matching(pattern: str) -> list[Path]:
    """The files of a pattern, hidden ones left out."""
    names = glob.glob(os.path.expanduser(pattern), recursive=True) if pattern else []  # noqa: PTH111, PTH207
    return sorted(map(Path, names))


def _known(found: list[Path], named: str, allowed: str) -> list[Path]:
    if refused := [p for p in found if not formats.ending(p) or not p.is_file()]:
        raise ValueError(
            f"{named} has {some(list(map(str, refused)), NAMED)}, which is no text that can be read: "
            f"convert such files, or move them out or hide them by a leading dot; {allowed}"
        )
    return found


def _walk(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    """All files below a folder but hidden ones, through links too; ``above`` are the folders that one came through."""
    try:
        here = folder.stat()
        identity = (here.st_dev, here.st_ino)
        if identity in above:
            raise ValueError(f"{folder} is a link to a folder that it lies in, a loop: remove that link")
        for path in folder.iterdir():
            if path.name.startswith("."):
                continue
            if stat.S_ISDIR(path.stat().st_mode):
                yield from _walk(path, (*above, identity))
            else:
                yield path
    except OSError as error:
        raise streams.unreadable(Path(error.filename or folder), error) from error
