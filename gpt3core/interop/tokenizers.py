"""The files from which ``transformers`` makes the tokenizer of a run: GPT-2's BPE, or a prefix of it."""

from __future__ import annotations

import json
from typing import Any

from gpt3core.data import tokenizer
from gpt3core.data.tokenizer import END_OF_TEXT

FILES = ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json")


def files(name: str, n_ctx: int) -> dict[str, bytes]:
    """File name -> content, for a tokenizer's name and a model's context."""
    size = tokenizer.vocab_size(name)
    letters, merges = tokenizer.letters(), tokenizer.merges(size - 1)
    vocab = {token: rank for rank, token in enumerate([*letters.values(), *(m.replace(" ", "") for m in merges)])}
    vocab[END_OF_TEXT] = size - 1
    settings = {
        "tokenizer_class": "GPT2Tokenizer",
        "model_max_length": n_ctx,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "unk_token": END_OF_TEXT,
    }
    pairs = "\n".join(["#version: 0.2", *merges, ""]).encode()
    return dict(zip(FILES, (_json(vocab), pairs, _json(_fast(vocab, merges)), _json(settings)), strict=True))


def _fast(vocab: dict[str, int], merges: list[str]) -> dict[str, Any]:
    """tokenizer.json, as the library ``tokenizers`` reads it."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    end = {"id": vocab[END_OF_TEXT], "content": END_OF_TEXT, "special": True, "normalized": False}
    end |= {"single_word": False, "lstrip": False, "rstrip": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [end],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": {**byte_level, "trim_offsets": False},
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": merges,
        },
    }


def _json(data: Any) -> bytes:
    return (json.dumps(data, ensure_ascii=False, indent=1) + "\n").encode()
