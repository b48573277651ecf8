"""One command-line grammar: ``key=value`` over typed dataclasses for what is computed, ``--flags`` for what is done."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from gpt3core.errors import StoreError, UsageError

T = TypeVar("T")


def split(argv: Sequence[str], flags: Sequence[str]) -> tuple[list[str], set[str]]:
    """Separate ``key=value`` settings from flags.

    Raises:
        UsageError: for an unknown flag, or a word that is neither.
    """
    settings, given = [], set()
    for word in argv:
        if word in flags:
            given.add(word)
        elif word.startswith("-"):
            raise UsageError(f"unknown flag {word}{nearest(word, flags)}; flags are {', '.join(flags)}")
        elif "=" in word:
            settings.append(word)
        else:
            raise UsageError(f"{word!r} is neither key=value nor a flag ({', '.join(flags)})")
    return settings, given


def merge(base: Any, settings: Sequence[str]) -> Any:
    """Typed settings over a structured OmegaConf node (a dataclass, or one already merged with a recipe).

    Raises:
        UsageError: for an unknown key (naming the nearest known one) or a value of the wrong type.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    config = base if OmegaConf.is_config(base) else OmegaConf.structured(base)
    mappings = [key for key in config if OmegaConf.get_type(config, key) is dict]
    for setting in settings:
        key = setting.split("=", 1)[0]
        check_keys(config, [key])
        try:
            given = OmegaConf.from_dotlist([setting])
            if OmegaConf.is_dict(OmegaConf.select(given, key)) and key in mappings:
                OmegaConf.update(config, key, {}, merge=False)  # a mapping is replaced, as a list is
            config = OmegaConf.merge(config, given)
        except (OmegaConfBaseException, ValueError, YAMLError) as error:
            said = str(error).splitlines()
            reason = " ".join(said[-2:] if isinstance(error, YAMLError) else said[:1])
            raise UsageError(f"{setting}: {reason}; {key} is {_describe(config, key)} now") from error
    return config


def settings(defaults: T, argv: Sequence[str]) -> T:
    """A dataclass of defaults with the ``key=value`` words of a command over it.

    Raises:
        UsageError: for a flag other than --help, an unknown key or a wrong value.
    """
    from omegaconf import OmegaConf

    words, _ = split(argv, ("--help",))
    given = OmegaConf.to_object(merge(defaults, words))
    assert isinstance(given, type(defaults))
    return given


def merge_config(schema: Any, written: Any, where: str) -> Any:
    """A configuration file over a schema; UsageError names the file for a value of the wrong type."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.merge(schema, written)
    except (OmegaConfBaseException, ValueError) as error:
        raise UsageError(f"{where}: {' '.join(str(error).split())}") from error


def check_keys(config: Any, keys: Sequence[str]) -> None:
    """Refuse keys that the configuration does not have."""
    from omegaconf import OmegaConf

    known = known_keys(config)
    mappings = tuple(f"{key}." for key in config if OmegaConf.get_type(config, key) is dict)
    for key in keys:
        if key not in known and not key.startswith(mappings):
            raise UsageError(f"unknown key {key!r}{nearest(key, known)}; known keys are {', '.join(sorted(known))}")


def known_keys(config: Any, prefix: str = "") -> list[str]:
    """All dotted keys of a configuration."""
    from omegaconf import DictConfig

    keys = []
    for name in config:
        keys.append(f"{prefix}{name}")
        if isinstance(config._get_node(name), DictConfig) and config._get_node(name)._content is not None:
            keys.extend(known_keys(config[name], f"{prefix}{name}."))
    return keys


def nearest(word: str, known: Sequence[str]) -> str:
    """``, did you mean X?`` or nothing."""
    matches = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f", did you mean {matches[0]}?" if matches else ""


def _describe(config: Any, key: str) -> str:
    from omegaconf import OmegaConf

    value = OmegaConf.select(config, key)
    return f"{type(value).__name__} {value!r}"


def run(main: Callable[[list[str]], int]) -> None:
    """Run a command: one sentence and a non-zero exit for whatever its user can mend; a traceback is a defect of
    ours.
    """
    try:
        code = main(sys.argv[1:])
    except (UsageError, StoreError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except ValueError as error:
        if error.__traceback__ is not None and _from_library(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        code = 141
    sys.stdout.flush()
    sys.exit(code)


def _from_library(error: BaseException) -> bool:
    """Whether an error was raised outside isoflop: then it is a defect, not a user's mistake."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame is not None and "site-packages" in frame.tb_frame.f_code.co_filename
