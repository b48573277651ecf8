"""How K examples and a query become one prompt (Brown et al. 2020, section 2.4 and appendix G)."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from gpt3core.evals.item import Item, Prompt
from gpt3core.evals.spec import INSTRUCTED
from gpt3core.evals.tasks.task import Split, Task

SPARE = 4  # drawn beyond K, in place of items that ask the query's own question

Encode = Callable[[str], list[int]]


def asked(name: str, task: Task, split: Split, shots: int, encode: Encode, n_ctx: int, draw: int = 0) -> list[Prompt]:
    """The prompts of a task's queries at K examples, or as many of them as the context holds.

    The examples of a query are the same for every model, and with and without the instruction.

    Args:
        n_ctx: tokens that a model reads at most, the end of text before the prompt among them.
        draw: of the examples.

    Raises:
        ValueError: in one sentence, for too few examples or a query that the context does not hold.
    """
    found, too_long = [], []
    for number, query in enumerate(split.queries):
        seed = f"isoflop:{name.removesuffix(INSTRUCTED)}:{number}:{shots}" + (f":{draw}" if draw else "")
        try:
            shown = examples(random.Random(seed), query, shots, split.pool)
        except ValueError as error:
            raise ValueError(f"task {name}: {error}") from error
        prompt = fitted(task, query, shown, encode, n_ctx)
        found.append(prompt)
        if prompt.cut and (tokens := length(task, prompt, encode)) > n_ctx:
            too_long.append(tokens)
    if too_long:
        raise ValueError(
            f"task {name}: {len(too_long)} of {len(found)} questions are longer than the context of {n_ctx} tokens "
            f"without any example, the longest has {max(too_long)}: give a longer n_ctx, or leave the task out"
        )
    return found


def examples(rng: random.Random, query: Item, shots: int, pool: Sequence[Item]) -> list[str]:
    """K examples as text, drawn for this query: of its own, or of the pool's other items.

    Raises:
        ValueError: when there are fewer than K to draw from.
    """
    if query.own and shots > len(query.own):
        raise ValueError(f"K={shots} examples are asked for, and a question has {len(query.own)}: give a smaller K")
    if query.own:
        return rng.sample(query.own, shots)
    for drawn in (min(len(pool), shots + SPARE), len(pool)):
        found = [item for item in rng.sample(pool, drawn) if item.context != query.context][:shots]
        if len(found) == shots:
            return [item.shown for item in found]
    raise ValueError(
        f"K={shots} examples are asked for, and there are {len(found)} items to draw them from: give a file with more "
        "examples, or a smaller K"
    )


def compose(task: Task, query: Item, shown: Sequence[str]) -> Prompt:
    """The prompt of a query after examples: the instruction, the examples and the query, the delimiter between them."""
    text = task.delimiter.join([*shown, query.context])
    if task.leading or task.instruction:
        text = f"{task.instruction}{task.delimiter}{text}"
    return Prompt(
        text=text,
        answer=query.answer,
        choices=query.choices,
        ending=query.ending,
        aliases=query.aliases,
        program=(query.context, query.test),
        shown=len(shown),
    )


def fitted(task: Task, query: Item, shown: Sequence[str], encode: Encode, n_ctx: int) -> Prompt:
    """The prompt with as many of the examples as the context holds, the first ones left out; else with none.

    Where an answer is written it has room for all of its tokens; without an example it has what room there is.
    """

    def fits(left_out: int) -> bool:
        return length(task, compose(task, query, shown[left_out:]), encode, written=True) <= n_ctx

    if fits(0):
        return compose(task, query, shown)
    if not shown:
        return replace(compose(task, query, ()), cut=True)
    low, high = 1, len(shown)  # with low - 1 left out it is too long
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle + 1, high)
    if high == len(shown):
        return fitted(task, query, (), encode, n_ctx)
    return compose(task, query, shown[high:])


def length(task: Task, prompt: Prompt, encode: Encode, *, written: bool = False) -> int:
    """Tokens that a model reads: an end of text, the prompt, and the longest answer with its end but for one token.

    Args:
        written: where the answer is not given but written, as many tokens as the task allows are reckoned for it.
    """
    stop = "" if task.kind == "multiple_choice" else task.stop
    pairs = *prompt.continuations, *(("", alias) for alias in prompt.aliases)
    longest = max(len(encode(given)) + len(encode(scored)) for given, scored in pairs)
    room = longest + len(encode(stop))
    if written and task.kind == "generate" and not task.forced:
        room = max(room, task.answer_tokens)
    return len(encode(prompt.text)) + room
