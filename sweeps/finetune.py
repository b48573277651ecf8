#!/usr/bin/env python
"""Fine-tune trained runs on labelled examples, as GPT-1 did: parents x numbers of examples x seeds, a run each.

ray job submit sweeps/finetune.py, or python sweeps/finetune.py here, with

sweep=laptop              whose runs; by default the sweep last driven
runs=[d96,d160-c90966]    only these: ids, their beginnings, or labels; by default the longest run of every size
task=copy                 a task of multiple choice, whose answers are learnt; asked is what prompts ask
task=labelled file=[test.jsonl,train.jsonl]   your own examples: the questions, then what is trained on
examples=[32,128,512]     numbers of them to train on
seeds=3                   draws of the examples, of their order and of the new weights
shots=[0,1,8]             what the parents are asked by prompts, to stand beside it; [] asks them nothing
train.epochs=3            and batch, lr, warmup_fraction, lm_weight, dropout: by default GPT-1's, with a quarter of the
                          parent's lr, and no fewer than 200 steps
placement.workers=2       as in the sweep's recipe, and any other key of its placement
--plan                    what would run; starts nothing

Only what is missing is trained and asked. The report of the parents' sweep shows both:
python -m dashboards.report runs=ROOT sweep=laptop
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the code beside this file, in a copy of the tree too

from gpt3core import cli  # noqa: E402
from sweeps import finetune_command  # noqa: E402

if __name__ == "__main__":
    cli.run(lambda argv: finetune_command.finetune(argv, usage=__doc__ or ""))
