"""What a source of a corpus may be called: its shards lie in a folder of that name."""

from __future__ import annotations

import re

from gpt3core.data import episodes

NAME = re.compile(rf"(?!{episodes.NAME}\Z)[A-Za-z0-9][A-Za-z0-9_-]{{0,63}}")  # generated text has that one


def check(source: str) -> None:
    """Refuse what is no name of a source.

    Raises:
        ValueError: what a name may be.
    """
    if not NAME.fullmatch(source):
        raise ValueError(
            f"source {source!r:.80}: letters, digits, - and _ make its name, and at most 64 of them; "
            f"{episodes.NAME} is the name of generated text"
        )
