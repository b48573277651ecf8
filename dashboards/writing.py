"""Text that a run writes, on demand: by the command that prints it, in a process of its own.

The app imports no torch, and takes neither a GPU nor much memory from what trains beside it.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from gpt3core.errors import StoreError, UsageError
from gpt3core.store import places
from gpt3core.words import count
from sweeps.watching.run_table import Row

PROMPT = "In the morning"
TOKENS, SECONDS = 64, 300.0
MOST_PARAMETERS = 1e9  # 4 GB in fp32
TRAINED = ("done", "stopped early")
NOTE = "note: "  # begins a line of the command's


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a run wrote."""

    text: str
    notes: tuple[str, ...]  # of the command on it, a sentence each


def command(root: Path, run_id: str, prompt: str = PROMPT) -> str:
    """The command, which writes the same text each time."""
    return shlex.join(["python", *_words(root, run_id), f"prompt={prompt}"])


def _words(root: Path, run_id: str) -> list[str]:
    how = [f"tokens={TOKENS}", "seed=0"]
    return ["-m", "gpt3core.generate", f"run={run_id}", f"runs={places.portable(root)}", *how]


def write(root: Path, row: Row, prompt: str) -> Written:
    """The text that a run writes after a prompt, which other users of this machine do not see. Seconds: for torch.

    Raises:
        UsageError: for a prompt that does not fit, or a run that this machine is not to read.
        StoreError: in one sentence.
    """
    try:
        given = prompt.encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise UsageError(f"the prompt holds half a character ({half!a} at {error.start}): leave it out") from error
    if (parameters := row.parameters or 0.0) > MOST_PARAMETERS:
        raise UsageError(
            f"{row.run_id} has {count(parameters)} parameters, and no more than {count(MOST_PARAMETERS)} are read "
            "behind a page; the command below writes it where there is room"
        )
    words = [sys.executable, *_words(root, row.run_id), "prompt_file=-"]
    without_gpu = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONIOENCODING": "utf-8"}
    try:
        done = subprocess.run(words, env=without_gpu, input=given, capture_output=True, timeout=SECONDS)
    except subprocess.TimeoutExpired as error:
        raise StoreError(f"{row.run_id} did not write {TOKENS} tokens within {SECONDS:.0f} s") from error
    said = done.stderr.decode(errors="replace").strip().splitlines()
    if done.returncode:
        raise StoreError((said or [f"exit status {done.returncode}"])[-1].removeprefix("error: "))
    notes = tuple(line.removeprefix(NOTE) for line in said if line.startswith(NOTE))
    return Written(text=done.stdout.decode(errors="replace").removesuffix("\n"), notes=notes)
