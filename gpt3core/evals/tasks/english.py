"""English words by frequency, from a package: the word list of GPT-3's word scrambling without a network.

The paper takes the 10,000 most frequent words of Norvig's list with more than 4 and less than 15 letters (Brown et al.
2020, section 3.9.2). Here they are those of pyspellchecker's English dictionary (MIT licence; counts in subtitles of
films), which depends on no corpus that a model is trained on. Its file is pinned by hash.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import importlib.util
import json
from pathlib import Path

PACKAGE, VERSION, FILE = "spellchecker", "0.9.1", "resources/en.json.gz"
SHA256 = "2474a48af86fd81dccea9edd0bba6cd36dd2ecedc0ae217cefcb233bba28613c"
FREQUENT = 10_000


def words(shortest: int, longest: int) -> list[str]:
    """The lower-case words of so many letters, both included, the most frequent first.

    Raises:
        ValueError: when the package is missing or of another version.
    """
    return [word for word in _all() if shortest <= len(word) <= longest]


@functools.lru_cache(maxsize=1)
def _all() -> tuple[str, ...]:
    spec = importlib.util.find_spec(PACKAGE)
    advice = f"install it again: pip install pyspellchecker=={VERSION}"
    if spec is None or spec.origin is None:
        raise ValueError(f"the package of English words is missing; {advice}")
    path = Path(spec.origin).parent / FILE
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise ValueError(f"{path} is not that of version {VERSION}: other words would be asked; {advice}")
    counts: dict[str, int] = json.loads(gzip.decompress(content))
    plain = [word for word in counts if word.isascii() and word.isalpha() and word.islower()]
    return tuple(sorted(plain, key=lambda word: (-counts[word], word)))
