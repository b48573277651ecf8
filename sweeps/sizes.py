#!/usr/bin/env python
"""Sweep model sizes x compute budgets: ``ray job submit sweeps/sizes.py``, or ``python sweeps/sizes.py`` here.

python sweeps/sizes.py recipe=laptop seed=1 budgets='[1e11,1e12]'   any key of the recipe, by its dotted name
python sweeps/sizes.py recipe=gpt3 --plan                           what would run, where, how long, at what cost
python sweeps/sizes.py adaptive=true adaptive_share=0.4             runs of the grid that tell most, one by one
python sweeps/sizes.py train.dropout=0.1                            what GPT-3 did without: train.*, all off by default
python sweeps/sizes.py train.noise_scale_every=10                   the critical batch, measured while it trains
python sweeps/sizes.py recipe=my.yaml --keys                        all keys with their values
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the code beside this file, in a copy of the tree too

from gpt3core import cli  # noqa: E402
from sweeps import command  # noqa: E402

if __name__ == "__main__":
    cli.run(lambda argv: command.sweep(argv, usage=__doc__ or ""))
