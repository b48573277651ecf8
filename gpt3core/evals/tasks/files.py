"""Items from a file that the user gives: JSON lines or one JSON document, as its benchmark publishes them.

In place of a path, ``datasets:NAME:SPLIT`` or ``datasets:NAME:CONFIG:SPLIT`` names what Hugging Face's library loads.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib
import json
import random
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from gpt3core.evals.item import Item
from gpt3core.evals.tasks.task import Material, Split

T = TypeVar("T")
Record = Mapping[str, Any]
MOST_FILES = 2
SHOWN = 80  # characters of a line in an error
DATASETS = "datasets:"
LINE = "line "  # the place of a record begins so, unless it is one of a document


def _alone(record: Record) -> Iterable[Record]:
    return (record,)


@dataclass(frozen=True, kw_only=True)
class FromFile:
    """``read`` makes an item of a record; ``fields`` says what a record has, for errors and for ``--help``.

    Where a benchmark puts several questions into a record, ``unfold`` makes records of it that ``read`` understands.
    ``document`` is the field of a record that holds a whole benchmark: its line is that of no question.
    """

    read: Callable[[Record], Item]
    fields: str
    unfold: Callable[[Record], Iterable[Record]] = _alone
    document: str | None = None

    def items(self, rng: random.Random, count: int, material: Material) -> Split:
        """``count`` questions of the first file, and the items of the second, or else all of the first."""
        if not material.paths:
            raise ValueError(f"its items come from a file, JSON lines with {self.fields}: say where it lies")
        if material.content and material.content != fingerprint(material.paths):
            raise ValueError(f"{' or '.join(material.paths)} has changed since the evaluation was asked for: ask again")
        questions, *examples = (self._read(path) for path in material.paths)
        if count > len(questions):
            raise ValueError(
                f"{material.paths[0]} has {len(questions)} items, and {count} are asked for: set items lower"
            )
        shuffled = rng.sample(questions, len(questions))  # the first are the same, however many are asked
        return Split(queries=shuffled[:count], pool=examples[0] if examples else questions)

    def _read(self, path: str) -> list[Item]:
        return [
            replace(item, number=number if place.startswith(LINE) and self.document not in whole else None)
            for number, (place, whole) in enumerate(records(path))
            for item in self._items(whole, f"{path}, {place}")
        ]

    def _items(self, whole: Record, where: str) -> list[Item]:
        record, found = whole, []
        try:
            for record in self.unfold(whole):
                item = self.read(record)
                for name in ("context", "answer"):
                    text(vars(item), name)
                found.append(item)
            return found
        except KeyError as error:
            has = ", ".join(record) or "nothing"
            raise ValueError(f"{where} has no {error.args[0]!r}: {self.fields} are needed, and it has {has}") from error
        except (ValueError, IndexError) as error:
            raise ValueError(f"{where} is no such item ({error}): {self.fields} are needed") from error
        except (TypeError, AttributeError) as error:
            has = ", ".join(f"{name} {json.dumps(value):.20}" for name, value in record.items())
            raise ValueError(f"{where} is no such item (it has {has:.200}): {self.fields} are needed") from error


def located(paths: Sequence[str]) -> tuple[str, ...]:
    """The files of a task wherever a process runs: absolute.

    Raises:
        ValueError: for more than two.
    """
    if len(paths) > MOST_FILES:
        raise ValueError(f"{len(paths)} files: give that of the questions, and that of the examples if it is another")
    return tuple(p if p.startswith(DATASETS) else str(Path(p).expanduser().absolute()) for p in paths)


def records(path: str) -> list[tuple[str, Record]]:
    """The records of a file, .gz or not, with their places: of JSON lines, or of one JSON document, a list or alone.

    Raises:
        ValueError: in one sentence, for a file that cannot be read or a damaged line.
    """
    content = _text(path).removeprefix("\ufeff")
    lines = [(f"{LINE}{number}", line) for number, line in enumerate(content.split("\n"), 1) if line.strip()]
    found: list[tuple[str, Any]]
    try:
        found = [(place, _parsed(line, f"{path}, {place}")) for place, line in lines]
    except ValueError as of_line:
        try:
            found = [("record 1", _parsed(content, path))]
        except ValueError:
            if lines[0][1].lstrip().startswith("[") or lines[0][1].strip() == "{":  # no line of JSON lines
                raise
            raise of_line from None
    if len(found) == 1 and isinstance(found[0][1], list):
        found = [(f"record {number}", record) for number, record in enumerate(found[0][1], 1)]
    for place, record in found:
        if not isinstance(record, dict):
            raise ValueError(f"{path}, {place} is no JSON object: {json.dumps(record)[:SHOWN]}")
    if not found:
        raise ValueError(f"{path} is empty")
    return found


def _parsed(content: str, where: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:  # the first also for a number of thousands of digits
        raise ValueError(f"{where} is not JSON ({error}): {content[:SHOWN]!r}") from error


def fingerprint(paths: Sequence[str]) -> str:
    """sha256 of the content of the files in their order, wherever they lie.

    Raises:
        ValueError: for one that cannot be read.
    """
    return hashlib.sha256("\n".join(map(digest, paths)).encode()).hexdigest()


def digest(path: str) -> str:
    """sha256 of the content of one file, however it is compressed.

    Raises:
        ValueError: when it cannot be read.
    """
    return hashlib.sha256(_text(path).encode()).hexdigest()


def _text(path: str) -> str:
    """The JSON lines of a file or of a split of ``datasets``."""
    if path.startswith(DATASETS):
        return "\n".join(json.dumps(row, ensure_ascii=False, default=str) for row in _split(path))
    try:
        raw = Path(path).expanduser().read_bytes()
        return (gzip.decompress(raw) if path.endswith(".gz") else raw).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is a damaged gzip file ({error})") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error})") from error


def _split(path: str) -> Iterable[Record]:
    """The rows of a split: from its cache, or over the network."""
    name, *rest = path.removeprefix(DATASETS).split(":")
    if len(rest) not in (1, 2) or not all((name, *rest)):
        raise ValueError(f"{path}: {DATASETS}NAME:SPLIT or {DATASETS}NAME:CONFIG:SPLIT is meant")
    try:
        datasets = importlib.import_module("datasets")
    except ImportError as error:
        raise ValueError(f"{path} needs Hugging Face's library: pip install datasets") from error
    try:
        found: Iterable[Record] = datasets.load_dataset(name, *rest[:-1], split=rest[-1])
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} cannot be loaded ({' '.join(str(error).split())[:300]})") from error
    return found


def meant(record: Record, name: str, allowed: Mapping[Any, T]) -> T:
    """What a field's value stands for.

    Raises:
        ValueError: when it is none that is allowed.
    """
    value = record[name]
    truth = isinstance(value, bool) and not any(isinstance(one, bool) for one in allowed)  # which equals 1 or 0
    if truth or isinstance(value, list | dict) or value not in allowed:
        raise ValueError(f"{name} is {value!r:.50}, and {', '.join(map(repr, allowed))} are allowed")
    return allowed[value]


def text(record: Record, name: str) -> str:
    """A field that is read as text.

    Raises:
        ValueError: when it is none, or blank.
    """
    value = record[name]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"its {name} is no text: {value!r:.50}")
    return value


def listed(record: Record, name: str) -> list[Any]:
    """A field that is a list.

    Raises:
        ValueError: when it is none.
    """
    if not isinstance(record[name], list):
        raise ValueError(f"its {name} is no list: {record[name]!r:.50}")
    return list(record[name])


def texts(record: Record, name: str) -> list[str]:
    """A field that is a list of texts.

    Raises:
        ValueError: when it is no list, or one of it is none, or blank.
    """
    each = {f"{name}[{place}]": value for place, value in enumerate(listed(record, name))}
    return [text(each, one) for one in each]


def capital(sentence: str) -> str:
    """With a capital where it begins."""
    return f"{sentence[0].upper()}{sentence[1:]}"


def counted(record: Record, name: str, choices: Sequence[Any], first: int = 0) -> int:
    """Which of some choices a field counts, from 0; in the record the first is ``first``, as a number or in digits.

    Raises:
        ValueError: when it is none of them.
    """
    return meant(record, name, {form(first + n): n for n in range(len(choices)) for form in (int, str)})


def chosen(context: str, choices: Sequence[str], right: int) -> Item:
    """A multiple choice; every choice gets its space.

    Raises:
        ValueError: when the right one is none of them.
    """
    if not 0 <= right < len(choices):
        raise ValueError(f"the right choice is number {right} of {len(choices)}, counted from 0")
    spaced = tuple(f" {choice.strip()}" for choice in choices)
    return Item(context=context, answer=spaced[right], choices=spaced)


def _released(record: Record) -> Item:
    """GPT-3's released files: a context with the delimiter before it, and a completion."""
    choices = tuple(texts(record, "choices")) if "choices" in record else ()
    return Item(context=record["context"].lstrip("\n"), answer=record["completion"], choices=choices)


RELEASED = FromFile(read=_released, fields="context and completion (and choices)")
