"""Words of the analysis as a paper prints them: powers raised, signs and arrows; and the numbers in them."""

from __future__ import annotations

import re

from gpt3core.words import MINUS, THIN, Symbols

# alone: a name of a run may hold the like of 1e5, between hyphens or dots
_NUMBER = r"(?<![\w./-])([-+]?\d+(?:\.\d+)?)e([-+]?\d+)(?![\w/=-]|\.\d)"
_POWER = r"(?<=[\w)\]])\^(\([^()]*\)|-?[\w.]*\w)"
_RAISED = re.compile(f"{_NUMBER}|{_POWER}")
_NEGATIVE = re.compile(r"(?<![^\s(])-(?=\d)")
_GREEK = {"alpha": "α", "beta": "β", "eta": "η", **{f"alpha_{of}": f"α_{of}" for of in "CNDS"}}
# in a sentence, with the interval behind it, which may say what it is of; an exponent with what it is raised on
_SAID = re.compile(
    r"(?<![\w.^+-])(?:\w\^)?[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?[kMBT%]?(?!\w)(?: \([^()]* to [^()]*\))?"
)
_IS_NUMBER = re.compile(r"[-+−]?[\d,]*\.?\d+(e[-+]?\d+)?[kMBT%]?( \(.*\))?( to .*)?|-|")


def pieces(text: str) -> list[tuple[str, bool]]:
    """A text in pieces, each with whether it is raised; put together they are the text as a reader reads it.

    Greek are exponents and what is marked as symbols: elsewhere alpha may be anybody's name.
    """
    text = _greek(text) if isinstance(text, Symbols) else text
    found: list[tuple[str, bool]] = []
    end = 0
    for match in _RAISED.finditer(text):
        found.append((text[end : match.start()], False))
        mantissa, exponent, power = match.groups()
        if power is None:
            lead = "" if mantissa == "1" else f"{mantissa.replace('-', MINUS)}{THIN}×{THIN}"
            found += [(f"{lead}10", False), (str(int(exponent)).replace("-", MINUS), True)]
        else:
            found.append((_greek(power.strip("()")).replace("-", MINUS), True))
        end = match.end()
    found.append((text[end:], False))
    return [(part if raised else _signs(part), raised) for part, raised in found if part]


def _signs(text: str) -> str:
    return _NEGATIVE.sub(MINUS, text).replace("+-", "±").replace(" -> ", " → ")


def _greek(text: str) -> str:
    return "".join(_GREEK.get(word, word) for word in re.split(r"(\W)", text))


def numbers(text: str) -> list[tuple[str, bool]]:
    """A text in pieces, each with whether it is a number; put together they are the text, and symbols where it is."""
    kind = Symbols if isinstance(text, Symbols) else str
    found, end = list[tuple[str, bool]](), 0
    for match in _SAID.finditer(text):
        found += [(text[end : match.start()], False), (match.group(), True)]
        end = match.end()
    return [(kind(part), is_one) for part, is_one in [*found, (text[end:], False)] if part]


def is_number(text: str) -> bool:
    """Whether a cell of a table is a number, with its interval or without: such cells stand to the right."""
    return _IS_NUMBER.fullmatch(text) is not None
