"""Which text it is: the starter corpus, a user's own files, or a folder that was prepared.

A text is its content, a prepared folder the content of its shards and their weights. Paths, file names, the order of
files and how they are compressed change neither its name (``fingerprint``) nor its shards.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from gpt3core.data import checked, starter, writing
from gpt3core.data.sources import own
from gpt3core.spec import PIPELINE_VERSION, DataSpec
from gpt3core.store import files


def fingerprint(corpus: str) -> str:
    """The sha256 that names a corpus's text wherever it lies, without fetching the starter corpus.

    Raises:
        ValueError: when the corpus is missing, empty or cannot be read.
    """
    if corpus == starter.NAME:
        return starter.fingerprint()
    if is_prepared(corpus):
        return prepared(corpus).corpus_sha256
    return about(corpus).sha256


def about(corpus: str) -> own.About:
    """What a user's own text is, read once while it stays as it is; raises as ``fingerprint``."""
    paths = own.text_files(corpus)
    key = f"about:{PIPELINE_VERSION}:{Path(corpus).expanduser().absolute()}"  # other rules may read it otherwise
    found = checked.remembered(key, paths, lambda: json.dumps(vars(own.about(corpus))))
    return own.About(**json.loads(found))


def is_prepared(corpus: str) -> bool:
    """Whether a corpus is a folder that was prepared, rather than text."""
    return _described(corpus) is not None


def prepared(corpus: str) -> DataSpec:
    """The specification of a folder that was prepared, as it was prepared.

    Raises:
        ValueError: for one that was not, or was in another format.
    """
    found = _manifest(corpus)
    return DataSpec(
        corpus=corpus,
        corpus_sha256=writing.identity(found),
        tokenizer=found["tokenizer"],
        validation_fraction=found["validation_fraction"],
    )


def manifest(spec: DataSpec) -> dict[str, Any]:
    """What a prepared folder says of itself.

    Raises:
        ValueError: when it is not the one specified, or was prepared in another way than the specification says.
    """
    found = _manifest(spec.corpus)
    _check_same(spec, writing.identity(found))
    for name in ("tokenizer", "validation_fraction"):
        if found[name] != getattr(spec, name):
            raise ValueError(
                f"data.{name}={getattr(spec, name)}: data.corpus={spec.corpus} was prepared with {found[name]}; give "
                f"data.{name}={found[name]}, or prepare it again"
            )
    return found


def _manifest(corpus: str) -> dict[str, Any]:
    """What a prepared folder says of itself, in today's format."""
    found = _described(corpus)
    if found is None:
        raise ValueError(
            f"corpus={corpus!r}: there is no {writing.MANIFEST} of prepared text in it: it is no prepared folder"
        )
    if (known := found["format"]) != writing.FORMAT:
        raise ValueError(
            f"data.corpus={corpus} was prepared in format {known}, this isoflop reads {writing.FORMAT}: prepare it "
            "again"
        )
    return found


def _described(corpus: str) -> dict[str, Any] | None:
    """The manifest in a folder; None where there is none, or what is called so describes something else."""
    if corpus in ("", starter.NAME):
        return None
    path = os.path.join(os.path.expanduser(corpus), writing.MANIFEST)  # noqa: PTH111, PTH118 (refuse no path)
    if not os.path.isfile(path):  # noqa: PTH113
        return None
    found = files.read_json(Path(path))
    return found if isinstance(found, dict) and {"format", "sources"} <= found.keys() else None


def check(spec: DataSpec) -> None:
    """Refuse a text that is not there, cannot be read, or is not the specified one.

    Raises:
        ValueError: what is wrong, and what to do.
    """
    check_version(spec)
    _check_same(spec, fingerprint(spec.corpus))


def _check_same(spec: DataSpec, found: str) -> None:
    """Refuse text that is not the specified one."""
    if found != spec.corpus_sha256:
        raise ValueError(
            f"corpus {spec.corpus} has sha256 {found[:12]}..., the run was specified on {spec.corpus_sha256[:12]}...: "
            "bring back that text, or start new runs on this one"
        )


def check_version(spec: DataSpec) -> None:
    """Refuse a specification whose text was prepared by other rules than today's.

    Raises:
        ValueError: naming both versions.
    """
    if spec.pipeline_version != PIPELINE_VERSION:
        raise ValueError(
            f"the run was specified with version {spec.pipeline_version} of the text's preparation, this isoflop has "
            f"{PIPELINE_VERSION}: go on with the isoflop that began it, or start new runs"
        )
