#!/usr/bin/env python
"""Search learning rate, batch, warm-up and decay at proxy sizes by Ray Tune, and write the rule for larger ones.

python sweeps/hparams.py                                   the laptop's proxies; or ray job submit sweeps/hparams.py
python sweeps/hparams.py recipe=my.yaml search.trials=24   each cell of the recipe's grid is a proxy; a section search
python sweeps/hparams.py --plan                            trials, FLOPs, hours; starts nothing
python sweeps/hparams.py --keys                            all keys with their values
python sweeps/sizes.py optim.rule=~/.isoflop/runs/sweeps/laptop_hparams/rule.yaml     what comes of it

Every trial is a run of the store. Kill it and start it again: trials that ended are not trained again, those that were
cut off resume. It needs pip install 'isoflop[tune]'.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the code beside this file, in a copy of the tree too

from gpt3core import cli  # noqa: E402
from sweeps import hparams_command  # noqa: E402

if __name__ == "__main__":
    cli.run(lambda argv: hparams_command.run(argv, usage=__doc__ or ""))
