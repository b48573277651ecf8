"""Words of the analysis as a paper prints them: powers raised, indices lowered, signs; and the numbers in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from gpt3core.words import MINUS, THIN, Name, Symbols

Piece = tuple[str, tuple[str, ...]]  # words, and the tags of HTML that they stand in, the outermost first: sup, sub

_TYPED = re.compile(r"(?<![\w.])[a-z][a-z_.]+=\S+")  # a setting that a sentence says to give
# alone: a name of a run may hold the like of 1e5, between hyphens or dots
_NUMBER = r"(?<![\w./-])([-+]?\d+(?:\.\d+)?)e([-+]?\d+)(?![\w/=-]|\.\d)"
_POWER = r"(?<=[\w)\]'])\^(\([^()]*\)|-?[\w.]*\w)"
_RAISED = re.compile(f"{_NUMBER}|{_POWER}")
_LOWERED = re.compile(r"(?<!\w)([αβ](?=_[A-Z])|[CNDS](?=_c|_min)|[UR](?=_[DNX])|B(?=_crit))_(\w|min|crit)(?!\w)")
_NEGATIVE = re.compile(r"(?<![^\s(])-(?=\d)")
_GREEK = {"alpha": "α", "beta": "β", "eta": "η", **{f"alpha_{of}": f"α_{of}" for of in "CNDS"}}
# in a sentence, with the interval behind it, which may say what it is of; an exponent with what it is raised on
_SAID = re.compile(
    r"(?<![\w.^+-])(?:\w\^)?[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?[kMBT%]?(?!-?\w|[.,]\d)(?: \([^()]* to [^()]*\))?"
)


def pieces(text: str, names: Iterable[str] = ()) -> list[Piece]:
    """A text in pieces, each with its tags; put together they are the text as a reader reads it.

    Greek are exponents and what is marked as symbols: elsewhere alpha may be anybody's name. Settings stay as they are
    typed.

    Args:
        names: from outside, that the text may hold; they stay as they are.
    """
    if isinstance(text, Name):
        return [(text, ())]
    text = _greek(text) if isinstance(text, Symbols) else text
    found, end = list[Piece](), 0
    for match in re.finditer(_staying(text, names), text):
        found += [*_printed(text[end : match.start()]), (match.group(), ())]
        end = match.end()
    return [piece for piece in [*found, *_printed(text[end:])] if piece[0]]


def _staying(text: str, names: Iterable[str]) -> str:
    """A pattern of what stays as it is: settings, and those of the names that the text holds, the longest first."""
    there = sorted(filter(text.__contains__, filter(None, names)), key=len, reverse=True)
    return "|".join([_TYPED.pattern, *(rf"(?<!\w){re.escape(name)}(?!\w)" for name in there)])


def tagged(piece: Piece) -> str:
    """A piece as HTML; its words are to be escaped already."""
    words, tags = piece
    for tag in reversed(tags):
        words = f"<{tag}>{words}</{tag}>"
    return words


def _printed(text: str) -> list[Piece]:
    found, end = list[Piece](), 0
    for match in _RAISED.finditer(text):
        found += _lowered(_signs(text[end : match.start()]))
        mantissa, exponent, power = match.groups()
        if power is None:
            lead = "" if mantissa == "1" else f"{mantissa.replace('-', MINUS)}{THIN}×{THIN}"
            found += [(f"{lead}10", ()), (str(int(exponent)).replace("-", MINUS), ("sup",))]
        else:
            found += _lowered(_greek(power.strip("()")).replace("-", MINUS), "sup")
        end = match.end()
    return [*found, *_lowered(_signs(text[end:]))]


def _lowered(text: str, *tags: str) -> list[Piece]:
    found, end = list[Piece](), 0
    for match in _LOWERED.finditer(text):
        found += [(text[end : match.end(1)], tags), (match[2], (*tags, "sub"))]
        end = match.end()
    return [*found, (text[end:], tags)]


def _signs(text: str) -> str:
    return _NEGATIVE.sub(MINUS, text).replace("+-", "±").replace(" -> ", " → ")


def _greek(text: str) -> str:
    return "".join(_GREEK.get(word, word) for word in re.split(r"(\W)", text))


def numbers(text: str, names: Sequence[str] = ()) -> list[tuple[str, bool]]:
    """A text in pieces, each with whether it is a number; put together they are the text, and symbols where it is.

    A setting that a sentence says to give is one piece, and no number; so is a name.

    Args:
        names: as of ``pieces``.
    """
    if isinstance(text, Name):
        return [(text, False)]
    kind = Symbols if isinstance(text, Symbols) else str
    found, end = list[tuple[str, bool]](), 0
    for match in re.finditer(f"{_staying(text, names)}|({_SAID.pattern})", text):
        part, is_one = match.group(), match[1] is not None
        found += [(kind(text[end : match.start()]), False), (kind(part) if part not in names else Name(part), is_one)]
        end = match.end()
    return [piece for piece in [*found, (kind(text[end:]), False)] if piece[0]]
