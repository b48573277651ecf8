"""An evaluation: the questions of an ``EvalSpec`` put to a model, a row of the table each."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpt3core.data import formats
from gpt3core.data import tokenizer as tokenizers
from gpt3core.data.shards import Shards
from gpt3core.evals import classifier, examples, held_out, metrics, overlap, prompts, scoring, tasks
from gpt3core.evals.baselines import baselines
from gpt3core.evals.overlap import Overlap
from gpt3core.evals.scoring import Case
from gpt3core.evals.spec import HELD_OUT, QUESTION, EvalSpec, Question, question
from gpt3core.numerics import Numerics
from gpt3core.parallel.mesh import Mesh
from gpt3core.spec import RunSpec

KEPT_TOKENS = 4_000_000  # of prompts, about 150 MB
COLUMNS = (
    *(
        "task",
        "shots",
        "items",
        "version",
        "draw",
        "content",
        "fits",
        "shots_shown",
        "metric",
        "accuracy",
        "accuracy_se",
        "logprob",
        "logprob_se",
    ),
    *("chance", "prior_accuracy", "prior_logprob", "loss", "loss_se", "bits_per_byte"),
)


def check(spec: RunSpec, evals: EvalSpec, data: Shards) -> None:
    """Make everything that the evaluation needs: what it lacks is better known before the training than after it.

    Raises:
        ValueError: for an unknown task, too little text for it or the held-out loss, or questions that are too long.
    """
    held_out.windows(data, spec.model.n_ctx, evals.validation_tokens)
    for task in evals.tasks:
        metrics.require(tasks.named(task).metric, evals.run_programs)
        for shots in evals.shots:
            if classifier.knows(spec, task, shots):
                found = examples.of_task(task, evals.items, data, spec.data.tokenizer, evals.source(task)[0])
                formats.shape(found.asked, spec.data.tokenizer, spec.model.n_ctx)
            else:
                _cell(task, shots, evals.items, spec.model.n_ctx, spec.data.tokenizer, data, 0, evals.source(task))


def evaluate(
    model: Any,
    spec: RunSpec,
    evals: EvalSpec,
    data: Shards,
    numerics: Numerics,
    device: str = "cpu",
    known: Sequence[Mapping[str, Any]] = (),
    mesh: Mesh | None = None,
) -> dict[str, list[Any]]:
    """The held-out loss, then every task at every number of examples, a row each, as columns.

    The held-out row has ``loss`` (nats per token), its ``loss_se``, ``bits_per_byte``, of a mixture also each source's
    as ``loss.<source>`` and so on, and as items its tokens. In the others ``metric`` is the task's (``Task.metric``: of
    "choice" the right option has the best score, of "exact" the answer and its end are given to the letter), and
    ``accuracy`` its mean, from 0 to 1; ``accuracy_se`` is binomial, from Laplace's estimate, so that 0 of n has an
    error too, of "f1" that of the mean, of "bleu" a jackknife's. ``logprob`` is the mean log-probability of the whole
    right answer, in nats, without what ends it. ``chance`` is the accuracy of a blind choice, ``prior_accuracy`` and
    ``prior_logprob`` are those of the pool's answers. ``shots_shown`` is the mean number of examples that fitted the
    context; ``fits`` is false where that is less than K of any item, or an answer has not the room to be written.
    Where it is known which questions are in the training text there is ``spec.OVERLAP`` too.

    Args:
        model: as in ``scoring``.
        known: rows of earlier evaluations of the same model; what they answer is not asked again.
        mesh: whose replicas share text and questions out; all ranks come here together, and all have the table.

    Raises:
        ValueError: as ``check``.
    """
    mesh, answered = mesh or Mesh(), {question(row): row for row in known}
    rows: list[Mapping[str, Any]] = []
    for asked in evals.questions:
        task, shots, items, *_ = asked
        row = answered.get(asked)
        if row is None and task == HELD_OUT:
            row = {"fits": True, **held_out.measure(model, data, spec.model.n_ctx, items, device, mesh=mesh)}
        elif row is None and classifier.knows(spec, task, shots):
            row = classifier.row(model, spec, items, evals.source(task), data, numerics, device, mesh)
        elif row is None:
            row = _scored(model, spec, evals, data, numerics, device, mesh, asked)
        rows.append({**row, **dict(zip(QUESTION, asked, strict=True))})
    more = (*overlap.columns(rows), *held_out.columns(rows))
    return {name: [row.get(name) for row in rows] for name in (*COLUMNS, *more)}


def _scored(
    model: Any,
    spec: RunSpec,
    evals: EvalSpec,
    data: Shards,
    numerics: Numerics,
    device: str,
    mesh: Mesh,
    asked: Question,
) -> dict[str, Any]:
    """The row of a task at K examples."""
    name, shots, items, _, draw, _ = asked
    task, source = tasks.named(name), evals.source(name)

    def cell() -> _Cell:
        metrics.require(task.metric, evals.run_programs)
        return _cell(name, shots, items, spec.model.n_ctx, spec.data.tokenizer, data, draw, source)

    found, encoding = mesh.together(cell), tokenizers.load(spec.data.tokenizer)
    return found.row | scoring.score(model, task, found.cases, encoding, numerics, device, found.overlap, mesh)


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """The encoded prompts of a task at K examples, and its row but for the scores."""

    cases: list[Case]
    overlap: Overlap | None
    row: dict[str, Any]
    tokens: int


_kept: OrderedDict[tuple[Any, ...], _Cell] = OrderedDict()  # the next run is asked the same; the last used one last


def _cell(*asked: Any) -> _Cell:
    """As ``_made``, from those kept where it is among them."""
    cell = _kept.pop(asked, None) or _made(*asked)
    _kept[asked] = cell
    while len(_kept) > 1 and sum(one.tokens for one in _kept.values()) > KEPT_TOKENS:
        _kept.popitem(last=False)
    return cell


def _made(
    name: str,
    shots: int,
    count: int,
    n_ctx: int,
    tokenizer: str,
    data: Shards,
    draw: int,
    source: tuple[tuple[str, ...], str],
) -> _Cell:
    """The prompts of ``count`` items with so many examples, in the tokens of a run."""
    encoding = tokenizers.load(tokenizer)
    task = tasks.named(name)
    split = tasks.items(name, count, data, tokenizer, *source)
    found = prompts.asked(name, task, split, shots, encoding.encode_ordinary, n_ctx, draw)
    shown = [prompt.shown for prompt in found]
    fits = min(shown) == shots and not any(prompt.cut for prompt in found)
    row = {"fits": fits, "shots_shown": sum(shown) / len(shown)} | baselines(split.queries, split.pool)
    cases = [scoring.case(task, prompt, encoding) for prompt in found]
    encoded = [case.encoded for case in cases]
    return _Cell(
        cases=cases,
        overlap=overlap.known(data.meta, source[0], split.queries),
        row=row,
        tokens=sum(len(one.context) + sum(map(len, one.options)) for one in encoded),
    )
