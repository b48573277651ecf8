"""The folder that a command leaves: whose it is while it is made, and how it gets whole."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from gpt3core.data import writing
from gpt3core.data.prepare import checks, cleaning, filtering, parts, pipeline, read, recipe, sharding, units
from gpt3core.data.prepare.pipeline import Prepared
from gpt3core.data.prepare.schema import Recipe
from gpt3core.errors import StoreError, UsageError
from gpt3core.store import files

LOCK = ".lock"  # every command makes it first: what has it is ours
BAD = "bad.jsonl"


def whole(out: Path, asked: Recipe) -> tuple[dict[str, Any] | None, list[str]]:
    """The manifest of a folder that is whole and was made by this recipe; None for one that is new or under way.

    With it go notes: whether nobody can tell that its text is still the same, and that it was made by other rules.

    Raises:
        UsageError: when something else lies there, or it was made from other text.
    """
    if (manifest := files.find_object(out / writing.MANIFEST)) is not None:
        before, now = _flat(manifest.get("recipe", {})), _flat(recipe.as_dict(asked))
        keys = [key for key in dict.fromkeys([*before, *now]) if before.get(key) != now.get(key) and key != "name"]
        if keys:
            shown = ", ".join(f"{key} {before.get(key)} -> {now.get(key)}" for key in keys[:3])
            raise UsageError(f"out={out} was prepared by other settings ({shown:.300}): give another folder")
        return manifest, _notes(manifest, out, asked)
    entries = _entries(out)
    if entries and LOCK not in entries:
        raise UsageError(f"out={out} holds {', '.join(sorted(entries)[:3])} already: give a new or empty folder")
    return None, []


def _notes(manifest: Mapping[str, Any], out: Path, asked: Recipe) -> list[str]:
    """What is to be said of a whole folder.

    Raises:
        UsageError: when it was made from other text.
    """
    version = manifest.get("versions", {}).get("prepare", 0)
    unseen = _unseen(manifest, out, asked, version)
    found = [f"whether its text is still the same was not looked at: {unseen}"] if unseen else []
    if version != pipeline.FORMAT:
        found.append(
            f"it was prepared by version {version} of the rules, this isoflop has {pipeline.FORMAT}: runs can go on "
            "with it as it is; give another folder to prepare the text by today's"
        )
    return found


def _unseen(manifest: Mapping[str, Any], out: Path, asked: Recipe, version: int) -> str:
    """Refuse a whole folder that was made from other text; why that cannot be told, where it cannot."""
    if "text" not in manifest:
        return "it was prepared by an older isoflop, which did not note it"
    try:
        key = pipeline.text_key(units.units(asked), pipeline.evaluation_sets(asked), version)
    except (ValueError, OSError, StoreError) as error:
        return str(error)
    if key != manifest["text"]:
        raise UsageError(
            f"out={out} was prepared from other text: files of its sources or evaluation sets came, went or were "
            "written since; give another folder, or remove this one"
        )
    return ""


def _entries(out: Path) -> list[str]:
    try:
        return [path.name for path in out.iterdir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(f"out={out} is no folder that can be used ({error.strerror}): give a new one") from error


def finish(out: Path, asked: Recipe, made: Prepared, *, named: bool = True) -> dict[str, Any]:
    """Give everything its name, write the manifest and remove what stages left for one another.

    Args:
        named: whether the manifest says where the text came from, so that it is told whether that is the same still.
    """
    sources = {}
    for name, folder in made.shards.items():
        sources[name] = writing.Source(**files.read_object(folder / sharding.FACTS))
        _publish(folder / name, out / name)
    for number, folder in enumerate(made.cleaned):
        _publish_file(folder / cleaning.DECISIONS, out / checks.DECISIONS / f"part-{number:05d}.parquet")
    bad = b"".join((folder / read.BAD).read_bytes() for folder in made.read)
    files.write_bytes(out / BAD, bad)
    if made.classifier is not None:
        _publish_file(made.classifier / filtering.CLASSIFIER, out / filtering.CLASSIFIER)
    manifest = writing.finish(
        out,
        sources,
        tokenizer=asked.tokenizer,
        validation_fraction=asked.validation_fraction,
        weights=checks.mixture(asked),
        beside={**(_origin(asked, made) if named else {}), **_about(made)},
    )
    shutil.rmtree(out / pipeline.WORK, ignore_errors=True)
    return manifest


def _origin(asked: Recipe, made: Prepared) -> dict[str, Any]:
    """The recipe in full, and which text it met."""
    return {"recipe": recipe.as_dict(asked), "text": made.text}


def _about(made: Prepared) -> dict[str, Any]:
    """What else the manifest says: what was read and dropped, the filter, the evaluation sets."""
    rules: dict[str, Counter[str]] = {}
    for folder in made.cleaned:
        for name, counts in parts.counts(folder / cleaning.DECISIONS)["rules"].items():
            rules.setdefault(name, Counter()).update(counts)
    about: dict[str, Any] = {
        "read": pipeline.read_counts(made.read),
        "decided": {name: dict(counts) for name, counts in rules.items()},
        "same_name": dict(sum((Counter(parts.counts(path)["same_name"]) for path in made.parts), Counter())),
        "versions": {"isoflop": metadata.version("isoflop"), "prepare": pipeline.FORMAT},
    }
    if made.classifier is not None:
        about["filter"] = files.read_object(made.classifier / filtering.JUDGEMENT)
    if made.counts is not None and made.recounts is not None:
        before, left = (files.read_object(path / cleaning.DIRTY) for path in (made.counts, made.recounts))
        about["evaluation_sets"] = {
            name: {**left[name], "dirty_before_cut": before[name]["dirty"], "sha256": made.sets[name]} for name in left
        }
    return about


def _publish(folder: Path, out: Path) -> None:
    """Give the files of a folder a second name, so that a command killed here finds the first again."""
    for path in folder.iterdir():
        _publish_file(path, out / path.name)


def _publish_file(path: Path, out: Path) -> None:
    out.parent.mkdir(exist_ok=True)
    if out.exists() and out.samefile(path):
        return
    begun = out.with_name(f".{out.name}.tmp")
    begun.unlink(missing_ok=True)
    try:
        os.link(path, begun)
    except OSError:  # a file system without second names
        shutil.copyfile(path, begun)
    os.replace(begun, out)


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        return {k: v for name, item in value.items() for k, v in _flat(item, f"{prefix}{name}.").items()}
    return {prefix[:-1]: value}
