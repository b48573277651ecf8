"""The state of a run as files: each rank's parts as safetensors, an index in JSON, no pickle anywhere.

step-00001200/model-00000.safetensors       what rank 0 holds of the weights, by name
              optimizer-00000.safetensors   and of the moments, as <name>.<moment>
              state.json                    the run, the step, and the index: file -> name -> start and whole shape
              manifest.json                 file -> sha256
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as from_bytes
from torch import Tensor, nn

from gpt3core.errors import StoreError
from gpt3core.model.parameters import Part, named, twice_held
from gpt3core.parallel.mesh import AXES, Mesh
from gpt3core.parallel.parts import part_of, sharded_axes
from gpt3core.store import files

MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class DamageError(Exception):
    """A checkpoint is not what was written; the message says what is wrong with it."""


# ------------------------------------------------------------------------------------------------------------ writing


def held(model: nn.Module, optimizer: torch.optim.Optimizer, mesh: Mesh) -> dict[str, dict[str, Part]]:
    """The files that this rank writes, if any: file -> name -> its part of the weights or moments.

    Of the ranks that hold the same part the first writes it.
    """
    twice = twice_held(model)
    kinds: dict[str, dict[str, Tensor]] = {
        "model": {n: p for n, p in named(model) if n not in twice},
        "optimizer": {n: value for n, value in _moments(model, optimizer) if n.rpartition(".")[0] not in twice},
    }
    later = {axis for axis in AXES if axis != "pipeline" and mesh.place(axis) > 0}  # where another rank comes before
    found = {}
    for kind, tensors in kinds.items():
        if parts := {n: part_of(value) for n, value in tensors.items() if not later or later <= {*sharded_axes(value)}}:
            found[f"{kind}-{mesh.rank:05d}.safetensors"] = parts
    return found


def _moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in named(model):
        assert not optimizer.state or parameter in optimizer.state, f"{name} is not what the optimizer steps"
        for moment, value in optimizer.state.get(parameter, {}).items():
            yield f"{name}.{moment}", value


def digest(model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[str, str]:
    """Hashes of which parts of the weights and moments this rank holds, and of their values.

    Ranks that hold the same parts must hold the same values.
    """
    places, values = hashlib.sha256(), hashlib.sha256()
    for name, tensor in (*named(model), *_moments(model, optimizer)):
        part = part_of(tensor)
        places.update(f"{name} {part.start} {tuple(part.values.shape)}\n".encode())
        values.update(part.values.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return places.hexdigest(), values.hexdigest()


# ------------------------------------------------------------------------------------------------------------ reading


@dataclass(frozen=True, kw_only=True)
class Contents:
    """A checkpoint that was read whole and matches its checksums."""

    state: dict[str, Any]
    pieces: dict[str, list[Part]]  # by name, from all files

    @property
    def has_moments(self) -> bool:
        """Whether any update was applied before it: all may have been left out, and then there is no moment yet."""
        ends = tuple(f".{moment}" for moment in MOMENTS)
        return any(name.endswith(ends) for names in self.state["index"].values() for name in names)

    def part(self, name: str, wanted: Part) -> Tensor:
        """The values of a part, put together from the pieces that overlap it, on the CPU.

        Raises:
            DamageError: when some of them are in no piece.
            StoreError: when the tensor has another shape.
        """
        shape, missing = wanted.values.shape, wanted.values.numel()
        found = torch.empty(shape)
        pieces = {(piece.start, piece.values.shape): piece for piece in self.pieces.get(name, [])}
        for piece in pieces.values():  # each place once, however many ranks held it
            if piece.shape != wanted.shape:
                raise StoreError(
                    f"the checkpoint has {name} of shape {piece.shape}, this model has {wanted.shape}: "
                    "it belongs to a model of another shape"
                )
            low = [max(a, b) for a, b in zip(piece.start, wanted.start, strict=True)]
            high = [
                min(a + n, b + m)
                for a, n, b, m in zip(piece.start, piece.values.shape, wanted.start, shape, strict=True)
            ]
            if all(a < b for a, b in zip(low, high, strict=True)):
                there = tuple(slice(a - o, b - o) for a, b, o in zip(low, high, piece.start, strict=True))
                here = tuple(slice(a - o, b - o) for a, b, o in zip(low, high, wanted.start, strict=True))
                found[here] = piece.values[there]
                missing -= found[here].numel()
        if missing:
            raise DamageError(f"{missing} values of {name} are in none of its files")
        return found


def read(folder: Path, run_id: str, model: nn.Module | None = None) -> Contents:
    """Read a checkpoint, each file once, and check what was read.

    Args:
        model: whose parts here are wanted: files that have none of them are left alone, so a device of many reads what
            it holds and not the whole. By default all are read.

    Raises:
        DamageError: when a file is missing, differs from its checksum, or is of another run.
    """
    try:
        manifest = files.read_object(folder / "manifest.json")
        if "state.json" not in manifest:
            raise DamageError("its manifest lacks state.json")
        state = json.loads(_checked(folder, "state.json", manifest))
        if state["run_id"] != run_id:
            raise DamageError(f"its state.json is of run {state['run_id']}")
        wanted = None if model is None else {name: part_of(parameter) for name, parameter in named(model)}
        pieces: dict[str, list[Part]] = {}
        for name, index in state["index"].items():
            if wanted is not None and not _has_some(folder / name, index, wanted):
                continue
            tensors = from_bytes(_checked(folder, name, manifest))
            for tensor, place in index.items():
                part = Part(values=tensors[tensor], shape=tuple(place["shape"]), start=tuple(place["start"]))
                pieces.setdefault(tensor, []).append(part)
    except OSError as error:
        raise DamageError(f"{Path(error.filename or folder).name}: {error.strerror}") from error
    except StoreError as error:
        raise DamageError(f"manifest.json: {error}") from error
    return Contents(state=state, pieces=pieces)


def _checked(folder: Path, name: str, manifest: dict[str, Any]) -> bytes:
    """A file's bytes, which are those that its manifest says."""
    data = files.read_bytes(folder / name)
    if (found := hashlib.sha256(data).hexdigest()) != manifest.get(name):
        raise DamageError(f"{name} has sha256 {found[:12]}..., its manifest says {manifest.get(name)!s:.12}...")
    return data


def _has_some(path: Path, index: dict[str, Any], wanted: dict[str, Part]) -> bool:
    """Whether a file has values of wanted parts, or of their moments, by its header; true where it cannot be told."""
    with files.opened(path) as file:
        try:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            lengths = {tensor: header[tensor]["shape"] for tensor in index}
        except (ValueError, KeyError, TypeError, OverflowError, MemoryError):
            return True  # its checksum will say what is wrong
    for tensor, place in index.items():
        part = wanted.get(tensor) or wanted.get(tensor.rpartition(".")[0])
        if part is not None and _overlaps(place["start"], lengths[tensor], part):
            return True
    return False


def _overlaps(start: list[int], lengths: list[int], part: Part) -> bool:
    """Whether a piece has values of a part; a single number is every part's."""
    places = zip(start, lengths, part.start, part.values.shape, strict=False)
    return all(max(a, b) < min(a + n, b + m) for a, n, b, m in places)


def load(contents: Contents, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint into this rank's parts of a model and its optimizer, by name.

    Raises:
        DamageError: when values are missing.
        StoreError: when shapes differ.
    """
    names = {parameter: name for name, parameter in named(model)}
    with torch.no_grad():
        for parameter, name in names.items():
            part = part_of(parameter)
            part.values.copy_(contents.part(name, part))
        if not contents.has_moments:
            optimizer.state.clear()
            return
        moments: dict[int, dict[str, Tensor]] = {}
        for number, parameter in enumerate(p for group in optimizer.param_groups for p in group["params"]):
            moments[number] = {m: torch.zeros(()) if m == "step" else torch.zeros_like(parameter) for m in MOMENTS}
            for moment, tensor in moments[number].items():
                part = part_of(tensor)
                part.values.copy_(contents.part(f"{names[parameter]}.{moment}", part))
    # torch's own loading knows where each kind of AdamW wants its step (pytorch#104767)
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
