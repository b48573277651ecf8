"""A module's command, run on a GPU that is not there: ``python -m tests.cuda.stand_in MODULE ARGUMENT ...``.

It shows, where no GPU is at hand, that the path of a run on one is whole: that tensors meet on one device, that
FlexAttention and compiled blocks become kernels (Triton makes them for an H100), that the host never waits for the
device in a step, and what the allocator, which is torch's own, has lent at most (``tests.benchmarks.gpu_memory``).
It shows nothing of speed, and no number that a device would compute: all of them are zero, or what memory held.

Needs a CUDA build of torch (``make install TORCH=torch`` in an environment of its own), gcc, binutils, and CUDA's
headers: those that come with torch, and ``crt`` from a toolkit in CUDA_HOME (/usr/local/cuda).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = "ISOFLOP_STAND_IN"  # the library, in whose process one is
LIBRARIES = ("libtorch_cuda.so", "libc10_cuda.so", "libtorch_python.so", "libtorch_cuda_linalg.so")
RUNTIME = re.compile(r" U ((?:__)?cuda[A-Z]\w+|cublas\w+)")
DRIVER = re.compile(r"CUresult CUDAAPI\s+(cu\w+)\s*\(|\b(cu[A-Z]\w+_v\d+)\b")


def build(folder: Path) -> Path:
    """The library that is both runtime and driver, made for this torch."""
    import torch

    if torch.version.cuda is None:
        sys.exit(
            f"torch {torch.__version__} was built without CUDA: take another environment (make install TORCH=torch)"
        )
    libraries = Path(torch.__file__).parent / "lib"
    toolkit = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "include"
    headers = [*Path(torch.__file__).parents[1].glob("nvidia/cu*/include"), toolkit]
    listed = ["nm", "-D", "--undefined-only", *(str(libraries / name) for name in LIBRARIES)]
    names = set(RUNTIME.findall(subprocess.run(listed, check=True, capture_output=True, text=True).stdout))
    found = [path.read_text() for path in (folder / "cuda.h" for folder in headers) if path.exists()]
    if not found or not (toolkit / "crt").is_dir():
        sys.exit(f"CUDA's headers are missing (cuda.h, and crt in {toolkit}): give CUDA_HOME")
    names |= {plain or versioned for plain, versioned in DRIVER.findall(found[0])}
    others = folder / "others.c"
    others.write_text("".join(f"__attribute__((weak)) int {name}(void) {{ return 0; }}\n" for name in sorted(names)))
    library, own = folder / "libcuda.so.1", Path(__file__).with_name("stand_in.c")
    how = ["-shared", "-fPIC", "-w", "-Wl,-soname,libcuda.so.1", *(f"-I{path}" for path in headers)]
    subprocess.run(["gcc", *how, "-o", str(library), str(own), str(others)], check=True)
    return library


def waits() -> int:
    """How often the host has waited for the device so far."""
    found: int = ctypes.CDLL(os.environ[HERE]).stand_in_waits()
    return found


_KEPT: list[object] = []


def settle() -> None:
    """In a process on the stand-in: what must not be asked of a device that computes nothing."""
    import torch

    torch.backends.cuda.enable_cudnn_sdp(False)
    library = torch.library.Library("aten", "IMPL")
    library.impl(
        "embedding_dense_backward", lambda gradient, _, n, *__: gradient.new_zeros(n, gradient.size(-1)), "CUDA"
    )
    _KEPT.append(library)  # what it says holds as long as it is there


def main() -> None:
    """Run the command, in a process that has the library before all others."""
    if HERE in os.environ:
        settle()
        del sys.argv[0]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        return
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    with contextlib.ExitStack() as held:
        library = build(Path(held.enter_context(tempfile.TemporaryDirectory())))
        place = {HERE: str(library), "LD_PRELOAD": str(library), "TRITON_LIBCUDA_PATH": str(library.parent)}
        settings = {"PYTORCH_ALLOC_CONF": "expandable_segments:False"}  # a stand-in has no pages of its own
        command = [sys.executable, "-m", "tests.cuda.stand_in", *sys.argv[1:]]
        sys.exit(subprocess.run(command, env=os.environ | place | settings, check=False).returncode)


if __name__ == "__main__":
    main()
