"""The data recipe, from a file and the words over it; a key without effect is an unknown key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from gpt3core import cli, hints
from gpt3core.data.prepare import checks
from gpt3core.data.prepare.schema import Recipe, Source
from gpt3core.errors import UsageError

FOLDER = Path(__file__).parent.parent / "recipes"
KEYS = f"python -m gpt3core.data.prepare {cli.ALL_KEYS}"


def available() -> list[str]:
    """Names of the recipes that come with isoflop."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(settings: Sequence[str], *, own: Sequence[str] = ()) -> Recipe:
    """The recipe that ``recipe=NAME_OR_FILE`` names, with the other ``key=value`` settings over it, checked.

    Args:
        own: keys of the command itself, which a wrong one may have meant.

    Raises:
        UsageError: for an unknown recipe or key, a wrong value, and a key that changes nothing.
    """
    chosen = [s.split("=", 1)[1] for s in settings if s.startswith("recipe=")]
    typed = [s for s in settings if not s.startswith("recipe=")]
    if len(chosen) != 1:
        named = " and ".join(f"recipe={name:.80}" for name in chosen) or "none"
        raise UsageError(f"one recipe is needed, not {named}: recipe=NAME of {', '.join(available())}, or a .yaml file")
    path = cli.recipe_file(chosen[0], FOLDER, available)
    written = cli.read_yaml(path)
    keys = f"{KEYS} recipe={chosen[0]}"
    words = [setting.partition("=")[0] for setting in typed]
    given = [*cli.dotted(written), *words]
    _check_source_keys(given, keys)
    base = cli.merge_config(Recipe, {"name": path.stem, **written}, str(path), command=keys)
    recipe: Any = cli.to_object(cli.merge(base, typed, command=keys, beside=own), str(path))
    assert isinstance(recipe, Recipe)
    switched = [f"{key.partition('.')[0]}." for key in words if key in checks.SWITCHES]  # by the command
    switched += ["seed"] if "quality.rule" in words else []  # which the filter alone draws by
    checks.check(recipe, [*(key for key in cli.dotted(written) if not key.startswith(tuple(switched))), *words])
    return recipe


def to_yaml(recipe: Recipe) -> str:
    """The whole recipe, defaults included, as YAML that ``recipe=PATH`` reads back."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.structured(recipe))


def as_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain data."""
    from omegaconf import OmegaConf

    found = OmegaConf.to_container(OmegaConf.structured(recipe))
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


def _check_source_keys(given: Sequence[str], command: str) -> None:
    """Refuse keys that no source has; the names of sources are the recipe's own."""
    known = [f.name for f in fields(Source)]
    for key in given:
        section, *rest = key.split(".", 2)
        if section == "sources" and len(rest) > 1 and (word := rest[1]) not in known:
            meant = hints.nearest(word, known) or ";"
            raise UsageError(f"unknown key {key!r:.200}{meant} a source has {', '.join(known)}; {command} prints all")
