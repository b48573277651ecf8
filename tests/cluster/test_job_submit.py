"""The commands that a user types, literally, on a Ray head."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from sweeps import line
from tests.conftest import write_corpus

pytestmark = [pytest.mark.cluster, pytest.mark.soak, pytest.mark.timeout(900)]
TINY = [
    "recipe=smoke",
    "budgets=[1e9]",
    "min_tokens=1e3",
    "center_params=3e3",
    "center_flops=1e9",
    "evals.tasks=[addition_2]",
    "evals.items=8",
    "evals.validation_tokens=4096",
    "data.tokenizer=gpt2:300",
]


def ray(*words, environment):
    return subprocess.Popen(
        ["ray", *words], env=environment, cwd=line.CODE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_ray_job_submit_with_and_without_a_working_directory(head, isolated):
    settings = [*TINY, f"data.corpus={write_corpus(isolated / 'text', documents=1500)}", "name=submitted"]
    plain = ray("job", "submit", "sweeps/sizes.py", *settings, environment=head)
    wrong = ray("job", "submit", "sweeps/sizes.py", "recipe=smok", environment=head)
    said, _ = plain.communicate()
    assert plain.returncode == 0, said
    assert "2 of 2 runs done, 0 failed" in said
    packed = ray("job", "submit", "--working-dir", ".", "--", "python", "sweeps/sizes.py", *settings, environment=head)
    refused, _ = wrong.communicate()
    assert wrong.returncode != 0
    assert "did you mean smoke" in refused
    assert "Traceback" not in refused
    again, _ = packed.communicate()
    assert packed.returncode == 0, again
    assert "2 of 2 runs are done already" in again
    root = head["ISOFLOP_ROOT"]
    words = [sys.executable, "-m", "analysis.fit", f"runs={root}", "sweep=submitted"]
    out = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "2 of 2 fitted" in out.stdout
    assert len(pd.read_parquet(Path(root, "sweeps", "submitted", "fit", "runs.parquet"))) == 2
