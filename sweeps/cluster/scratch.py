"""Folders for a local Ray's sockets and logs, removed with their owner.

Their paths are short: unix sockets allow about 100 characters.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path

PREFIX = "isoflop-ray-"


def make() -> str:
    """A new folder of this process's, after removing those whose process is gone (a killed one cannot tidy up)."""
    for folder in Path("/tmp").glob(f"{PREFIX}*"):
        match = re.fullmatch(rf"{PREFIX}(\d+)-.*", folder.name)
        with contextlib.suppress(OSError):
            if match and folder.stat().st_uid == os.getuid() and not Path(f"/proc/{match[1]}").exists():
                shutil.rmtree(folder, ignore_errors=True)
    return tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir="/tmp")
