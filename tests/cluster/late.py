"""A body whose import waits for a file: its worker takes as long to be born as a test wants."""

import os
import time
from pathlib import Path

from tests.cluster.bodies import hold

__all__ = ["hold"]

while not Path(os.environ["RAY_TMPDIR"], "birth").exists():
    time.sleep(0.05)
