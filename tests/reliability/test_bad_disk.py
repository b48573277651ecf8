"""A disk that is really full, in the whole line: a sentence, a non-zero exit, nothing lost, and it goes on later."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from analysis.runs import store as runs
from sweeps import line
from tests.conftest import write_corpus

pytestmark = [pytest.mark.cluster, pytest.mark.soak, pytest.mark.timeout(900)]


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


def test_a_full_disk_loses_nothing_and_the_sweep_goes_on_when_there_is_room(head, small_disk, isolated):
    text = write_corpus(isolated / "text", documents=1500)
    settings = [
        "recipe=smoke",
        "budgets=[2e9]",
        "min_tokens=1e3",
        "center_params=5e3",
        "center_flops=1e9",
        "widths=[8,64]",
    ]
    settings += [
        "span=100",
        "evals.tasks=[]",
        f"data.corpus={text}",
        "data.tokenizer=gpt2:300",
        "evals.validation_tokens=4096",
    ]
    environment = {**head, "ISOFLOP_ROOT": str(small_disk / "root")}
    command = [sys.executable, "sweeps/sizes.py", *settings]
    full = subprocess.run(command, env=environment, cwd=line.CODE, capture_output=True, text=True, check=False)
    assert full.returncode == 1, full.stdout + full.stderr
    assert "1 of 2 runs done, 1 failed" in full.stdout, "the small run fits, the checkpoint of the large one does not"
    assert "no room to write" in full.stdout
    assert "finished runs stay, the others resume" in full.stdout
    assert "Traceback" not in full.stdout + full.stderr
    finished = {path: path.read_bytes() for path in Path(small_disk).rglob("result.json")}
    assert len(finished) == 1
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    roomy = subprocess.run(command, env=environment, cwd=line.CODE, capture_output=True, text=True, check=False)
    assert roomy.returncode == 0, roomy.stdout + roomy.stderr
    assert "1 of 2 runs are done already" in roomy.stdout
    assert all(path.read_bytes() == content for path, content in finished.items())
    assert len(runs.load(small_disk / "root").table) == 2
