#!/usr/bin/env python
"""Prepare a corpus on a Ray cluster: ``ray job submit sweeps/prepare.py recipe=NAME out=DIR``, or with a Ray here.

The words are those of ``python -m gpt3core.data.prepare``, which --help shows; DIR is a folder that all nodes see.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the code beside this file, in a copy of the tree too

from gpt3core import cli  # noqa: E402
from gpt3core.data.prepare.__main__ import main  # noqa: E402
from sweeps.cluster.data import on_cluster  # noqa: E402

if __name__ == "__main__":
    cli.run(lambda argv: main(argv, spread=on_cluster))
