"""Data sets by their name on the hub, streamed through the library ``datasets``; a folder of one needs no network."""

from __future__ import annotations

from collections.abc import Iterator

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
    try:
        import datasets
    except ImportError:
        raise ValueError(f'{name} is read by the package datasets: pip install "isoflop[datasets]"') from None
    try:
        rows = datasets.load_dataset(name, config or None, split=split, revision=revision or None, streaming=True)
        for number, row in enumerate(rows, start=1):
            if how.text not in row:
                raise ValueError(f"it has no column {how.text} but {', '.join(row)}: name one by text=")
            yield from formats.checked(row[how.text], row.get(how.id) if how.id else None, f"row {number}", how)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        said = " ".join(str(error).split())
        raise ValueError(f"the data set {name}, split {split}, cannot be read ({said:.200})") from error
