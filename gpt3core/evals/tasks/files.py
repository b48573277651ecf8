"""Items from a file that the user gives: JSON lines, an item each, as its benchmark publishes them."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt3core.evals.item import Item
from gpt3core.evals.tasks.task import Material, Split

Record = Mapping[str, Any]
MOST_FILES = 2
SHOWN = 80  # characters of a line in an error


@dataclass(frozen=True, kw_only=True)
class FromFile:
    """``read`` makes an item of a record; ``fields`` says what a record has, for errors and for ``--help``."""

    read: Callable[[Record], Item]
    fields: str

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
        return Split(queries=rng.sample(questions, count), pool=examples[0] if examples else questions)

    def _read(self, path: str) -> list[Item]:
        return [self._item(record, f"{path}, line {number}") for number, record in records(path)]

    def _item(self, record: Record, where: str) -> Item:
        try:
            return self.read(record)
        except KeyError as error:
            has = ", ".join(record) or "nothing"
            raise ValueError(f"{where} has no {error.args[0]!r}: {self.fields} are needed, and it has {has}") from error
        except (ValueError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(f"{where} is no such item ({error}): {self.fields} are needed") from error


def records(path: str) -> list[tuple[int, Record]]:
    """The records of a file of JSON lines, .gz or not, with their line numbers; empty lines are none.

    Raises:
        ValueError: in one sentence, for a file that cannot be read or a damaged line.
    """
    found = []
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"{path}, line {number} is not JSON ({error}): {line[:SHOWN]!r}") from error
        if not isinstance(record, dict):
            raise ValueError(f"{path}, line {number} is no JSON object: {line[:SHOWN]!r}")
        found.append((number, record))
    if not found:
        raise ValueError(f"{path} is empty")
    return found


def fingerprint(paths: Sequence[str]) -> str:
    """sha256 of the content of the files in their order, wherever they lie.

    Raises:
        ValueError: for one that cannot be read.
    """
    digests = [hashlib.sha256(_text(path).encode()).hexdigest() for path in paths]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _text(path: str) -> str:
    try:
        raw = Path(path).expanduser().read_bytes()
        return (gzip.decompress(raw) if path.endswith(".gz") else raw).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is a damaged gzip file ({error})") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error})") from error


def _released(record: Record) -> Item:
    """GPT-3's released files: a context with the delimiter before it, and a completion."""
    return Item(
        context=record["context"].lstrip("\n"), answer=record["completion"], choices=tuple(record.get("choices", ()))
    )


RELEASED = FromFile(read=_released, fields="context and completion (and choices)")
