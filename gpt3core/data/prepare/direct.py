"""The text that a run names by ``data.corpus``, rather than a folder that was prepared: by the same stages, in one go.

The starter text is the recipe of that name. A user's own text is a source of all its files, of which nothing may be
bad. What lies in the folder follows from the content alone, so nothing in it tells of paths or times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gpt3core import pulse
from gpt3core.data import corpus as corpora
from gpt3core.data import starter
from gpt3core.data.prepare import folder, pipeline, recipe, sharding, units
from gpt3core.data.prepare.schema import Bad, Quality, Recipe, Source
from gpt3core.data.prepare.task import Task
from gpt3core.data.sources import own
from gpt3core.errors import StoreError
from gpt3core.spec import DataSpec


def asked(spec: DataSpec) -> Recipe:
    """The recipe of a text.

    Raises:
        ValueError: when it is missing, empty or cannot be read.
    """
    if spec.corpus == starter.NAME:
        return replace(
            recipe.load([f"recipe={starter.NAME}"]),
            tokenizer=spec.tokenizer,
            validation_fraction=spec.validation_fraction,
        )
    stretch = corpora.about(spec.corpus).stretch(spec.validation_fraction)
    return Recipe(
        name=own.SOURCE,
        tokenizer=spec.tokenizer,
        validation_fraction=spec.validation_fraction,
        sources={own.SOURCE: Source(path=[spec.corpus], stretch=stretch)},
        quality=Quality(rule="none"),
        bad=Bad(share=0.0),
    )


def write(spec: DataSpec, out: Path) -> None:
    """Fill a folder with the shards of a text. What the disk refuses goes through.

    Raises:
        ValueError: when it is missing, empty, cannot be read or cannot be split.
    """
    how = asked(spec)
    try:
        folder.finish(out, how, pipeline.stages(how, units.units(how), out / pipeline.WORK, _do), named=False)
    except sharding.OnePieceError as error:
        raise ValueError(
            f"corpus={spec.corpus!r} is one piece of {corpora.about(spec.corpus).bytes} bytes, near-copies left out, "
            "which cannot be split into training and validation text: give more text"
        ) from error
    except StoreError as error:
        if isinstance(error.__cause__, OSError):  # the stages explain it for a command that goes on
            raise error.__cause__ from None
        raise


def _do(_: str, tasks: Sequence[Task]) -> None:
    for one in tasks:
        if not one.done:
            one.out.parent.mkdir(parents=True, exist_ok=True)
            one.work(one.out, **one.given)
            pulse.beat()
