"""Real processes for tests of what ranks do together; one that does not end in time fails the test."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

# what a rank imports sooner or later: once, in the fork server, and not in every child (torch._inductor, which torch
# imports at a process's first optimizer, takes more than all the rest of a small run)
PRELOADED = (
    "gpt3core.run",
    "gpt3core.model.gpt",
    "torch._inductor.config",
    "torch.distributed.fsdp",
    "torch.distributed.tensor.parallel",
    "torch.distributed.pipelining",
    "gpt3core.parallel.context",
    "gpt3core.parallel.fsdp",
    "gpt3core.parallel.pipeline",
    "gpt3core.parallel.recompute",
    "gpt3core.parallel.tensor",
    "pandas",
    "pyarrow.parquet",
    "tiktoken_ext.openai_public",
    "tests.conftest",
)
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(list(PRELOADED))


def run(body: Callable[..., Any], size: int, *args: Any, seconds: float = 200.0) -> list[Any]:
    """Run ``body(rank, size, address, *args)`` in each of ``size`` processes.

    Returns:
        what each of them returned, or its exception's type and sentence as a tuple, or None where it was killed.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    environment = {name: value for name, value in os.environ.items() if name.startswith("ISOFLOP_")}
    until, started, found = time.monotonic() + seconds, [], []
    for rank in range(size):
        here, there = CONTEXT.Pipe()
        process = CONTEXT.Process(target=_child, args=(there, environment, body, (rank, size, address, *args)))
        process.start()
        there.close()
        started.append((process, here))
    for process, pipe in started:
        in_time = pipe.poll(max(0.0, until - time.monotonic()))
        try:
            found.append(pipe.recv() if in_time else "hangs")
        except EOFError:
            found.append(None)
        if not in_time:
            process.kill()
        process.join(10)
    assert "hangs" not in found, found
    return found


def _child(pipe: Any, environment: dict[str, str], body: Callable[..., Any], args: tuple[Any, ...]) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ.update(environment)
    try:
        missing = set(PRELOADED) - set(sys.modules)
        assert not missing, f"the fork server has not loaded {missing}"  # it says nothing of an import that fails
        pipe.send(body(*args))
    except Exception as error:
        pipe.send((type(error).__name__, str(error)))
