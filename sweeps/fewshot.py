#!/usr/bin/env python
"""Ask more of finished checkpoints: tasks x numbers of examples x draws of them, a job each; nothing is trained.

ray job submit sweeps/fewshot.py, or python sweeps/fewshot.py here, with

sweep=laptop            whose runs; by default the sweep last driven
runs=[d96,d160-c90966]  only these: ids, their beginnings, or labels of sizes; by default all that are done
tasks=[copy,addition_2] by default those of the sweep; beside them cloze_DOMAIN for every domain of the text
shots=[0,1,8]           examples in the context; where fewer fit, that is said
seeds=3                 draws of the examples (without examples there is nothing to draw)
items=200               questions a task; by default as many as the sweep asked
files.hellaswag=PATH    where the items of a task lie (docs/evaluation.md); by default as in the sweep
run_programs=true       for humaneval_pass: programs that a model writes are run, with limits but in no sandbox
placement.workers=2     as in the sweep's recipe, and any other key of its placement
--plan                  what would be asked of which run, at most how long it takes; starts nothing

Only what was not asked before is asked. analysis.fit then has these scores beside the sweep's own.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the code beside this file, in a copy of the tree too

from gpt3core import cli  # noqa: E402
from sweeps import fewshot_command  # noqa: E402

if __name__ == "__main__":
    cli.run(lambda argv: fewshot_command.few_shot(argv, usage=__doc__ or ""))
