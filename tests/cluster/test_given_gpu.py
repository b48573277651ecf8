"""Which GPU a worker takes: the one that Ray gave it, whether Ray hides the others or not."""

from types import SimpleNamespace

import pytest
import ray

from sweeps.cluster import worker


@pytest.mark.parametrize(
    ("visible", "seen", "given", "number"),
    [
        (1, "5", ["5"], 0),  # as Ray does it by default: the others are hidden
        (1, None, ["5"], 0),  # hidden by another variable, as on AMD's
        (8, None, ["5"], 5),  # RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES=1
        (2, "6,7", ["7"], 1),
        (2, "GPU-8a,GPU-91", ["GPU-91"], 1),
        (4, "", ["2"], 2),
        (8, None, [], 0),
        (2, "0,1", ["5"], 0),  # a number of another list
    ],
)
def test_a_worker_takes_the_gpu_that_it_was_given(monkeypatch, visible, seen, given, number):
    context = SimpleNamespace(get_accelerator_ids=lambda: {"GPU": given, "TPU": []})
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if seen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    assert worker.given_gpu(visible) == number
