"""Scores of a model: the answers to a task's prompts.

A model is what the ``engine`` asks; one that writes answers is a decoder of ours (``generate``).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt3core import pulse
from gpt3core.evals import answers, engine, metrics, overlap, programs
from gpt3core.evals.engine import Encoded, Reading, Tokens
from gpt3core.evals.item import Prompt
from gpt3core.evals.overlap import Mean, Overlap
from gpt3core.evals.tasks.task import Task
from gpt3core.numerics import Numerics
from gpt3core.parallel.mesh import Mesh

if TYPE_CHECKING:
    import tiktoken


@dataclass(frozen=True, kw_only=True)
class Case:
    """A prompt to be scored: its options, the right one first, or where there are no choices the right answer.

    Where an answer is forced (``Task.forced``) every right one is an option.
    """

    encoded: Encoded
    scored: tuple[range, ...]  # of each option the tokens whose probability counts
    rights: tuple[str, ...]
    program: tuple[str, str]  # what stands before and after an answer that is run


def case(task: Task, prompt: Prompt, encoding: tiktoken.Encoding) -> Case:
    """A prompt as tokens, after an end of text.

    What is given before an ending (Winograd), and what ends an answer, is read but not scored.

    Raises:
        ValueError: for an answer or a choice without text.
    """
    encode = encoding.encode_ordinary
    rights = tuple(dict.fromkeys((prompt.answer, *prompt.aliases)))
    stop: list[int] = []
    pairs = prompt.continuations
    if task.kind != "multiple_choice":
        stop, pairs = encode(task.stop), tuple(("", right) for right in (rights if task.forced else rights[:1]))
    if any(not scored for _, scored in pairs):
        raise ValueError(f"an answer or a choice after {prompt.text[-40:]!r} is empty: correct or leave out its item")
    parts = [(encode(given), encode(scored)) for given, scored in pairs]
    return Case(
        encoded=Encoded(
            context=(encoding.eot_token, *encode(prompt.text)),
            options=tuple((*given, *scored, *stop) for given, scored in parts),
        ),
        scored=tuple(range(len(given), len(given) + len(scored)) for given, scored in parts),
        rights=rights,
        program=prompt.program,
    )


def score(
    model: Any,
    task: Task,
    cases: Sequence[Case],
    encoding: tiktoken.Encoding,
    numerics: Numerics,
    device: str = "cpu",
    overlap_of: Overlap | None = None,
    mesh: Mesh | None = None,
) -> dict[str, Any]:
    """The columns metric, accuracy and logprob of a task's prompts, with their standard errors.

    Args:
        overlap_of: which of them are in the training text, where that is known: then ``spec.OVERLAP`` too.
        mesh: whose replicas share the prompts out.
    """
    mesh = mesh or Mesh()
    read = engine.read(model, [one.encoded for one in cases], numerics, device, mesh=mesh)
    sums = [
        [_total(reading, scored) for reading, scored in zip(readings, one.scored, strict=True)]
        for readings, one in zip(read, cases, strict=True)
    ]
    if task.kind == "multiple_choice":
        base = _without_context(model, task, cases, encoding, numerics, device, mesh)
        mean = _share([_right(task, one, base, s) for one, s in zip(cases, sums, strict=True)])
    elif task.forced:
        mean = _share([float(any(all(r.likeliest) for r in readings)) for readings in read])
    else:
        contexts = [one.encoded.context for one in cases]
        stops = [task.stop, *task.other_stops]
        tokens, beams = task.answer_tokens, task.beams
        texts = answers.write(model, contexts, encoding, stops=stops, tokens=tokens, beams=beams, mesh=mesh)
        if task.metric == metrics.PASSES:
            mean = _share(_passed(cases, texts, mesh))
        else:
            mean = _written(task.metric, texts, [one.rights for one in cases])
    accuracy, error = mean(range(len(cases)))
    logprobs = [of_options[0] for of_options in sums]
    n = len(logprobs)
    return {
        "metric": task.metric,
        "accuracy": accuracy,
        "accuracy_se": error,
        "logprob": math.fsum(logprobs) / n,
        "logprob_se": float(np.std(logprobs, ddof=1) / math.sqrt(n)) if n > 1 else 0.0,
        **overlap.given(overlap_of, mean),
    }


def _share(right: Sequence[float]) -> Mean:
    return lambda some: metrics.share([right[n] for n in some])


def _written(metric: str, texts: Sequence[str], rights: Sequence[Sequence[str]]) -> Mean:
    return lambda some: metrics.mean(metric, [texts[n] for n in some], [rights[n] for n in some])


def _right(task: Task, one: Case, base: dict[Tokens, float], sums: list[float]) -> float:
    """Whether the right option, which is the first, is better than all others (Brown et al. 2020, section 2.4)."""
    if task.score == "per_token":
        sums = [total / len(scored) for total, scored in zip(sums, one.scored, strict=True)]
    elif task.score == "normalised":
        sums = [total - base[option] for total, option in zip(sums, one.encoded.options, strict=True)]
    return float(sums[0] > max(sums[1:], default=-math.inf))


def _passed(cases: Sequence[Case], texts: Sequence[str], mesh: Mesh) -> list[float]:
    """Whether the program that each text completes passes its test; a replica's first rank runs its share of them.

    Raises:
        ValueError: where not even the first reference solution does.
    """

    def passes(one: Case, text: str) -> bool:
        before, after = one.program
        with pulse.busy("running a program that was written"):  # which ends, by its limits
            return programs.passes(before + text + after)

    def begin() -> None:
        if not passes(cases[0], cases[0].rights[0]):
            raise ValueError(
                f"the reference solution after {cases[0].program[0][-40:]!r} fails its own test: correct the item, or "
                f"see whether {sys.executable} -I -S starts on this machine"
            )

    mesh.together(begin)
    return mesh.spread(len(cases), lambda n: float(passes(cases[n], texts[n])))


def _without_context(
    model: Any,
    task: Task,
    cases: Sequence[Case],
    encoding: tiktoken.Encoding,
    numerics: Numerics,
    device: str,
    mesh: Mesh,
) -> dict[Tokens, float]:
    """The log-probability of every option after ``answer_context`` alone, where a task is scored so."""
    if task.score != "normalised":
        return {}
    scored = {o: r for one in cases for o, r in zip(one.encoded.options, one.scored, strict=True)}
    context = (encoding.eot_token, *encoding.encode_ordinary(task.answer_context))
    (readings,) = engine.read(model, [Encoded(context, tuple(scored))], numerics, device, mesh=mesh)
    return {o: _total(reading, r) for (o, r), reading in zip(scored.items(), readings, strict=True)}


def _total(reading: Reading, scored: range) -> float:
    """The log-probability of the tokens that count."""
    return math.fsum(reading.logprobs[t] for t in scored)
