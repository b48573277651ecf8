"""A model as a folder that ``transformers`` opens, and such a folder as a model; safetensors, never pickle.

A model without bands is written as ``GPT2LMHeadModel``, one with bands as ``GPTNeoForCausalLM``, which computes the
same. What neither can compute is refused: heads that do not make up the width (GPT-3 1.3B and 13B as printed).
"""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes

from gpt3core.data import tokenizer as tokenizers_of_runs
from gpt3core.errors import StoreError, UsageError
from gpt3core.interop import gpt2, gpt_neo, tokenizers
from gpt3core.interop.gpt2 import Weights
from gpt3core.interop.standard import folded
from gpt3core.model import registry
from gpt3core.model.gpt_spec import GPTSpec
from gpt3core.model.parameters import named
from gpt3core.store import files

if TYPE_CHECKING:
    from gpt3core.model.gpt import GPT

LAYOUTS: dict[str, ModuleType] = {layout.MODEL_TYPE: layout for layout in (gpt2, gpt_neo)}
PREFIX = "transformer."
CONFIG, WEIGHTS, INDEX, ABOUT = "config.json", "model.safetensors", "model.safetensors.index.json", "isoflop.json"
# what other versions of transformers keep beside the weights: masks, which follow from the configuration
BUFFERS = (".attn.bias", ".attn.masked_bias", ".attn.attention.bias", ".attn.attention.masked_bias")
HEAD = "lm_head.weight"
WRITTEN = {CONFIG, WEIGHTS, ABOUT, *tokenizers.FILES}  # what an export holds


# ------------------------------------------------------------------------------------------------------------- writing


def layout_of(spec: Any) -> ModuleType:
    """The layout that computes what a model of this shape computes.

    Raises:
        UsageError: when none does.
    """
    if not isinstance(spec, GPTSpec):
        raise UsageError(f"a model of architecture {spec.architecture} has no layout in transformers here")
    kinds = {spec.pattern(layer).kind for layer in range(spec.n_layer)}
    if strange := kinds - {"dense", "banded"}:
        raise UsageError(
            f"a model with {min(strange)} layers has no layout in transformers: dense and banded ones have"
        )
    if spec.n_head * spec.d_head != spec.d_model:
        raise UsageError(
            f"{spec.n_head} heads of {spec.d_head} are {spec.n_head * spec.d_head} wide and the model {spec.d_model}: "
            "the layouts of transformers need heads that make up the width; train one with n_head * d_head = d_model"
        )
    return gpt_neo if "banded" in kinds else gpt2


def export_gpt2(
    model: GPT, folder: Path, *, tokenizer: str, replace: bool = False, about: dict[str, Any] | None = None
) -> str:
    """Write a model and its tokenizer as a folder for ``transformers``, whole or not at all.

    Args:
        tokenizer: its name, as ``data.tokenizer`` has it.
        replace: an earlier export may be there.
        about: where the model comes from, kept in isoflop.json.

    Returns:
        The class that opens it.

    Raises:
        UsageError: for a model that no layout can hold, or a folder that holds something.
        StoreError: when it cannot be written.
    """
    layout = layout_of(model.spec)
    _check_free(folder, replace)
    end = tokenizers_of_runs.end_of_text(tokenizer)
    weights = folded({name: parameter.detach().cpu() for name, parameter in named(model)}, model.spec)
    tensors = {f"{PREFIX}{name}": t for name, t in layout.to_layout(weights, model.spec).items()}
    content = {
        CONFIG: _json(layout.config(model.spec, end)),
        WEIGHTS: to_bytes(gpt2.contiguous(tensors), metadata={"format": "pt"}),
        ABOUT: _json(about or {}),
        **tokenizers.files(tokenizer, model.spec.n_ctx),
    }
    _write(folder, content)
    architecture: str = layout.ARCHITECTURE
    return architecture


def _check_free(folder: Path, replace: bool) -> None:
    """Refuse a folder that holds something, but for an earlier export that may be replaced."""
    try:
        found = {path.name for path in folder.iterdir()}
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"out={folder} cannot be a folder ({error.strerror}): name another one") from error
    if not found:
        return
    if not replace:
        raise UsageError(f"out={folder} is not empty: name another folder, or give replace=true")
    if ABOUT not in found or found - WRITTEN:
        other = min(found - WRITTEN, default=f"no {ABOUT}")
        raise UsageError(
            f"out={folder} is no export of isoflop's alone ({other}): it is not replaced; name another one"
        )


def _write(folder: Path, content: dict[str, bytes]) -> None:
    """Write a folder under another name, then give it its own."""
    begun = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with files.explained(folder, setting=files.OUT):
            begun.mkdir(parents=True)
            for name, data in content.items():
                with open(begun / name, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            if folder.exists():
                files.remove_folder(folder)
            os.rename(begun, folder)
            files.sync_folder(folder.parent)
    finally:
        files.remove_folder(begun)


def _json(data: dict[str, Any]) -> bytes:
    return (json.dumps(data, indent=2, sort_keys=True) + "\n").encode()


# ------------------------------------------------------------------------------------------------------------- reading


def import_gpt2(folder: Path) -> GPT:
    """The model of a folder that ``transformers`` wrote, GPT-2's layout or GPT-Neo's, in fp32.

    Raises:
        StoreError: for a folder or file that is missing or damaged, or lacks tensors.
        ValueError: for a model that is computed otherwise than ours.
    """
    config = _config(folder / CONFIG)
    name = config.get("model_type")
    if name not in LAYOUTS:
        raise UsageError(f"{folder / CONFIG} has model_type={name!r:.40}: {' and '.join(LAYOUTS)} can be read")
    layout = LAYOUTS[name]
    spec = layout.spec(config)
    tensors = _tensors(folder, layout.shapes(spec))
    model = registry.of(spec).build(spec, kernel="sdpa")
    weights = layout.from_layout(tensors, spec)
    with torch.no_grad():
        for ours, parameter in named(model):
            parameter.copy_(weights[ours])
    built: GPT = model.eval()
    return built


def _config(path: Path) -> dict[str, Any]:
    try:
        return files.read_object(path)
    except FileNotFoundError as error:
        raise StoreError(f"{path} is not there: name a folder that save_pretrained of transformers wrote") from error


def _tensors(folder: Path, shapes: dict[str, tuple[int, ...]]) -> Weights:
    """The tensors of a folder by their names, each there once and of its shape.

    Raises:
        StoreError: naming the first that is not.
    """
    found: Weights = {}
    for name, tensor in _all_tensors(folder).items():
        if not name.endswith(BUFFERS):
            found[name.removeprefix(PREFIX)] = tensor.float()
    head = found.pop(HEAD, None)
    if missing := [name for name in shapes if name not in found]:
        raise StoreError(f"{folder} lacks {missing[0]} ({_count(missing)} of {len(shapes)}): fetch or write it again")
    if unknown := sorted(set(found) - set(shapes)):
        raise StoreError(f"{folder} has {unknown[0]} ({_count(unknown)}), which its config.json has no place for")
    for name, shape in shapes.items():
        if tuple(found[name].shape) != shape:
            raise StoreError(f"{folder} has {name} of shape {tuple(found[name].shape)}, its config.json means {shape}")
    if head is not None and not torch.equal(head, found["wte.weight"]):
        raise StoreError(f"{folder} has a {HEAD} that is not its wte.weight: this model's head is tied to it")
    return found


def _count(names: list[str]) -> str:
    return f"1 tensor{'' if len(names) == 1 else f' and {len(names) - 1} more'}"


def _all_tensors(folder: Path) -> Weights:
    """All tensors of a folder's safetensors files."""
    names = [WEIGHTS]
    if not (folder / WEIGHTS).exists() and (folder / INDEX).exists():
        places = files.read_object(folder / INDEX).get("weight_map")
        names = sorted(set(map(str, places.values()))) if isinstance(places, dict) else []
        if not names or any(Path(name).name != name for name in names):
            raise StoreError(f"{folder / INDEX} has no weight_map of files beside it: fetch or write it again")
    found: Weights = {}
    for name in names:
        try:
            found |= from_bytes((folder / name).read_bytes())
        except FileNotFoundError as error:
            other = next(iter([*folder.glob("*.bin"), *folder.glob("*.pt")]), None)
            hint = f" ({other.name} is a pickle, which is never read)" if other else ""
            raise StoreError(f"{folder} has no {name}{hint}: save the model as safetensors") from error
        except OSError as error:
            raise StoreError(f"{folder / name} cannot be read ({error.strerror})") from error
        except SafetensorError as error:
            raise StoreError(f"{folder / name} is not a safetensors file ({error}): fetch or write it again") from error
    return found
