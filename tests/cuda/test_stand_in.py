"""A run's path on a GPU that is not there, where torch was built for one."""

import shutil
import subprocess
import sys

import pytest
import torch

from tests.benchmarks import gpu_memory


def test_without_a_gpu_the_benchmark_says_how_to_go_the_way_all_the_same(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu_memory.main([])
    printed = capsys.readouterr().out.splitlines()
    assert "python -m tests.cuda.stand_in tests.benchmarks.gpu_memory" in printed[0]
    assert printed[1:] == [
        "TARGET gpu_memory_lent_over_planned - <= 1.1 not-run",
        "TARGET gpu_host_waits_in_a_step - <= 0 not-run",
    ]


@pytest.mark.soak
@pytest.mark.skipif(
    torch.version.cuda is None or not shutil.which("gcc"), reason="needs a CUDA build of torch, and gcc"
)
def test_a_rank_takes_the_memory_that_the_plan_counts_and_never_waits_for_the_device():
    command = [sys.executable, "-m", "tests.cuda.stand_in", "tests.benchmarks.gpu_memory", "125M", "1.3B-tensor"]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
    assert said.count("0 waits of the host") == 2
    assert [line.rpartition(" ")[2] for line in said.splitlines() if line.startswith("TARGET")] == ["met", "met"]
