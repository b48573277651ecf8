"""The words of the commands that only read: ``key=value``, ``--flags``, and runs named without a key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gpt3core import hints
from gpt3core.errors import UsageError
from gpt3core.store import places, rundir

SHOWN = 80


@dataclass(frozen=True, kw_only=True)
class Words:
    """A command's words, sorted."""

    settings: dict[str, str] = field(default_factory=dict)
    flags: set[str] = field(default_factory=set)
    named: list[str] = field(default_factory=list)  # words without a key


def parse(argv: Sequence[str], *, keys: Sequence[str], flags: Sequence[str], named: int = 0, command: str) -> Words:
    """Sort them.

    Args:
        keys: known settings; each may be written ``--key value`` and ``--key=value`` too.
        named: how many words may stand without a key.

    Raises:
        UsageError: for any word that is none of these, or given twice.
    """
    found, rest = Words(), list(argv)
    while rest:
        word = rest.pop(0)
        key, equals, value = word.lstrip("-").partition("=")
        if word in flags:
            found.flags.add(word)
        elif key in keys and (equals or word.startswith("--")):
            if not equals:
                if not rest:
                    raise UsageError(f"{word} needs a value: {key}=...")
                value = rest.pop(0)
            if key in found.settings:
                raise UsageError(f"{word:.80}: {key}={found.settings[key]:.80} was given too; leave one out")
            found.settings[key] = value
        elif word.startswith("-"):
            known = [*flags, *(f"--{key}=" for key in keys)]
            raise UsageError(f"unknown flag {word:.80}{hints.nearest(word, known)}; {command} takes {', '.join(known)}")
        elif equals:
            raise UsageError(f"unknown key {key[:SHOWN]!r}{hints.nearest(key, keys)}; {command} takes {_listed(keys)}")
        elif len(found.named) < named:
            found.named.append(word)
        else:
            raise UsageError(f"{word[:SHOWN]!r}: {command} takes {_listed([*keys])} and flags {', '.join(flags)}")
    return found


def number(text: str, key: str) -> int:
    """A whole number of 1 or more.

    Raises:
        UsageError: where it is none.
    """
    if not (text.isascii() and text.isdecimal() and int(text) >= 1):
        raise UsageError(f"{key}={text[:SHOWN]}: a whole number of 1 or more")
    return int(text)


def root(text: str | None) -> Path:
    """The store that is meant, as an absolute path."""
    return places.local(text) if text else rundir.default_root()


def _listed(keys: Sequence[str]) -> str:
    return ", ".join(f"{key}=" for key in keys)


def printable(text: str) -> str:
    """What somebody else wrote as it can stand in a line: no control characters, no escapes of a terminal."""
    return "".join(c if c.isprintable() else " " for c in text)
