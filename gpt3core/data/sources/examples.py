"""The text of an evaluation set's examples, to be looked for in training text: strict, every line is one or refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpt3core.data.sources import streams
from gpt3core.data.sources.record import DamagedError


def name(path: Path) -> str:
    """What an evaluation set is called, by its file."""
    return path.name.split(".")[0]


def texts(path: Path) -> list[str]:
    """The text of each example: all strings of a line's object of JSON, or a line of plain text.

    Raises:
        ValueError: for a file without examples, or one that cannot be read.
    """
    as_json = ".jsonl" in path.name.lower()
    try:
        found = [
            "\n".join(_strings(json.loads(line))) if as_json else line.decode("utf-8-sig")
            for _, line, _ in streams.lines(streams.blocks(path))
            if line.strip()
        ]
    except (DamagedError, ValueError, RecursionError) as error:
        raise ValueError(f"the evaluation set {path} cannot be read ({error!s:.200}): bring a sound copy") from error
    if not any(map(str.strip, found)):
        raise ValueError(f"the evaluation set {path} has no examples: give its text, or leave it out")
    return found


def fingerprint(path: Path) -> str:
    """The sha256 of the content, however it is compressed: an evaluation task knows its file by it."""
    digest = hashlib.sha256()
    for block in streams.blocks(path):
        digest.update(block)
    return digest.hexdigest()


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)
