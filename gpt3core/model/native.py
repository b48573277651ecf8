"""The functions of native.c: built once a machine where there is a C compiler, and their torch matches elsewhere.

They are a kernel among others (``gpt3core.numerics``): chosen by timing, recorded with the run, and never taken where
the run was recorded with another. They know fp32 on the CPU, kernel=wide bf16 too, and one thread.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt3core.data.cache import cache_folder
from gpt3core.numerics import BUILT, WIDE

SOURCE = Path(__file__).with_name("native.c")
COMPILERS = ("cc", "gcc", "clang")
# sums of a row may be cut into as many parts as a vector has; infinities and NaN stay what they are
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd", "-shared", "-fPIC")
SECONDS = 120  # for a compiler on an overloaded machine


class Band(ctypes.Structure):
    """The shape of a banded attention: as ``band`` of native.c."""

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in (
            *("batch", "heads", "length", "width", "window", "to_batch", "to_head", "to_position"),
            *("out_batch", "out_head", "out_position"),
        )
    )


@functools.cache
def library() -> ctypes.CDLL | None:
    """The built functions; None where there is no C compiler, or it cannot build them."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        return None
    try:
        version = subprocess.run([compiler, "--version"], capture_output=True, timeout=SECONDS, check=True).stdout
        key = hashlib.sha256(repr((SOURCE.read_bytes(), FLAGS, version, _processor())).encode())
        built = cache_folder() / "native" / f"{key.hexdigest()[:16]}.so"
        if not built.exists():
            _build(compiler, built)
        return ctypes.CDLL(str(built))
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> list[str]:
    """What code for this processor depends on: a cache may be shared by machines of several kinds."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return [platform.machine(), *sorted({line for line in lines if line.startswith(("model name", "flags"))})]


def _build(compiler: str, built: Path) -> None:
    """Build into a name of its own, then rename: processes that start together do not read half a library."""
    built.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=built.parent, suffix=".so")
    os.close(handle)
    try:
        command = [compiler, *FLAGS, str(SOURCE), "-o", temporary, "-lm"]
        subprocess.run(command, capture_output=True, timeout=SECONDS, check=True)
        os.replace(temporary, built)
    finally:
        Path(temporary).unlink(missing_ok=True)


def require(kernel: str = "native") -> ctypes.CDLL:
    """The built functions, for a kernel that has them.

    Raises:
        ValueError: where they cannot be built.
    """
    found = library()
    if found is None:
        raise ValueError(
            f"kernel={kernel} needs a C compiler ({', '.join(COMPILERS)}) that builds {SOURCE.name} in "
            f"{cache_folder()}, and there is none here: install one, or train with kernel=softmax or sdpa (a run keeps "
            "its kernel)"
        )
    return found


def knows(kernel: str, tensor: Tensor) -> bool:
    """Whether a kernel has functions in C that take a tensor of this kind."""
    kinds = (torch.float32, torch.bfloat16) if kernel == WIDE else (torch.float32,)
    return kernel in BUILT and tensor.dtype in kinds and tensor.device.type == "cpu"


def _function(name: str, tensor: Tensor) -> Any:
    """The one for numbers of this kind."""
    return getattr(require(), f"{name}_bf16" if tensor.dtype == torch.bfloat16 else name)


def _room(tensor: Tensor) -> tuple[Tensor, ...]:
    """Where a row of bf16 is worked on in fp32."""
    return (torch.empty(tensor.size(-1)),) if tensor.dtype == torch.bfloat16 else ()


def _at(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def _n(number: int) -> ctypes.c_int64:
    return ctypes.c_int64(number)


def gelu(x: Tensor, *, slope: bool) -> tuple[Tensor, Tensor | None]:
    """GPT-2's GELU, and its slope where asked."""
    x = x.contiguous()
    value, slopes = torch.empty_like(x), torch.empty_like(x) if slope else None
    _function("gelu", x)(_at(x), _at(value), _at(slopes), _n(x.numel()))
    return value, slopes


def cross_entropy_(logits: Tensor, targets: Tensor, counts: Tensor | None) -> Tensor:
    """Losses (rows), each times its count; the logits (rows, V) become the gradient of their sum."""
    assert logits.is_contiguous() and targets.dtype == torch.int64
    assert counts is None or counts.dtype == torch.float32
    targets, counts = targets.contiguous(), None if counts is None else counts.contiguous()
    losses = torch.empty(len(logits))
    given = logits, targets, counts, losses, *_room(logits)
    _function("cross_entropy", logits)(*map(_at, given), *map(_n, logits.shape))
    return losses


def causal_softmax_(scores: Tensor, first: int, begins: Tensor | None = None) -> Tensor:
    """Scores (N, rows, columns), of which row r sees the first ``first + r + 1``, become shares.

    Args:
        begins: (B, rows) the first column that a row sees, the same for the N / B heads of a sequence.
    """
    begins = None if begins is None else begins.contiguous()
    heads = 1 if begins is None else len(scores) // len(begins)
    given = scores, *_room(scores)
    _function("causal_softmax", scores)(*map(_at, given), *map(_n, scores.shape), _n(first), _at(begins), _n(heads))
    return scores


def causal_slope_(gradient: Tensor, shares: Tensor, first: int) -> Tensor:
    """The gradient of shares (N, rows, columns) becomes that of the scores."""
    _function("causal_slope", gradient)(_at(gradient), _at(shares), *map(_n, shares.shape), _n(first))
    return gradient


def _band(q: Tensor, out: Tensor, window: int) -> Band:
    (b, h, t, width), strides, outs = q.shape, q.stride(), out.stride()
    assert strides[3] == outs[3] == 1
    return Band(b, h, t, width, window, *strides[:3], *outs[:3])


def band_forward(
    q: Tensor, k: Tensor, v: Tensor, window: int, documents: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Attention to the last ``window`` keys of (B, H, T, K): the mix, and the shares (B, H, T, window).

    Args:
        documents: (B, T) the first key that a query sees.
    """
    if not q.stride() == k.stride() == v.stride() or q.stride(3) != 1:
        q, k, v = (x.contiguous() for x in (q, k, v))
    b, h, t, width = q.shape
    mixed = q.new_empty(b, t, h, width).transpose(1, 2)
    shares = q.new_empty(b, h, t, window)
    documents = None if documents is None else documents.contiguous()
    require().band_forward(*map(_at, (q, k, v, documents, mixed, shares)), ctypes.byref(_band(q, mixed, window)))
    return mixed, shares


def band_backward(q: Tensor, k: Tensor, v: Tensor, shares: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v."""
    if not q.stride() == k.stride() == v.stride() or q.stride(3) != 1:
        q, k, v = (x.contiguous() for x in (q, k, v))
    if gradient.stride(3) != 1:
        gradient = gradient.contiguous()
    dq, dk, dv = q.new_zeros((3, *q.shape))
    slope = q.new_empty(shares.size(3))
    band = _band(q, gradient, shares.size(3))
    require().band_backward(*map(_at, (q, k, v, shares, gradient, dq, dk, dv, slope)), ctypes.byref(band))
    return dq, dk, dv
