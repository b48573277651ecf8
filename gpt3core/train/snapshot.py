"""What a rank writes of a checkpoint, as the bytes of its safetensors files, copied while training goes on.

The files are laid out once, in memory that is kept from one save to the next, so that a save serialises nothing: it
copies the values into their places (15 GB/s a core here; ``safetensors.torch.save``, 0.4). The layout is the format's:
eight bytes that hold the header's length, the header in JSON, padded with spaces, then the values
(https://github.com/huggingface/safetensors, "Format"). Readers are safetensors' own.
"""

from __future__ import annotations

import contextlib
import json
import struct
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpt3core.model.parameters import Part

DTYPES = {
    torch.float64: "F64",
    torch.int64: "I64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
}
Held = Mapping[str, Mapping[str, Part]]  # file -> name -> what this rank holds of it


class Image:
    """The bytes of one file."""

    def __init__(self, parts: Mapping[str, Part], *, pinned: bool) -> None:
        """Lay out a file for these parts, its values not yet copied: the widest type first, as safetensors does."""
        self.index = _index(parts)
        header: dict[str, dict[str, Any]] = {}
        end = 0
        for name in sorted(parts, key=lambda name: (-parts[name].values.element_size(), name)):
            values = parts[name].values
            place = [end, end + values.nbytes]
            header[name] = {"dtype": DTYPES[values.dtype], "shape": list(values.shape), "data_offsets": place}
            end += values.nbytes
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        first = 8 + len(text)
        self._bytes = torch.empty(first + end, dtype=torch.uint8, pin_memory=pinned)
        self._bytes[:first] = torch.frombuffer(bytearray(struct.pack("<Q", len(text)) + text), dtype=torch.uint8)
        self.tensors = {}
        for name, entry in header.items():
            low, high = (first + offset for offset in entry["data_offsets"])
            values = parts[name].values
            self.tensors[name] = self._bytes[low:high].view(values.dtype).view(values.shape)

    @property
    def data(self) -> memoryview:
        """The whole file."""
        return memoryview(self._bytes.numpy())  # type: ignore[arg-type]

    def fits(self, parts: Mapping[str, Part]) -> bool:
        """Whether these are the parts that it was laid out for, with other values."""
        return _index(parts) == self.index and all(
            (part.values.dtype, part.values.shape) == (self.tensors[name].dtype, self.tensors[name].shape)
            for name, part in parts.items()
        )


def _index(parts: Mapping[str, Part]) -> dict[str, dict[str, list[int]]]:
    """Name -> where its values begin in the whole tensor, and that one's shape."""
    return {name: {"start": list(part.start), "shape": list(part.shape)} for name, part in parts.items()}


class Staging:
    """The files of the save under way.

    The trainer's thread begins and the writer's finishes; whichever comes first copies the next tensor, so that
    training does not wait for a writer that gets no core. The weights change only after ``release``.
    """

    def __init__(self, device: str) -> None:
        self.images: dict[str, Image] = {}
        self._todo: deque[tuple[Tensor, Tensor]] = deque()
        self._left, self._count, self._copied = 0, threading.Lock(), threading.Event()
        self._copied.set()
        self._stream = torch.cuda.Stream() if device == "cuda" else None  # type: ignore[no-untyped-call]
        self._arrived: torch.cuda.Event | None = None

    def begin(self, held: Held) -> None:
        """Take note of what is to be copied; from a GPU, start copying beside what it computes."""
        for file, parts in held.items():
            if file not in self.images or not self.images[file].fits(parts):
                self.images[file] = Image(parts, pinned=self._stream is not None)
        self.images = {file: image for file, image in self.images.items() if file in held}
        pairs = [
            (target, held[file][name].values.detach())
            for file, image in self.images.items()
            for name, target in image.tensors.items()
        ]
        if self._stream is None:
            self._left = len(pairs)
            self._copied.clear() if pairs else self._copied.set()
            self._todo.extend(pairs)
            return
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for target, values in pairs:
                target.copy_(values, non_blocking=True)
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record(self._stream)

    def finish(self) -> None:
        """Have everything copied."""
        if self._arrived is not None:
            self._arrived.synchronize()
        else:
            self._copy()

    def release(self) -> None:
        """Have nothing read of the weights any more; on a GPU its stream waits, and the host does not."""
        if self._arrived is not None:
            torch.cuda.current_stream().wait_event(self._arrived)
        else:
            self._copy()

    def _copy(self) -> None:
        """Copy what nobody has taken yet, without torch, whose threads are the training's."""
        with contextlib.suppress(IndexError):
            while True:
                target, values = self._todo.popleft()
                try:
                    np.copyto(_array(target), _array(values))  # lets other threads run
                finally:
                    with self._count:
                        self._left -= 1
                        if self._left == 0:
                            self._copied.set()
        self._copied.wait()


def _array(tensor: Tensor) -> np.ndarray:
    """The values for numpy, which has no bfloat16: only their bytes count."""
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def finite(tensors: Iterable[Tensor]) -> bool:
    """Whether every value is a number, by the extremes, which NaN passes into: one pass, no mask."""
    ends = [end for tensor in tensors if tensor.numel() for end in torch.aminmax(tensor.detach())]
    return not ends or bool(torch.stack(ends).isfinite().all())
