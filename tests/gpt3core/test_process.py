"""What a process is settled to before it trains on a GPU, as far as a machine without one can tell."""

import os

import pytest
import torch

from gpt3core.train import process


@pytest.fixture
def matmul():
    """The settings of products on GPUs, as they were after the test."""
    settings = torch.backends.cuda.matmul
    names = ("allow_bf16_reduced_precision_reduction", "allow_fp16_reduced_precision_reduction")
    before = {name: getattr(settings, name) for name in names}
    yield lambda: {getattr(settings, name) for name in names}
    for name, value in before.items():
        setattr(settings, name, value)


def test_sums_on_a_gpu_are_not_of_16_bits_and_its_allocator_is_the_users_where_he_says_so(monkeypatch, matmul):
    for name in process.ALLOCATOR_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    process.settle_process("cpu")
    assert matmul() == {True}, "torch's own, which only GPUs read"
    assert not {*process.ALLOCATOR_SETTINGS} & {*os.environ}
    process.settle_process("cuda")
    assert matmul() == {False}
    assert os.environ["PYTORCH_ALLOC_CONF"].startswith("expandable_segments:True")
    monkeypatch.delenv("PYTORCH_ALLOC_CONF")
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:128")
    process.settle_process("cuda")
    assert "PYTORCH_ALLOC_CONF" not in os.environ


def test_torch_knows_the_words_of_its_allocator():
    """Builds without GPUs may leave words alone that they do not know; of others they refuse wrong values."""
    told = torch._C._accelerator_setAllocatorSettings
    told(",".join(process.ALLOCATOR))
    for word in process.ALLOCATOR:
        with pytest.raises(ValueError):  # torch's builds say it in words of their own
            told(f"{word.partition(':')[0]}:neither")
