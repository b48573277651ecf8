"""One command-line grammar: ``key=value`` over typed dataclasses for what is computed, ``--flags`` for what is done."""

from __future__ import annotations

import copy
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import is_dataclass
from functools import cache, lru_cache
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, cast, get_args, get_origin

from gpt3core import terminal
from gpt3core.checks import field_types
from gpt3core.errors import PACKAGES, LostError, StoreError, UsageError, from_library, of_machine
from gpt3core.hints import nearest, nearest_keys, short

T = TypeVar("T")

MAX_BYTES = 1_000_000  # of a file of settings
MAX_NODES = 100_000  # of what its aliases stand for
ALL_KEYS = "--keys"  # the flag of a command
KEPT = 16  # files of settings, read and merged, that a process keeps
_MERGED: dict[tuple[type, str], Any] = {}


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
            raise UsageError(f"unknown flag {short(word)}{nearest(word, flags)}; flags are {', '.join(flags)}")
        elif "=" in word:
            settings.append(word)
        else:
            raise UsageError(f"{short(word)!r} is neither key=value nor a flag ({', '.join(flags)})")
    return settings, given


def settings(defaults: T, argv: Sequence[str], *, beside: Sequence[str] = ()) -> T:
    """A dataclass of defaults with the ``key=value`` words of a command over it; ``--keys`` prints them and ends.

    Args:
        beside: keys that the command took out before (``verbatim``), which a wrong one may have meant.

    Raises:
        UsageError: for a flag other than --help and --keys, an unknown key or a wrong value.
    """
    from omegaconf import OmegaConf

    words, flags = split(argv, ("--help", "--keys"))
    given = to_object(merge(defaults, words, command=f"{_command()} --keys".strip(), beside=beside), "settings")
    assert isinstance(given, type(defaults))
    if "--keys" in flags:
        print(OmegaConf.to_yaml(OmegaConf.structured(given)), end="")
        raise SystemExit(0)
    return given


def verbatim(argv: Sequence[str], keys: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The words without ``key=TEXT``, and these texts just as they were typed: YAML would read a number or a list.

    Raises:
        UsageError: when a key is given twice.
    """
    rest: list[str] = []
    texts: dict[str, str] = {}
    for word in argv:
        key, equals, text = word.partition("=")
        if not equals or key not in keys:
            rest.append(word)
        elif key in texts:
            raise UsageError(f"{short(word)}: {key}={short(texts[key])} was given too; leave one out")
        else:
            texts[key] = text
    return rest, texts


def _command() -> str:
    """How this process was started, if by one of isoflop's commands; nothing where another program uses it."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    name = "" if spec is None else spec.name.removesuffix(".__main__")
    return f"python -m {name}" if name.partition(".")[0] in PACKAGES else ""


# ------------------------------------------------------------------------------------------------------------ merging


def merge(base: Any, settings: Sequence[str], *, command: str = ALL_KEYS, beside: Sequence[str] = ()) -> Any:
    """Typed settings over a dataclass, or over what ``merge_config`` returned, which is changed in place.

    A scalar is taken where a list of one is meant.

    Args:
        command: prints all keys; errors name it.
        beside: as of ``settings``.

    Raises:
        UsageError: for an unknown key (naming the nearest ones), one given twice, or a value of the wrong type.
    """
    import yaml
    from omegaconf import OmegaConf

    config = base if OmegaConf.is_config(base) else OmegaConf.structured(base)
    kind: Any = OmegaConf.get_type(config)
    mappings = _keys_of(kind)[1]
    seen: dict[str, str] = {}
    for setting in settings:
        key = setting.split("=", 1)[0]
        check_keys(config, [key], command=command, beside=beside)
        if setting.partition("=")[2].strip() == "":
            raise UsageError(f"{short(setting)} has no value: give one, null for none, or '' for an empty text")
        if key in seen:
            raise UsageError(f"{short(setting)}: {short(seen[key])} was given too; leave one out")
        seen[key] = setting
        try:
            if twice := _spelt_twice(yaml.compose(setting.partition("=")[2], Loader=yaml.SafeLoader)):
                raise ValueError(twice)
            plain = OmegaConf.to_container(OmegaConf.from_dotlist([setting]))
            if key in mappings and isinstance(_at(plain, key), dict):
                OmegaConf.update(config, key, {}, merge=False)  # a mapping is replaced, as a list is
            config = OmegaConf.unsafe_merge(config, OmegaConf.create(_listed(kind, plain)))  # ours: no copy is needed
        except _unusable() as error:
            whole, _, entry = key.rpartition(".")
            now = f"{key} is {_describe(config, key)} now"
            hint = f"give the whole mapping, {whole}='{{{entry}: ...}}'" if whole in mappings else now
            raise UsageError(f"{short(setting)}: {_reason(error)}; {hint}") from error
    return config


def _at(plain: Any, key: str) -> Any:
    """What plain data holds at a dotted key."""
    for name in key.split("."):
        plain = plain.get(name) if isinstance(plain, dict) else None
    return plain


def merge_config(schema: type, written: Any, where: str, *, command: str = ALL_KEYS) -> Any:
    """A file's plain data over a dataclass; UsageError names the file of an unknown key or a wrong value."""
    from omegaconf import OmegaConf

    key = schema, repr(written)
    if key not in _MERGED:  # a command merges its recipe once more for every word of its line
        config = copy.deepcopy(_defaults(schema))
        try:
            check_keys(config, dotted(written), command=command)
            merged = OmegaConf.unsafe_merge(config, OmegaConf.create(_listed(OmegaConf.get_type(config), written)))
        except _unusable() as error:
            raise UsageError(f"{where}: {_reason(error)}") from error
        if len(_MERGED) == KEPT:
            _MERGED.clear()
        _MERGED[key] = merged
    return copy.deepcopy(_MERGED[key])


@cache
def _defaults(schema: type) -> Any:
    """The configuration of a dataclass, to copy from: a copy takes a fifth of the time."""
    from omegaconf import OmegaConf

    return OmegaConf.structured(schema)


def to_object(config: Any, where: str) -> Any:
    """The dataclass of a merged configuration; UsageError for a value that is missing or refers to nothing."""
    from omegaconf import OmegaConf

    try:
        return OmegaConf.to_object(config)
    except _unusable() as error:
        raise UsageError(f"{where}: {_reason(error)}") from error


def _listed(kind: Any, value: Any) -> Any:
    """Plain data with a list of one wherever a dataclass wants a list and has something else."""
    origin, inner = get_origin(kind), get_args(kind)
    if value == "???":  # OmegaConf's word for a missing value: it would be ignored
        raise ValueError("'???' is not a value")
    if NoneType in inner:
        return _listed(next(a for a in inner if a is not NoneType), value)
    if is_dataclass(kind) and isinstance(value, dict):
        types = field_types(cast(Any, kind))
        return {name: _listed(types.get(name), item) for name, item in value.items()}
    if origin is dict and isinstance(value, dict):
        return {name: _listed(inner[1], item) for name, item in value.items()}
    if origin is list and value is not None:
        items = [_listed(inner[0], item) for item in (value if isinstance(value, list) else [value])]
        wrong = [item for item in items if item is None or isinstance(item, (dict, list))]
        if wrong and not is_dataclass(inner[0]):  # OmegaConf would let it pass
            raise ValueError(f"a list of {inner[0].__name__} is meant, and {wrong[0]!r} is in it")
        return items
    return value


def _unusable(*more: type[Exception]) -> tuple[type[Exception], ...]:
    """What OmegaConf and YAML raise for a value that is not what a field holds; they let some of Python's own pass."""
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    return OmegaConfBaseException, YAMLError, ValueError, TypeError, OverflowError, RecursionError, *more


def _reason(error: BaseException) -> str:
    """What an error of OmegaConf or YAML says, on one line."""
    from yaml import YAMLError

    if isinstance(error, RecursionError) or "nesting depth" in str(error):  # PyYAML has a limit since 6.0.4
        return "it is nested too deeply"
    said = [line.strip() for line in str(error).splitlines()] or [type(error).__name__]
    return short(" ".join(said[-2:] if isinstance(error, YAMLError) else said[:1]), 300)


def _describe(config: Any, key: str) -> str:
    from omegaconf import OmegaConf

    value = OmegaConf.select(config, key)
    if OmegaConf.is_list(value):
        return f"the list {short(str(value))}"
    return f"{type(value).__name__} {short(repr(value))}"


# -------------------------------------------------------------------------------------------------------------- files


def recipe_file(name: str, folder: Path, available: Callable[[], list[str]]) -> Path:
    """What ``recipe=NAME`` means: a file of the folder, or the path of a .yaml file; UsageError where there is none."""
    path = Path(name).expanduser() if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    try:
        found = path.is_file()
    except (OSError, ValueError):  # a name too long for a file, or with a zero byte
        found = False
    if found:
        return path
    there = available()
    said = f"no such recipe{nearest(name, there)}; there are {', '.join(there)}, or give the path of a .yaml file"
    raise UsageError(f"recipe={name:.200}: {said}")


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds, as plain data with OmegaConf's spelling of numbers (1e12 is one).

    Raises:
        UsageError: when it is unreadable, no mapping, or larger than settings can be, its aliases spelled out.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{path} is larger than {MAX_BYTES} bytes, which no file of settings is")
        written = copy.deepcopy(_parsed(path.read_text(encoding="utf-8"), path))
    except UsageError:
        raise
    except _unusable(OSError) as error:
        raise UsageError(f"{path} is not readable YAML ({_reason(error)})") from error
    if not isinstance(written, dict) or not all(isinstance(key, str) for key in written):
        raise UsageError(f"{path} must hold key: value lines")
    return {str(key): value for key, value in written.items()}


@lru_cache(maxsize=KEPT)
def _parsed(text: str, path: Path) -> Any:
    """What a file's text says; kept, for a command reads its recipe once more for every word of its line."""
    import yaml
    from omegaconf import OmegaConf

    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if _nodes(node, {}) > MAX_NODES:
        raise UsageError(f"{path} has aliases that stand for more than {MAX_NODES} values: write out what is meant")
    if twice := _spelt_twice(node):
        raise UsageError(f"{path}: {twice}")
    return OmegaConf.to_container(OmegaConf.create(text)) if text.strip() else {}


def _nodes(node: Any, sizes: dict[int, float]) -> float:
    """Values that a YAML node stands for, every alias spelled out; infinite where one holds itself."""
    if node is None or isinstance(node.value, str):
        return 1
    if id(node) not in sizes:
        sizes[id(node)] = float("inf")
        children = [c for pair in node.value for c in (pair if isinstance(pair, tuple) else (pair,))]
        sizes[id(node)] = 1 + sum(_nodes(child, sizes) for child in children)
    return sizes[id(node)]


def _spelt_twice(node: Any) -> str:
    """What to say of two keys of one mapping that are the same number (1e12 and 1.0e+12): the last would win."""
    if node is None or isinstance(node.value, str):
        return ""
    seen: dict[float, str] = {}
    pairs = [pair for pair in node.value if isinstance(pair, tuple)]
    for key, _ in pairs:
        try:
            other = seen.setdefault(float(key.value), key.value)
        except (TypeError, ValueError):  # a word, or a list
            continue
        if other is not key.value:
            return f"{other} and {key.value} are the same number: leave one of them out"
    children = [value for _, value in pairs] or node.value
    return next(filter(None, map(_spelt_twice, children)), "")


def dotted(written: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted keys of plain data: of its leaves, an empty mapping counting as one."""
    for name, value in written.items():
        if isinstance(value, dict) and value:
            yield from dotted(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


# --------------------------------------------------------------------------------------------------------------- keys


def check_keys(
    config: Any, keys: Iterator[str] | Sequence[str], *, command: str = ALL_KEYS, beside: Sequence[str] = ()
) -> None:
    """Refuse keys that the configuration does not have, naming the nearest ones and the command that prints all."""
    from omegaconf import OmegaConf

    kind: Any = OmegaConf.get_type(config)
    known, mappings = _keys_of(kind)
    own = tuple(f"{key}." for key in mappings)
    for key in keys:
        if key not in known and not key.startswith(own):
            near = nearest_keys(key, [*known, *beside])
            meant = f", did you mean {' or '.join(near)}?" if near else ";"
            raise UsageError(f"unknown key {short(key)!r}{meant} {command} prints all keys")


@cache
def _keys_of(schema: type) -> tuple[list[str], list[str]]:
    """All dotted keys of a dataclass, and those whose values are mappings."""
    config = _defaults(schema)
    return known_keys(config), mapping_keys(config)


def mapping_keys(config: Any, prefix: str = "") -> list[str]:
    """The dotted keys whose values are mappings with keys of the user's own."""
    from omegaconf import DictConfig, OmegaConf

    found = []
    for name in config:
        if OmegaConf.get_type(config, name) is dict:
            found.append(f"{prefix}{name}")
        elif isinstance(config._get_node(name), DictConfig) and config._get_node(name)._content is not None:
            found += mapping_keys(config[name], f"{prefix}{name}.")
    return found


def known_keys(config: Any, prefix: str = "") -> list[str]:
    """All dotted keys of a configuration."""
    from omegaconf import DictConfig

    keys = []
    for name in config:
        keys.append(f"{prefix}{name}")
        if isinstance(config._get_node(name), DictConfig) and config._get_node(name)._content is not None:
            keys.extend(known_keys(config[name], f"{prefix}{name}."))
    return keys


# ------------------------------------------------------------------------------------------------------------ running


def run(main: Callable[[list[str]], int]) -> None:
    """Run a command: what its user can mend is one sentence and a non-zero exit; a traceback is a defect of ours."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what cannot be spelt here is no reason to stop
    terminal.heed_interrupts()
    try:
        code = _code(main)
        sys.stdout.flush()
    except OSError as error:
        code = terminal.unwritten(error)
    sys.exit(code)


def _code(main: Callable[[list[str]], int]) -> int:
    try:
        return main(sys.argv[1:])
    except (StoreError, LostError, ValueError) as error:
        if isinstance(error, ValueError) and from_library(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if not (said := of_machine(error)):
            raise
        print(f"error: {said}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return terminal.INTERRUPTED
