"""Where fetched packages and prepared text are kept: whatever lies here can be made again."""

from __future__ import annotations

import os
from pathlib import Path

SETTING = "ISOFLOP_CACHE"


def cache_folder() -> Path:
    """``ISOFLOP_CACHE``, or ``isoflop`` in the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "isoflop"
    return Path(os.environ.get(SETTING) or default).expanduser().absolute()
