"""Settings as the command line that a user would type for them."""

from __future__ import annotations

import json
import shlex
from dataclasses import fields, is_dataclass
from typing import Any


def command(module: str, asked: Any) -> str:
    """The line that runs a command with these settings: what is not a default is said.

    Args:
        asked: a dataclass that can be made without arguments.
    """
    return shlex.join(["python", "-m", module, *_words(asked, type(asked)(), "")])


def _words(asked: Any, default: Any, prefix: str) -> list[str]:
    """key=value of what differs from the defaults."""
    found = []
    for field in fields(asked):
        value, usual = getattr(asked, field.name), getattr(default, field.name)
        if is_dataclass(value):
            found += _words(value, usual, f"{prefix}{field.name}.")
        elif isinstance(value, dict):
            found += [f"{prefix}{field.name}.{key}={_typed(item)}" for key, item in value.items()]
        elif value != usual:
            found.append(f"{prefix}{field.name}={_typed(value)}")
    return found


def _typed(value: Any) -> str:
    """A value as the command line reads it back."""
    if isinstance(value, list):
        return f"[{','.join(map(_typed, value))}]"
    if isinstance(value, str):
        return _text(value)
    return f"{value:.12g}" if isinstance(value, float) else str(value).lower()


def _text(value: str) -> str:
    """A text, quoted where YAML would read something else."""
    from omegaconf import OmegaConf
    from yaml import YAMLError

    try:
        read = OmegaConf.to_container(OmegaConf.from_dotlist([f"x=[{value}]"]))
        if read == {"x": [value]}:
            return value
    except (ValueError, YAMLError):
        pass
    return json.dumps(value, ensure_ascii=False)
