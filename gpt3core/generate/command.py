"""Text from a trained run: ``python -m gpt3core.generate run=ID prompt=TEXT``.

run=ID               a finished run of the store, by its id, the beginning of it, or its label
runs=FOLDER          the store (default: ISOFLOP_ROOT or ~/.isoflop/runs)
step=last            the newest checkpoint of a run that is not finished; step=1200: that of a step that is kept
prompt=TEXT          taken as it stands; without one the text starts a document (after an end of text)
prompt_file=PATH     the prompt from a file, whole, its last line's end too; - reads standard input
tokens=64            how many at most; an end of text ends it sooner
temperature=1        0 takes the likeliest token each time, and needs no seed
top_k=40 top_p=0.9   draw from the 40 likeliest tokens, and of these from the likeliest that hold 90%
seed=0 n=1           draws are the same for the same seed; n texts
beam=4               the likeliest text as a whole, by a search of 4 (GPT-3's choice) in place of draws; n of the best
length_penalty=0.6   a text's log-probability is divided by its length to this power
threads=1            of the CPU; more pay for models beyond some tens of millions of parameters
roll=false           go on past the end of the context: its newest half is read anew; false stops there and says so

A run with data.mask_documents does not see the end of text that comes before a document, as it did not in training.

The text goes to standard output as it comes, without the prompt; several are set apart by lines. The arithmetic is
fp32, on a GPU where there is one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpt3core import cli
from gpt3core.errors import UsageError
from gpt3core.generate.choices import Sampling, Search
from gpt3core.store import places

if TYPE_CHECKING:
    from gpt3core.generate.trained import Trained

MAX_BYTES = 10_000_000  # of a prompt's file: more than any context
STANDARD_INPUT = "-"


@dataclass(kw_only=True)
class GenerateSettings:
    """What to continue, by which run, and how."""

    run: str | None = None
    runs: str | None = None
    step: str | None = None
    prompt: str | None = None
    prompt_file: str | None = None
    tokens: int = 64
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    n: int = 1
    beam: int | None = None
    length_penalty: float | None = None
    threads: int = 1
    roll: bool = False

    def how(self) -> Sampling | Search:
        """How tokens are chosen.

        Raises:
            ValueError: in one sentence, for what cannot be meant or would have no effect.
        """
        if self.run is None:
            raise UsageError("run=ID is needed: the id, the label, or the beginning of the id of a trained run")
        if self.prompt is not None and self.prompt_file is not None:
            raise UsageError("prompt= and prompt_file= are both given: leave one out")
        if self.tokens < 0:
            raise UsageError(f"tokens={self.tokens}: zero or more is needed")
        if self.n < 1:
            raise UsageError(f"n={self.n}: 1 or more is needed")
        if self.beam is not None:
            return self._search()
        if self.length_penalty is not None:
            raise UsageError(f"length_penalty={self.length_penalty:g} has no effect without beam=: give both or none")
        if self.temperature == 0 and (name := next(iter([*self._drawing(), *(["n"] if self.n > 1 else [])]), None)):
            raise UsageError(
                f"{name}={getattr(self, name)} has no effect with temperature=0, which always gives the same text: "
                "leave one out"
            )
        temperature = 1.0 if self.temperature is None else self.temperature
        return Sampling(temperature=temperature, top_k=self.top_k, top_p=self.top_p, seed=self.seed or 0)

    def _drawing(self) -> list[str]:
        """What is given that says how tokens are drawn."""
        return [name for name in ("top_k", "top_p", "seed") if getattr(self, name) is not None]

    def _search(self) -> Search:
        assert self.beam is not None
        penalty = Search.length_penalty if self.length_penalty is None else self.length_penalty
        search = Search(beam=self.beam, length_penalty=penalty)
        without = ["temperature"] if self.temperature is not None else []
        if without := [*without, *self._drawing(), *(["roll"] if self.roll else [])]:
            raise UsageError(
                f"beam={self.beam} searches for the likeliest text within the context, so "
                f"{without[0]}={getattr(self, without[0])} has no effect: leave one out"
            )
        if self.n > self.beam:
            raise UsageError(f"n={self.n}: a search of beam={self.beam} ends with {self.beam} texts at most")
        return search


def main(argv: Sequence[str]) -> int:
    """The command."""
    if "--help" in argv:
        print(__doc__)
        return 0
    words, texts = cli.verbatim(argv, own := ("prompt", "prompt_file"))
    given = cli.settings(GenerateSettings(), words, beside=own)
    given.prompt, given.prompt_file = texts.get("prompt"), texts.get("prompt_file")
    how = given.how()

    import torch

    from gpt3core.generate import text, trained
    from gpt3core.train.process import settle_process

    assert given.run is not None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    root = places.local(given.runs) if given.runs else None
    settle_process(device, given.threads)
    here = trained.open_run(given.run, root=root, step=given.step, device=device)
    if given.step is not None:
        print(f"{here.run.run_id} at step {here.step} of {here.spec.steps}", file=sys.stderr)
    ids = text.encode(here.encoding, _prompt(given))
    if len(ids) > (n_ctx := here.spec.model.n_ctx):
        raise UsageError(f"the prompt has {len(ids)} tokens, and {n_ctx} fit the context of this run: shorten it")
    if given.top_k is not None and given.top_k >= (known := here.encoding.n_vocab):
        raise UsageError(f"top_k={given.top_k} has no effect: this run knows {known} tokens; give fewer, or none")
    cut = _search(here, ids, given, how) if isinstance(how, Search) else _draw(here, ids, given, how)
    if cut:
        ends = f"the text ends where the context of {n_ctx} tokens does"
        print(f"note: {ends}; with roll=true the command goes on", file=sys.stderr)
    return 0


def _prompt(given: GenerateSettings) -> str:
    """The prompt's text.

    Raises:
        UsageError: for a file that cannot be read as text.
    """
    if given.prompt_file is None:
        return given.prompt or ""
    try:
        if given.prompt_file == STANDARD_INPUT:
            raw = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with open(Path(given.prompt_file).expanduser(), "rb") as file:
                raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise UsageError(f"prompt_file={given.prompt_file} is larger than {MAX_BYTES} bytes: no context holds that")
        return raw.decode()
    except OSError as error:
        raise UsageError(f"prompt_file={given.prompt_file} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"prompt_file={given.prompt_file} is not UTF-8 text ({error.reason})") from error


def _draw(here: Trained, ids: list[int], given: GenerateSettings, how: Sampling) -> bool:
    """Write texts token by token, several after one another; whether one was cut by the context's end."""
    from gpt3core.generate.decode import CONTEXT, stream
    from gpt3core.generate.sampling import Sampler

    texts = stream(
        here.model,
        [ids] * given.n,
        tokens=given.tokens,
        choose=Sampler(how),
        end=here.encoding.eot_token,
        vocab=here.encoding.n_vocab,
        roll=given.roll,
    )
    out, cut = Output(here, given.n), False
    for found in texts:
        out.show([one.tokens for one in found])
        cut = any(one.ended == CONTEXT for one in found)
    out.close()
    return cut


def _search(here: Trained, ids: list[int], given: GenerateSettings, how: Search) -> bool:
    """Write the best texts of a beam search; whether one was cut by the context's end."""
    from gpt3core.generate.beam import beam_search
    from gpt3core.generate.decode import CONTEXT

    end, vocab = here.encoding.eot_token, here.encoding.n_vocab
    best = beam_search(here.model, ids, tokens=given.tokens, end=end, how=how, vocab=vocab)[: given.n]
    out = Output(here, max(1, len(best)))
    out.show([list(one.tokens) for one in best] or [[]])
    out.close()
    return any(one.ended == CONTEXT for one in best)


class Output:
    """Texts on standard output: one as it comes, several when all have ended."""

    def __init__(self, here: Trained, count: int) -> None:
        from gpt3core.generate.text import Text, visible

        self.texts = [Text(here.encoding) for _ in range(count)]
        self.latest: list[list[int]] = [[] for _ in range(count)]
        self._shown = 0
        self._spelt = visible if sys.stdout.isatty() else str

    def show(self, tokens: list[list[int]]) -> None:
        """Take in how far the texts are."""
        self.latest = tokens
        if len(self.texts) == 1:
            for token in tokens[0][self._shown :]:
                self._write(self.texts[0].push(token))
            self._shown = len(tokens[0])

    def close(self) -> None:
        """Write what is left, and the line's end."""
        if len(self.texts) == 1:
            self._write(self.texts[0].close() + "\n")
            return
        for number, (text, tokens) in enumerate(zip(self.texts, self.latest, strict=True), 1):
            whole = "".join(map(text.push, tokens)) + text.close()
            self._write(f"--- {number} of {len(self.texts)}\n{whole}\n")

    def _write(self, text: str) -> None:
        if text:
            sys.stdout.write(self._spelt(text))
            sys.stdout.flush()
