"""What a data recipe may say, and which of its keys would change nothing."""

from __future__ import annotations

from collections.abc import Sequence

from gpt3core.data import names, split, weights
from gpt3core.data import tokenizer as tokenizers
from gpt3core.data.prepare.schema import ENCODINGS, ORIGINS, ROLES, Recipe, Source
from gpt3core.data.sources import packages
from gpt3core.errors import UsageError

DECISIONS = "decisions"  # the folder of the log, which lies among those of the sources
RULES = {"quality": ("pareto", "none"), "dedup": ("fuzzy", "gpt3", "none")}
SWITCHES = ("quality.rule", "dedup.rule", "decontaminate.against")  # each turns its section off and on
OF_DATASETS = ("config", "split", "revision")
FIELDS = ("text", "id", "encoding")  # of files


def check(recipe: Recipe, given: Sequence[str]) -> None:
    """Refuse what cannot be prepared.

    Args:
        given: the dotted keys that somebody wrote, as against defaults.

    Raises:
        UsageError: what was given, what is allowed, and what to do.
    """
    if not recipe.sources:
        raise UsageError(f"the recipe {recipe.name} has no sources: give sources: {{NAME: {{path: FILE_OR_FOLDER}}}}")
    tokenizers.vocab_size(recipe.tokenizer)
    for name, source in recipe.sources.items():
        _check_source(name, source)
    mixture(recipe)
    for section, allowed in RULES.items():
        if (rule := getattr(recipe, section).rule) not in allowed:
            raise UsageError(f"{section}.rule={rule!r:.50}: allowed are {', '.join(allowed)}")
    _check_numbers(recipe)
    _check_effect(recipe, given)


def _check_source(name: str, source: Source) -> None:
    where = f"sources.{name}"
    names.check(name)
    if name == DECISIONS:
        raise UsageError(f"{where}: that folder is the log's: give the source another name")
    origins = [origin for origin in ORIGINS if getattr(source, origin)]
    if len(origins) != 1:
        raise UsageError(f"{where} has {' and '.join(origins) or 'no text'}: give one of {', '.join(ORIGINS)}")
    for key, allowed in (("role", ROLES), ("encoding", ENCODINGS), ("package", (None, *packages.NAMES))):
        if (value := getattr(source, key)) not in allowed:
            raise UsageError(f"{where}.{key}={value!r:.50}: allowed are {', '.join(filter(None, allowed))}")


def mixture(recipe: Recipe) -> dict[str, float] | None:
    """The sources' weights, which add up to one; None where they are to follow from the sources' sizes.

    Raises:
        ValueError: for weights that do not add up to 1 or 100, or that some sources lack.
    """
    given = {name: source.weight for name, source in recipe.sources.items() if source.weight is not None}
    if given and (missing := [name for name in recipe.sources if name not in given]):
        raise UsageError(f"sources.{missing[0]}.weight is missing: give every source's weight, or none")
    return weights.normalised(given, key="sources.*.weight") if given else None


def _check_numbers(recipe: Recipe) -> None:
    """Every number within its bounds."""
    quality, cut, bad = recipe.quality, recipe.decontaminate, recipe.bad
    bounds = {
        "validation_fraction": (recipe.validation_fraction, 1e-9, 1 - 1e-9),
        "seed": (recipe.seed, 0, 2**63 - 1),
        "quality.alpha": (quality.alpha, 1e-9, 1e9),
        "quality.train_documents": (quality.train_documents, 1, 10**9),
        "decontaminate.gram": (cut.gram, 1, 1000),
        "decontaminate.window": (cut.window, 0, 10**9),
        "decontaminate.shortest": (cut.shortest, 0, 10**9),
        "decontaminate.most_pieces": (cut.most_pieces, 1, 10**9),
        "decontaminate.common": (cut.common, 0, 10**12),
        "bad.share": (bad.share, 0, 1),
        "bad.files": (bad.files, 0, 10**9),
        "bad.longest_mb": (bad.longest_mb, 1e-3, 1024),
        **{
            f"sources.{name}.stretch": (source.stretch, split.GROUP_CHARS_MIN, 10**9)
            for name, source in recipe.sources.items()
            if source.stretch is not None
        },
    }
    for key, (value, low, high) in bounds.items():
        if not low <= value <= high:
            raise UsageError(f"{key}={value:g}: it lies between {low:g} and {high:g}")


def _check_effect(recipe: Recipe, given: Sequence[str]) -> None:
    """Refuse keys that somebody wrote and that change nothing in this recipe."""
    why = {
        f"{section}.": f"with {section}.rule=none it changes nothing: leave it out, or give another rule"
        for section in RULES
        if getattr(recipe, section).rule == "none"
    }
    if not recipe.filters:
        why.setdefault(
            "quality.",
            "the filter needs a source with role: web and one with role: curated; leave it out, or say which",
        )
        why["seed"] = "nothing is drawn but by the filter, and nothing is filtered: leave it out"
    if not any(source.path for source in recipe.sources.values()):
        why |= {f"bad.{key}": "it is of files, and no source has any: leave it out" for key in ("longest_mb", "files")}
    if all(source.package for source in recipe.sources.values()):
        why["bad.share"] = "text of packages is never bad: leave it out"
    if not recipe.decontaminate.against:
        why["decontaminate."] = "there are no evaluation sets: name them by decontaminate.against, or leave it out"
    if len(recipe.sources) == 1:
        why["dedup.across"] = "there is one source only: leave it out"
    for name, source in recipe.sources.items():
        if not source.dataset:
            why |= {f"sources.{name}.{key}": "it is of data sets only: leave it out" for key in OF_DATASETS}
        if not source.path:
            why[f"sources.{name}.stretch"] = "it is of plain text in files: leave it out"
        if source.package:
            why |= {f"sources.{name}.{key}": "a package's text has no fields: leave it out" for key in FIELDS}
    for key in given:
        for beginning, reason in why.items():
            inside = key.startswith(beginning) if beginning.endswith(".") else key == beginning
            if inside and key not in SWITCHES:
                raise UsageError(f"{key} has no effect: {reason}")
