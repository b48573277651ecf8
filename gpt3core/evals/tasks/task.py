"""What a task is: where its questions come from, how they become prompts, and what counts as a right answer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from gpt3core.evals.item import Item

if TYPE_CHECKING:
    import tiktoken

Kind = Literal["multiple_choice", "cloze", "generate"]
Score = Literal["sum", "per_token", "normalised"]
Metric = Literal["choice", "exact", "match", "f1", "bleu", "number", "passes"]


class Text(Protocol):
    """What tasks take of a corpus."""

    @property
    def validation_documents(self) -> list[dict[str, str]]:
        """Held-out documents as {"text", "domain"}."""

    @property
    def words(self) -> list[str]:
        """Frequent lower-case words of the training text, most frequent first."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """What items may be made from. Generated tasks need none of it."""

    data: Text | None = None
    encoding: tiktoken.Encoding | None = None
    paths: tuple[str, ...] = ()  # the file of the questions, and that of the examples if they have one
    content: str = ""  # sha256 of the files, where it is known what they held
    glance: bool = False  # only whether it suffices is asked: a few items will do where more could be made


@dataclass(frozen=True, kw_only=True)
class Split:
    """The questions of a task, and the items that examples are drawn from, the questions perhaps among them."""

    queries: Sequence[Item]
    pool: Sequence[Item]


class Source(Protocol):
    """Where the items of a task come from."""

    def items(self, rng: random.Random, count: int, material: Material) -> Split:
        """``count`` queries, and items for the examples and the prior.

        Raises:
            ValueError: in one sentence, when the material does not give as many.
        """


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task as data (Brown et al. 2020, section 2.4 and appendix G).

    Attributes:
        kind: multiple_choice: the choice with the best score is right; cloze: the answer's tokens are each the
            likeliest next one; generate: text is generated up to ``stop`` and compared with the answer.
        source: where the items come from.
        score: of a choice: the sum of its log-probabilities, their mean over its tokens, or the sum less that after
            ``answer_context`` alone, which is log P(choice | context) / P(choice | answer_context).
        metric: choice (multiple_choice); exact: the very answer; match: equal to it or an alias after SQuAD's
            normalisation; f1 of words; bleu; number: the last number is the answer's; passes: the program that the
            answer completes passes its item's test (run only where ``EvalSpec.run_programs`` allows it).
        stop: where an answer ends, not part of it. Without one (cloze only) it ends with its last token.
        other_stops: where an answer that is written ends too.
        delimiter: between examples, one or two newlines; none where examples run on.
        leading: whether the delimiter stands before the first example too, as in GPT-3's released files.
        instruction: a line in natural language before the examples, shown where the task is asked as NAME+instruction.
        answer_tokens: most tokens that are generated.
        beams: of the search for a generated answer; 1 is greedy (GPT-3: 4, length penalty 0.6).
        paper_shots: K of GPT-3's few-shot figures, None where the paper has no such task.
    """

    kind: Kind
    source: Source
    score: Score = "per_token"
    metric: Metric = "exact"
    answer_context: str = ""
    stop: str = "\n"
    other_stops: tuple[str, ...] = ()
    delimiter: str = "\n\n"
    leading: bool = False
    instruction: str = ""
    answer_tokens: int = 64
    beams: int = 1
    paper_shots: int | None = None

    @property
    def forced(self) -> bool:
        """Whether a greedy answer is wanted to the letter: right if each token of a right one is the likeliest."""
        return self.kind == "cloze" or (self.kind == "generate" and self.metric == "exact" and self.beams == 1)

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("kind", self.kind, get_args(Kind)),
            ("score", self.score, get_args(Score)),
            ("metric", self.metric, get_args(Metric)),
            ("delimiter", self.delimiter, ("", "\n", "\n\n")),
        ):
            if value not in allowed:
                raise ValueError(f"{name}={value!r}: allowed are {', '.join(map(repr, allowed))}")
        if (self.kind == "multiple_choice") != (self.metric == "choice"):
            raise ValueError(
                f"kind={self.kind} with metric={self.metric}: choice is the metric of multiple_choice alone"
            )
        if (self.score == "normalised") != bool(self.answer_context):
            raise ValueError(
                f"score={self.score} with answer_context={self.answer_context!r}: normalised needs one, others none"
            )
        if self.kind == "generate" and not self.stop:
            raise ValueError("stop='': a generated answer needs a text where it ends")
