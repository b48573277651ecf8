"""Data sets by their name on the hub, streamed through the library ``datasets``; a folder of one needs no network."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from gpt3core.data.sources import formats
from gpt3core.data.sources.record import Bad, Reading, Record


def records(named: str, how: Reading) -> Iterator[Record | Bad]:
    """The rows of a split.

    Args:
        named: the name, the configuration, the split and the revision, a line each; empty for the default.

    Raises:
        ValueError: when it is not there, or the library or the network is not.
    """
    name, config, split, revision = named.split("\n")
    what = f"the data set {name}, split {split},"
    for number, row in enumerate(_rows(name, config or None, split, revision or None, what), start=1):
        if how.text not in row:
            raise ValueError(f"{what} has no column {how.text} but {', '.join(row)}: name one by text=")
        yield from formats.checked(row[how.text], row.get(how.id) if how.id else None, f"row {number}", how)


def _rows(name: str, config: str | None, split: str, revision: str | None, what: str) -> Iterator[Mapping[str, Any]]:
    try:
        import datasets
    except ImportError:
        raise ValueError(f'{name} is read by the package datasets: pip install "isoflop[datasets]"') from None
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it tells of each of its tries to reach the network
    try:
        yield from datasets.load_dataset(name, config, split=split, revision=revision, streaming=True)
    except Exception as error:  # those of the library, of formats and of networks have nothing in common
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{what} cannot be read ({said:.200}): check its name, config and split, and the network, or bring its "
            "files and give their folder in place of its name"
        ) from error
