"""What was estimated, as one file that the same values are read back from: arrays, and a tree that says what they are.

study.npz is numpy's own archive, never a pickle. Its entry ``tree`` is JSON: the receipt, and the dataclasses of
analysis.study with each array as the number of its entry. Read by the types of the fields, so that what is read is
what was written, to the bit.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
import zipfile
import zlib
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis import laws
from analysis.laws import Law
from analysis.study import Fitted
from gpt3core.store import files

NAME = "study.npz"


def write(fitted: Fitted, receipt: dict[str, Any], folder: Path) -> None:
    """Write the file; the same values give the same bytes."""
    arrays: list[np.ndarray] = []
    tree = {"receipt": receipt, "fitted": _plain(fitted, Fitted, arrays)}
    text = np.frombuffer(json.dumps(tree).encode(), dtype=np.uint8)
    named: dict[str, Any] = {f"a{i}": array for i, array in enumerate(arrays)}
    files.write_streamed(folder / NAME, lambda stream: np.savez_compressed(stream, tree=text, **named))


DAMAGE = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, IndexError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error),
)


def read(folder: Path, receipt: dict[str, Any]) -> Fitted | None:
    """What was estimated, if the file there is of this receipt; None where there is none, or one that is damaged."""
    try:
        with np.load(folder / NAME, allow_pickle=False) as archive:
            tree = json.loads(archive["tree"].tobytes())
            if tree["receipt"] != json.loads(json.dumps(receipt)):
                return None
            arrays = [archive[f"a{i}"] for i in range(len(archive.files) - 1)]
        found: Fitted = _value(tree["fitted"], Fitted, arrays)
    except DAMAGE:
        return None
    return found


def _plain(value: Any, kind: Any, arrays: list[np.ndarray]) -> Any:
    """A value as JSON; arrays go to the list and leave their number."""
    if value is None:
        return None
    if kind is Law:
        return value.name
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return len(arrays) - 1
    if isinstance(value, pd.DataFrame):
        return [[str(name), str(value[name].dtype), _column(value[name], arrays)] for name in value.columns]
    if dataclasses.is_dataclass(value):
        own: type = type(value)
        return {name: _plain(getattr(value, name), kind, arrays) for name, kind in _fields(own).items()}
    if isinstance(value, dict):
        return {key: _plain(item, None, arrays) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, None, arrays) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _column(column: pd.Series, arrays: list[np.ndarray]) -> Any:
    """A column of numbers as an array, one of words as a list."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biuf":
        return _plain(column.to_numpy(), None, arrays)
    return [None if pd.isna(value) else str(value) for value in column]


def _value(plain: Any, kind: Any, arrays: list[np.ndarray]) -> Any:
    """The value of a type that its JSON stands for."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return None if plain is None else _value(plain, next(a for a in arguments if a is not type(None)), arrays)
    if kind is Law:
        return laws.by_name(plain)
    if origin is np.ndarray or kind is np.ndarray:
        return arrays[plain]
    if origin is list:
        return [_value(item, arguments[0], arrays) for item in plain]
    if origin is tuple:
        return tuple(_value(item, arguments[0], arrays) for item in plain)
    if origin is dict:
        return {key: _value(item, arguments[1], arrays) for key, item in plain.items()}
    if kind is pd.DataFrame:
        return pd.DataFrame({name: _series(dtype, column, arrays) for name, dtype, column in plain})
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return kind(**{name: _value(plain[name], field, arrays) for name, field in _fields(kind).items()})
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(plain)
    return plain


def _series(dtype: str, column: Any, arrays: list[np.ndarray]) -> Any:
    return arrays[column] if isinstance(column, int) else pd.Series(column, dtype=dtype)


@cache
def _fields(kind: type) -> dict[str, Any]:
    """The names and types of a dataclass's fields."""
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}
