"""The answers that a model writes to prompts, in fp32, up to a text that ends them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from gpt3core import pulse
from gpt3core.generate.beam import beam_search
from gpt3core.generate.cache import keeps
from gpt3core.generate.choices import Sampling, Search
from gpt3core.generate.decode import complete
from gpt3core.generate.sampling import Sampler
from gpt3core.parallel.mesh import Mesh

if TYPE_CHECKING:
    import tiktoken

BATCH = 16  # texts that grow together


def write(
    model: Any,
    prompts: Sequence[Sequence[int]],
    encoding: tiktoken.Encoding,
    *,
    stops: Sequence[str],
    tokens: int,
    beams: int = 1,
    mesh: Mesh | None = None,
) -> list[str]:
    """The continuation of every prompt, without the first of the stops or the end of text and what follows it.

    Args:
        tokens: of each at most; the context's end cuts it sooner.
        beams: 1 takes the likeliest token each time; more search for the likeliest text, with GPT-3's length penalty.
        mesh: whose replicas share the texts out, as many together as in one process.
    """
    search, greedy = Search(beam=beams), Sampler(Sampling(temperature=0))
    ends = _ends(encoding, stops)
    shared: dict[str, Any] = {
        "tokens": tokens,
        "end": encoding.eot_token,
        "vocab": encoding.n_vocab,
        "over": ends,
        "cached": keeps(model),
    }
    batches = list(_alike(prompts, BATCH if beams == 1 else 1))

    def written(number: int) -> list[list[int]]:
        batch = [prompts[n] for n in batches[number]]
        if beams == 1:
            texts = [text.tokens for text in complete(model, batch, choose=greedy, **shared)]
        else:
            best = beam_search(model, batch[0], how=search, **shared)
            texts = [list(best[0].tokens) if best else []]
        return texts

    told = (mesh or Mesh()).spread(len(batches), written, asks=model)
    found = dict(zip(chain(*batches), chain(*told), strict=True))
    return [_until(encoding.decode(found[n]), stops) for n in range(len(prompts))]


def _ends(encoding: tiktoken.Encoding, stops: Sequence[str]) -> Callable[[Sequence[int]], bool]:
    """Whether tokens hold one of the texts that end an answer; asked of each token in turn, so of the last ones."""
    newest = max((len(stop.encode()) for stop in stops), default=0)  # a token is a byte at least

    def over(tokens: Sequence[int]) -> bool:
        pulse.beat()  # a batch of texts may take minutes
        text = encoding.decode(list(tokens[-newest:])) if newest else ""
        return any(stop in text for stop in stops)

    return over


def _until(text: str, stops: Sequence[str]) -> str:
    for stop in stops:
        text = text.split(stop, 1)[0]
    return text


def _alike(prompts: Sequence[Sequence[int]], size: int) -> Iterator[list[int]]:
    """The numbers of prompts, those of about one length together."""
    order = sorted(range(len(prompts)), key=lambda n: len(prompts[n]))
    for first in range(0, len(order), size):
        yield order[first : first + size]
