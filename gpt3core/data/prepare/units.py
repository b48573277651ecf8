"""What there is to read, cut into units that one process reads: files, stretches of large ones, packages, data sets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt3core.data import split
from gpt3core.data.prepare import parts
from gpt3core.data.prepare.schema import Recipe, Source
from gpt3core.data.sources import formats, hub, packages, streams, walk
from gpt3core.data.sources.formats import WHOLE, Span
from gpt3core.data.sources.record import Bad, Reading, Record

UNIT_BYTES = 128 << 20  # of an uncompressed file that one process reads


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A file, a stretch of one, or what a package or a data set carries. Its key changes when its content may have."""

    source: str
    origin: str  # path | package | dataset
    name: str  # the file's path, or the name of the package or data set
    how: Reading
    span: Span = WHOLE
    bytes: int = 0  # on disk; 0 where that is not known before
    stamp: str = ""  # a file's size and time

    @property
    def key(self) -> str:
        """Names what is read, and how."""
        named = [self.source, self.origin, self.name, self.how, self.span, self.stamp]
        return hashlib.sha256(repr(named).encode()).hexdigest()[:16]

    def records(self) -> Iterator[Record | Bad]:
        """What there is, one after another.

        Raises:
            ValueError: when it cannot be opened or fetched.
        """
        if self.origin == "package":
            return packages.records(self.name)
        if self.origin == "dataset":
            return hub.records(self.name, self.how)
        path = Path(self.name)
        found = formats.records(path, self.how, self.span)
        if self.how.stretch is None or not formats.is_plain(path):
            return found
        return _passages(found, self.how.stretch)


def units(recipe: Recipe) -> list[Unit]:
    """All units of a recipe's sources.

    Raises:
        ValueError: for a source whose text is not there, cannot be read, or has no file.
    """
    return [unit for name, source in recipe.sources.items() for unit in _units(name, source, recipe)]


def _units(name: str, source: Source, recipe: Recipe) -> Iterator[Unit]:
    longest = int(recipe.bad.longest_mb * 1e6)
    how = Reading(text=source.text, id=source.id, encoding=source.encoding, stretch=source.stretch, most_bytes=longest)
    if source.package:
        yield Unit(source=name, origin="package", name=source.package, how=how)
        return
    if source.dataset:
        words = (source.dataset, source.config or "", source.split, source.revision or "")
        yield Unit(source=name, origin="dataset", name="\n".join(words), how=how)
        return
    where = f"sources.{name}.path"
    found = [path for given in source.path for path in walk.files(given, f"{where}={given}", "give a file or folder")]
    if not found:
        raise ValueError(f"{where}={','.join(source.path)} has no file: {walk.ALLOWED}")
    _check_fields(name, source, found)
    for path in dict.fromkeys(path.absolute() for path in found):
        at = path.stat()
        for span in _spans(path, at.st_size):
            part = at.st_size if span.end is None else min(span.end, at.st_size) - span.start
            stamp = f"{at.st_size} {at.st_mtime_ns}"
            yield Unit(source=name, origin="path", name=str(path), how=how, span=span, bytes=part, stamp=stamp)


def _passages(found: Iterable[Record | Bad], stretch: int) -> Iterator[Record | Bad]:
    """Long texts as passages, which are grouped by stretches."""
    for text in found:
        if isinstance(text, Bad):
            yield text
            continue
        for whole, passage in split.passages(text.text, stretch):
            yield Record(text=passage, repaired=text.repaired, group=parts.content_name(whole))


def _check_fields(name: str, source: Source, found: Sequence[Path]) -> None:
    """Refuse fields of text or name where no file has any, and stretches where none is plain text."""
    if source.stretch and not any(map(formats.is_plain, found)):
        raise ValueError(
            f"sources.{name}.stretch has no effect: it is of plain text, and no file is .txt: leave it out"
        )
    endings = {formats.ending(path).split(".")[1] for path in found}
    for key, given, without in (("text", source.text != Source.text, {"txt", "warc"}), ("id", source.id, {"txt"})):
        if given and endings <= without:
            raise ValueError(
                f"sources.{name}.{key} has no effect: its files are .{' and .'.join(sorted(endings))}, which have no "
                "such field: leave it out"
            )


def _spans(path: Path, size: int) -> list[Span]:
    """The stretches of a file that can be read by themselves: lines of JSON that are not compressed."""
    if size <= UNIT_BYTES or formats.ending(path) != ".jsonl" or _marked(path):
        return [WHOLE]
    starts = range(0, size, UNIT_BYTES)
    return [Span(start=start, end=min(start + UNIT_BYTES, size)) for start in starts]


def _marked(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return bool(streams.marked(file.read(4))[1])
    except OSError as error:
        raise streams.unreadable(path, error) from error
