#!/usr/bin/env python
"""Data choices as an axis: the same ladder on a text with and without the filter, deduplication, decontamination.

python sweeps/data.py data=five without=[quality,dedup]                 three sweeps: laptop-all, -no-quality, -no-dedup
python sweeps/data.py data=my.yaml without=[dedup] recipe=my_ladder.yaml name=web   web-all and web-no-dedup
python sweeps/data.py --plan ...                                      what would be prepared and trained; starts nothing

data=NAME_OR_FILE     a recipe of python -m gpt3core.data.prepare; each choice gets a folder of its own in the cache
without=[...]         which of quality, dedup, decontaminate are left out, one at a time
workers=N             processes that prepare (default: one a core)
key=value             anything that sweeps/sizes.py takes, but for data.corpus

Start it again to go on where it stopped. It ends with the analysis.compare lines that say what each choice is worth in
compute, and how far held-out losses tell that: a choice changes what is held out too.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the code beside this file, in a copy of the tree too

from gpt3core import cli  # noqa: E402
from sweeps import data_command  # noqa: E402

if __name__ == "__main__":
    cli.run(lambda argv: data_command.run(argv, usage=__doc__ or ""))
