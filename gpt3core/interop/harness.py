"""Our models under EleutherAI's lm-evaluation-harness: its tasks and its scores, read by our engine.

``lm_eval.simple_evaluate(model=harness.of_run("RUN"), tasks=[...])``; it needs ``pip install 'isoflop[lm-eval]'``. What
is longer than the context loses its beginning, as under the harness's own models. The arithmetic is fp32.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gpt3core.data.tokenizer import END_OF_TEXT
from gpt3core.errors import UsageError
from gpt3core.evals import answers, engine
from gpt3core.evals.engine import Encoded, Tokens
from gpt3core.generate import trained
from gpt3core.generate.cache import device_of
from gpt3core.model import native
from gpt3core.numerics import Numerics

try:
    from lm_eval import utils
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import TemplateLM
    from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs
except ModuleNotFoundError as error:
    raise UsageError(f"{error.name} is not installed: pip install 'isoflop[lm-eval]'") from error

if TYPE_CHECKING:
    import tiktoken

EXACT = Numerics(precision="fp32", kernel="sdpa")
ANSWER_TOKENS = 256  # of a text that a task sets no limit to, as under the harness's own models


def of_run(name: str, *, root: Path | None = None, step: str | None = None, device: str = "cpu") -> Decoder:
    """The model of a trained run.

    Args:
        name, root, step: as for ``generate.trained.open_run``.

    Raises:
        UsageError, StoreError: as there.
    """
    found = trained.open_run(name, root=root, step=step, device=device, kernel=kernel(device))
    return Decoder(found.model.eval(), found.encoding)


def kernel(device: str) -> str:
    """What reads whole prompts fastest: the functions in C, where there is a compiler and one thread of a CPU."""
    return "native" if device == "cpu" and torch.get_num_threads() == 1 and native.library() else trained.KERNEL


class Decoder(TemplateLM):
    """A decoder of ours with its tokenizer."""

    def __init__(self, model: Any, encoding: tiktoken.Encoding) -> None:
        super().__init__()
        self.model, self.encoding, self._device = model, encoding, device_of(model)
        self.max_length = int(model.spec.n_ctx)
        # the harness asks for the tokens of a context once for every choice after it
        self._tokens = functools.lru_cache(maxsize=8)(
            functools.partial(encoding.encode, allowed_special={END_OF_TEXT}, disallowed_special=())
        )

    @property
    def eot_token_id(self) -> int:
        """The end of text: the context of what has none (``prefix_token_id``), and read before nothing else."""
        return self.encoding.eot_token

    @property
    def tokenizer_name(self) -> str:
        """What the harness keeps requests under."""
        return f"isoflop-gpt2-{self.encoding.n_vocab}"

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """The tokens of a text, an end of text written out as one."""
        del add_special_tokens  # there are none to add
        return list(self._tokens(string))

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[tuple[str, str] | None, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        asked: dict[Tokens, list[Tokens]] = {}
        pairs = []
        for _texts, context, continuation in requests:
            if not 0 < len(continuation) <= self.max_length:
                raise ValueError(f"a continuation has {len(continuation)} tokens: 1 to {self.max_length} can be scored")
            room = self.max_length + 1 - len(continuation)
            pairs.append((tuple(context[-room:]), tuple(continuation)))
            asked.setdefault(pairs[-1][0], []).append(pairs[-1][1])
        prompts = [Encoded(context, tuple(dict.fromkeys(options))) for context, options in asked.items()]
        read = engine.read(self.model, prompts, EXACT, self._device.type)
        found = {
            (prompt.context, option): (sum(reading.logprobs), all(reading.likeliest))
            for prompt, readings in zip(prompts, read, strict=True)
            for option, reading in zip(prompt.options, readings, strict=True)
        }
        said = [found[pair] for pair in pairs]
        for (texts, _context, _continuation), one in zip(requests, said, strict=True):
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, one)
        return said

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """The log-probability of whole texts, in windows of the context that do not overlap."""
        found = []
        for (text,) in (request.args for request in requests):
            windows = utils.get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            pairs = [(None, *utils.make_disjoint_window(window)) for window in windows]
            found.append(sum(logprob for logprob, _ in self._loglikelihood_tokens(pairs)))
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), found[-1])
        return found

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """Greedy texts up to the first of the stops.

        Raises:
            ValueError: for ways to generate that are not greedy.
        """
        groups: dict[tuple[int, tuple[str, ...]], list[int]] = {}
        for number, (_, given) in enumerate(request.args for request in requests):
            how = normalize_gen_kwargs(given, ANSWER_TOKENS)
            tokens, stops = how.pop("max_gen_toks"), handle_stop_sequences(how.pop("until"), eos=END_OF_TEXT)
            other = {name: value for name, value in how.items() if value not in (None, False, 0)}
            if other:
                raise ValueError(f"generation_kwargs {other}: only greedy texts are written; leave them out")
            if not 0 < tokens < self.max_length:
                raise ValueError(f"max_gen_toks={tokens}: 1 to {self.max_length - 1} fit the context beside a prompt")
            groups.setdefault((tokens, tuple(stop for stop in stops if stop)), []).append(number)
        found = [""] * len(requests)
        for (tokens, stops), numbers in groups.items():
            prompts = [self.tok_encode(requests[n].args[0])[tokens - self.max_length :] for n in numbers]
            prompts = [prompt or [self.prefix_token_id] for prompt in prompts]
            texts = answers.write(self.model, prompts, self.encoding, stops=stops, tokens=tokens)
            for number, text in zip(numbers, texts, strict=True):
                found[number] = text
                self.cache_hook.add_partial("generate_until", requests[number].args, text)
        return found
