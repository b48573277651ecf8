"""How likely a model finds given continuations of given contexts: batched by length, and nothing read twice.

A context is read once for all its options, and what several contexts begin with, such as the same examples, once for
all of them: its keys and values are kept, and the rest is read as trees after it (``generate.branches``). Only places
whose next token is asked for go through the head, a bounded number at a time.

A model is anything with ``hidden``: token ids (B, T) to the stream before the head (B, T, D), causal; and ``head``: any
positions (..., D) to logits (..., V). One whose ``hidden`` takes no ``past`` reads every continuation whole.

Replicas share the passes out. What is in a pass does not depend on how many they are, and so neither do the bits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from gpt3core import pulse
from gpt3core.generate import branches
from gpt3core.generate.branches import Tree
from gpt3core.generate.cache import Cache, keeps, padded
from gpt3core.model.products import whole_width
from gpt3core.numerics import Numerics
from gpt3core.parallel.mesh import Mesh

BATCH_TOKENS = 4096  # that a pass computes or looks back on, what fills up shorter sequences included
HEAD_PLACES = 256  # whose logits exist at a time: 50 MB in fp32 at GPT-2's vocabulary
TREE_TOKENS = 256  # of a line, where a prompt has more than one option: every two of them are compared

Tokens = tuple[int, ...]
Item = TypeVar("Item")
Arithmetic = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Encoded:
    """A prompt as tokens: a context and what may follow it, each non-empty."""

    context: Tokens
    options: tuple[Tokens, ...]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a model says of one continuation."""

    logprobs: tuple[float, ...]  # of each token after those before it, in nats
    likeliest: tuple[bool, ...]  # whether each token is the one that the model would choose


class _Asked(NamedTuple):
    """A token of an option, and where in a pass it is the next one."""

    line: int
    place: int
    prompt: int
    option: int
    nth: int


class _Pass(NamedTuple):
    """A pass that is to be made."""

    tokens: float  # that are read, and its share of what several passes read once
    asked: list[_Asked]
    hidden: Callable[[], Tensor]  # what the head reads of it: (B, T, D)


def read(
    model: Any,
    prompts: Sequence[Encoded],
    numerics: Numerics,
    device: str = "cpu",
    *,
    cached: bool = True,
    mesh: Mesh | None = None,
) -> list[list[Reading]]:
    """Of every prompt a reading of each option; the head is in fp32.

    Args:
        cached: keep keys and values; without, every continuation is read with all of its context.
        mesh: whose replicas share the passes out.
    """
    kind = numerics.autocast
    arithmetic = functools.partial(torch.autocast, device, getattr(torch, kind or "bfloat16"), enabled=kind is not None)
    found = [[([0.0] * len(option), [False] * len(option)) for option in p.options] for p in prompts]
    families = _families(prompts) if cached and keeps(model) else []
    shared = {number for _, numbers in families for number in numbers}
    alone = [number for number in range(len(prompts)) if number not in shared]
    trees = list(_as_trees(model, prompts, families, arithmetic))
    passes = [*trees, *_one_by_one(model, prompts, alone, arithmetic, device)]

    def made(number: int) -> tuple[list[float], list[bool]]:
        _, asked, hidden = passes[number]
        tokens = [prompts[a.prompt].options[a.option][a.nth] for a in asked]
        with torch.inference_mode(), whole_width(device):
            answers = _next(model.head, hidden(), asked, tokens)
        pulse.beat()
        return answers

    costs = [one.tokens for one in passes] if trees else None  # neighbours may go on from the same text
    told = (mesh or Mesh()).spread(len(passes), made, costs=costs, asks=model)
    for one, answers in zip(passes, told, strict=True):
        for a, logprob, likeliest in zip(one.asked, *answers, strict=True):
            logprobs, greedy = found[a.prompt][a.option]
            logprobs[a.nth], greedy[a.nth] = logprob, likeliest
    return [[Reading(logprobs=tuple(logs), likeliest=tuple(best)) for logs, best in options] for options in found]


def _next(
    head: Callable[[Tensor], Tensor], hidden: Tensor, asked: Sequence[_Asked], tokens: Sequence[int]
) -> tuple[list[float], list[bool]]:
    """The log-probabilities of tokens that are asked for, and whether each is the likeliest one of its place."""
    spots = {spot: number for number, spot in enumerate(dict.fromkeys((a.line, a.place) for a in asked))}
    lines, places = torch.tensor(list(spots)).t()
    streams = hidden[lines, places].float()  # (P, D)
    of = torch.tensor([spots[a.line, a.place] for a in asked], device=streams.device)
    wanted = torch.tensor(tokens, device=streams.device)
    logprobs, likeliest = torch.empty(len(asked), dtype=torch.double), torch.empty(len(asked), dtype=torch.bool)
    for first in range(0, len(streams), HEAD_PLACES):
        logits = head(streams[first : first + HEAD_PLACES]).float()  # (places, V)
        here = (of >= first) & (of < first + HEAD_PLACES)
        rows, columns = of[here] - first, wanted[here]
        totals, best = torch.logsumexp(logits, -1).double(), logits.argmax(-1)
        logprobs[here.cpu()] = (logits[rows, columns].double() - totals[rows]).cpu()
        likeliest[here.cpu()] = (best[rows] == columns).cpu()
    return logprobs.tolist(), likeliest.tolist()


# ------------------------------------------------------------------------------------------------ each with its context


def _one_by_one(
    model: Any, prompts: Sequence[Encoded], numbers: Sequence[int], arithmetic: Arithmetic, device: str
) -> Iterator[_Pass]:
    """Whole continuations, those that differ in their last token once, the shortest first."""
    rows: dict[Tokens, list[tuple[int, int]]] = {}
    for number in numbers:
        for k, option in enumerate(prompts[number].options):
            rows.setdefault(prompts[number].context + option[:-1], []).append((number, k))
    ordered = sorted(rows, key=lambda row: (len(row), row))
    for chunk in _batches(ordered, [len(row) for row in ordered]):
        asked = [
            _Asked(line, len(prompts[number].context) - 1 + index, number, k, index)
            for line, row in enumerate(chunk)
            for number, k in rows[row]
            for index in range(len(prompts[number].options[k]))
        ]
        yield _Pass(sum(map(len, chunk)), asked, functools.partial(_whole, model, chunk, arithmetic, device))


def _whole(model: Any, chunk: Sequence[Tokens], arithmetic: Arithmetic, device: str) -> Tensor:
    """What the head reads of whole continuations: (B, T, D)."""
    with arithmetic():
        found: Tensor = model.hidden(padded(chunk).to(device))
    return found


def _batches(items: Sequence[Item], tokens: Sequence[int]) -> Iterator[Sequence[Item]]:
    """Items, the shortest first, in batches of BATCH_TOKENS, or of one.

    Args:
        tokens: of each item.
    """
    first = 0
    for end in range(1, len(items) + 1):
        if end == len(items) or (end + 1 - first) * tokens[end] > BATCH_TOKENS:
            yield items[first:end]
            first = end


# ------------------------------------------------------------------------------------------------------ what is shared


Family = tuple[Tokens, list[int]]  # what contexts begin with, and whose contexts


def _families(prompts: Sequence[Encoded]) -> list[Family]:
    """Prompts by what is read once for them: half or more of several contexts, or one but for its last token.

    Of contexts in lexical order each joins the one before where that saves reading. Even where nothing would be read
    twice this pays: of the last layer less is computed.
    """
    found: list[Family] = []
    longest = 0  # context of the family before
    for number in sorted(range(len(prompts)), key=lambda n: prompts[n].context):
        context = prompts[number].context
        stem, numbers = found[-1] if found else ((), [])
        common = _common(stem, context[:-1])
        saved, before = len(numbers) * len(common), (len(numbers) - 1) * len(stem)
        if numbers and 2 * len(common) >= max(longest, len(context)) and saved > before:
            numbers.append(number)
            found[-1], longest = (common, numbers), max(longest, len(context))
        else:
            found.append((context[:-1], [number]))
            longest = len(context)
    return sorted((one for one in found if one[0]), key=lambda family: (len(family[0]), family[1]))


def _common(a: Tokens, b: Tokens) -> Tokens:
    """What both begin with."""
    return a[: next((place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(b))]


def _as_trees(
    model: Any, prompts: Sequence[Encoded], families: Sequence[Family], arithmetic: Arithmetic
) -> Iterator[_Pass]:
    """What each family shares, then the rest of every prompt's context with its options as branches."""
    stems = _Stems(model, arithmetic)
    for batch in _batches(families, [len(stem) for stem, _ in families]):
        shared, longest = tuple(stem for stem, _ in batch), len(batch[-1][0])
        lines = [line for row, family in enumerate(batch) for line in _lines(row, family, prompts)]
        lines.sort(key=lambda line: len(line.tree.tokens))
        chunks = list(_batches(lines, [longest + len(line.tree.tokens) for line in lines]))
        for chunk in chunks:
            tokens = sum(map(len, shared)) / len(chunks) + sum(len(line.tree.tokens) for line in chunk)
            asked = [asked for number, line in enumerate(chunk) for asked in _asked(number, line, prompts)]
            yield _Pass(tokens, asked, functools.partial(stems.read_on, shared, chunk))


class _Stems:
    """What some families share, which is read once for the passes that follow one another."""

    def __init__(self, model: Any, arithmetic: Arithmetic) -> None:
        self._model, self._arithmetic = model, arithmetic
        self._shared: tuple[Tokens, ...] = ()
        self._cache: Cache | None = None

    def read_on(self, shared: tuple[Tokens, ...], lines: Sequence[_Line]) -> Tensor:
        """What the head reads of lines after the texts that they go on from: (B, T, D)."""
        with self._arithmetic():
            if self._cache is None or self._shared is not shared:
                self._shared, self._cache = shared, Cache(self._model, len(shared[-1]))
                self._cache.take_in(self._model, shared)
            return branches.read(self._model, self._cache, [one.row for one in lines], [one.tree for one in lines])


class _Line(NamedTuple):
    """What is left of a prompt's context, and some of its options: their last tokens are asked for, not read."""

    row: int  # of its family's stem
    prompt: int
    first: int  # of the options
    tree: Tree


def _lines(row: int, family: Family, prompts: Sequence[Encoded]) -> Iterator[_Line]:
    """The lines of a family's prompts."""
    stem, numbers = family
    for number in numbers:
        trunk, first = prompts[number].context[len(stem) :], 0
        held: list[Tokens] = []
        for k, option in enumerate(prompts[number].options):
            if held and len(trunk) + sum(map(len, held)) + len(option) > TREE_TOKENS:
                yield _Line(row, number, first, Tree(trunk=trunk, branches=tuple(held)))
                held, first = [], k
            held.append(option[:-1])
        yield _Line(row, number, first, Tree(trunk=trunk, branches=tuple(held)))


def _asked(number: int, line: _Line, prompts: Sequence[Encoded]) -> Iterator[_Asked]:
    """The tokens of a line's options, the first of each after the trunk, the others after those before them."""
    for k, start in enumerate(line.tree.starts, line.first):
        for index in range(len(prompts[line.prompt].options[k])):
            yield _Asked(number, start + index - 1 if index else len(line.tree.trunk) - 1, line.prompt, k, index)
