"""Why a run ended that did not finish: decided where it is known, and told as a word that the driver counts by.

A worker knows its own exception; of a worker that died its driver knows what Ray says and whether the node still
lives. No ray here: its exceptions are told by the names of their classes.
"""

from __future__ import annotations

import errno
import re
from enum import StrEnum

# allocators that raise a RuntimeError of no kind of their own: torch's on the host, cuBLAS's, CUDA's
NO_MEMORY = re.compile(
    r"DefaultCPUAllocator: (can't|not enough)|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED|std::bad_alloc"
)
OF_A_DEVICE = re.compile(r"CUDA error|uncorrectable|ECC error|NVML|device-side|NCCL .*(unhandled|internal)", re.I)


class Cause(StrEnum):
    """Why."""

    USER = "user"  # settings, text or store: trying again would end the same way
    CRASH = "crash"  # an exception of its own
    DEATH = "death"  # its process died, and its node lives
    DEVICE = "device"  # what may be the GPU's fault
    MEMORY = "memory"  # out of memory, the device's or the host's
    HANG = "hang"  # a rank did not come to a collective
    STALL = "stall"  # no new step for long
    PEER = "peer"  # another rank's end, which no rank knows the cause of
    NODE = "node"  # its node is gone
    NOTICE = "notice"  # its node is to be taken away


UNCOUNTED = frozenset({Cause.NODE, Cause.NOTICE})
PERHAPS_THE_NODE = frozenset({Cause.DEATH, Cause.DEVICE, Cause.HANG, Cause.STALL, Cause.PEER})


def of_error(error: BaseException) -> Cause:
    """Of an exception in the worker itself, other than those that say how a run stands."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, MemoryError) or "OutOfMemoryError" in names:  # torch's is a RuntimeError
        return Cause.MEMORY
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return Cause.MEMORY
    if isinstance(error, RuntimeError):
        if NO_MEMORY.search(str(error)):
            return Cause.MEMORY
        if OF_A_DEVICE.search(str(error)):
            return Cause.DEVICE
    return Cause.CRASH


def of_death(error: BaseException) -> Cause:
    """Of Ray's exception about a worker that died; whether its node still lives is asked of the cluster."""
    kind = type(error).__name__
    if kind == "OutOfMemoryError":  # the node's memory was nearly full, and Ray ended the worker before the kernel did
        return Cause.MEMORY
    if kind == "NodeDiedError" or getattr(error, "preempted", False):
        return Cause.NODE
    return Cause.DEATH
