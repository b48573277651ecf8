"""Between text and tokens: prompts as tokens, and tokens as text while they come, no character by halves."""

from __future__ import annotations

import codecs
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tiktoken


def encode(encoding: tiktoken.Encoding, text: str) -> list[int]:
    """The tokens of a prompt; an empty one is the end of text, after which a document starts.

    Raises:
        ValueError: for what is no Unicode text.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("prompt: it is not UTF-8; save it as UTF-8 and give it again") from error
    return encoding.encode_ordinary(text) or [encoding.eot_token]


class Text:
    """Tokens as text while they come: bytes that are not yet a character wait for the rest of it.

    What can never become a character is shown as U+FFFD, as everywhere in Unicode.
    """

    def __init__(self, encoding: tiktoken.Encoding) -> None:
        self.encoding = encoding
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The characters that this token completes."""
        return self._decoder.decode(self.encoding.decode_single_token_bytes(token))

    def close(self) -> str:
        """What is left when no token follows."""
        return self._decoder.decode(b"", final=True)


def visible(text: str) -> str:
    """Text for a terminal: what would steer it is spelt out, for a model may say anything."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) != "Cc" else ascii(c)[1:-1] for c in text)
