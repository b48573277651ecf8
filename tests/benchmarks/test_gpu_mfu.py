"""The benchmark of MFU goes its whole way on a CPU, and counts as others do."""

import pytest

from gpt3core import costs
from gpt3core.data.tokenizer import vocab_size
from gpt3core.sizes import GPT3
from tests.benchmarks import gpu_mfu


def test_the_same_path_runs_on_a_cpu_and_leaves_the_targets_open(capsys, isolated):
    gpu_mfu.main(["--cpu", "--steps", "3", "125M"])
    printed = capsys.readouterr().out.splitlines()
    (row,) = [line for line in printed if line.startswith("tiny")]
    assert "median of 3 steps of 512 tokens" in row
    assert "bf16, sdpa, compile none" in row
    assert printed[-1] == "TARGET mfu_125M_percent - >= 40 not-run"


def test_what_a_gpu_would_train_is_a_run(capsys, monkeypatch, isolated):
    asked = []
    monkeypatch.setattr(gpu_mfu.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu_mfu.torch.cuda, "get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    for name in ("empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(gpu_mfu.torch.cuda, name, lambda: None)
    monkeypatch.setattr(gpu_mfu, "measure", lambda name, spec, *_: asked.append((name, spec)) or 50.0)
    gpu_mfu.main([])
    assert [name for name, _ in asked] == list(gpu_mfu.GOALS)
    assert all(vocab_size(spec.data.tokenizer) <= spec.model.vocab_size for _, spec in asked)
    assert "TARGET mfu_760M_percent 50 >= 50 met" in capsys.readouterr().out.splitlines()


def test_without_a_gpu_it_says_so(capsys, monkeypatch):
    monkeypatch.setattr(gpu_mfu.torch.cuda, "is_available", lambda: False)
    gpu_mfu.main([])
    printed = capsys.readouterr().out
    assert "there is no GPU here" in printed
    assert [line for line in printed.splitlines() if line.startswith("TARGET")] == [
        f"TARGET mfu_{name}_percent - >= {goal:g} not-run" for name, goal in gpu_mfu.GOALS.items()
    ]


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA B200", 2250e12),
        ("Tesla V100-SXM2-32GB", None),
    ],
)
def test_peaks_by_the_names_that_drivers_give(name, peak):
    assert gpu_mfu.peak_flops(name) == peak


def test_the_published_count_gives_megatrons_flops_of_175b():
    """Narayanan et al. 2021, equation 3, without recomputation: 72 B s l h^2 (1 + s/(6h) + V/(12 l h)) a batch."""
    model = GPT3["175B"].model(vocab_size=51_200)
    s, l, h, v = model.n_ctx, model.n_layer, model.d_model, model.vocab_size  # noqa: E741
    megatron = 72 * l * h * h * (1 + s / (6 * h) + v / (12 * l * h))
    assert gpu_mfu.published_flops_per_token(model) == pytest.approx(megatron, rel=1e-3)
    assert costs.train_flops(model, 1) < gpu_mfu.published_flops_per_token(model)
