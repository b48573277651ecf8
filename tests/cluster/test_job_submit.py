"""The commands that a user types, literally, on a Ray head of the test's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from sweeps import line
from tests.conftest import write_corpus

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
TINY = [
    "recipe=smoke",
    "budgets=[1e9]",
    "min_tokens=1e3",
    "center_params=3e3",
    "center_flops=1e9",
    "evals.tasks=[addition_2]",
    "evals.items=8",
]


def ray(*words, environment):
    return subprocess.run(["ray", *words], env=environment, cwd=line.CODE, capture_output=True, text=True, check=False)


def test_ray_job_submit_with_and_without_a_working_directory(isolated, monkeypatch):
    text = write_corpus(isolated / "text", documents=1500)
    settings = [*TINY, f"data.corpus={text}", "data.tokenizer=gpt2:300", "evals.validation_tokens=4096"]
    with line.head() as environment:
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        plain = ray("job", "submit", "sweeps/sizes.py", *settings, environment=environment)
        assert plain.returncode == 0, plain.stdout + plain.stderr
        assert "2 of 2 runs done, 0 failed" in plain.stdout
        again = ray(
            "job", "submit", "--working-dir", ".", "--", "python", "sweeps/sizes.py", *settings, environment=environment
        )
        assert again.returncode == 0, again.stdout + again.stderr
        assert "2 of 2 runs are done already" in again.stdout
        wrong = ray("job", "submit", "sweeps/sizes.py", "recipe=smok", environment=environment)
        assert wrong.returncode != 0
        assert "did you mean smoke" in wrong.stdout
        assert "Traceback" not in wrong.stdout
    assert _processes_with(environment["RAY_AUTH_TOKEN"]) == [], "all that was started is gone"
    out = subprocess.run([sys.executable, "-m", "analysis.fit"], capture_output=True, text=True, check=True)
    assert "2 of 2 runs fitted" in out.stdout
    assert len(pd.read_parquet(isolated / "root" / "sweeps" / "smoke" / "fit" / "runs.parquet")) == 2


def _processes_with(token: str) -> list[str]:
    """What still runs of a head and its jobs: they inherit its token."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if token.encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return found


def test_without_a_cluster_a_local_ray_starts_by_itself_and_a_second_driver_is_refused(isolated):
    text = write_corpus(isolated / "text", documents=1500)
    command = [
        sys.executable,
        "sweeps/sizes.py",
        *TINY,
        f"data.corpus={text}",
        "data.tokenizer=gpt2:300",
        "evals.validation_tokens=4096",
    ]
    first = subprocess.Popen(command, cwd=line.CODE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert first.stdout is not None
    assert "2 runs, store" in first.stdout.readline()
    second = subprocess.run(command, cwd=line.CODE, capture_output=True, text=True, check=False)
    assert second.returncode == 2
    assert "has a driver already" in second.stderr
    rest = first.stdout.read()
    assert first.wait() == 0, rest
    assert "2 of 2 runs done" in rest
    assert os.environ["ISOFLOP_ROOT"] in rest
