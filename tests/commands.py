"""Commands called as a shell calls them, but in this process: their exit code, and what they print."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

from gpt3core import cli


def called(main: Callable[[list[str]], int], words: Sequence[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """What ``python -m`` of a module with this ``main`` does with these words, in a folder."""
    out, err, code = io.StringIO(), io.StringIO(), None
    argv = mock.patch.object(sys, "argv", ["command", *words])
    with contextlib.chdir(cwd), argv, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.run(main)
        except SystemExit as ended:
            code = ended.code
    assert isinstance(code, int), "a command ends with a number"
    return subprocess.CompletedProcess(list(words), code, out.getvalue(), err.getvalue())
