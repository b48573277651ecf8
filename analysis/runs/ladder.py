"""The runs that a sweep's recipe could make next, and the command that makes them.

A recipe says which sizes a ladder has and which of them suit a budget; this continues its budgets (or tokens) beyond
the runs made, and its sizes as far as those budgets want them. The recipe is read as plain data, as the sweep's folder
keeps it with its defaults; shapes, parameters and FLOPs are gpt3core's.
"""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.runs.rules import MAX_EPOCHS
from gpt3core import cli, costs, sizes
from gpt3core.errors import UsageError
from gpt3core.model.gpt_spec import GPTSpec

STEP = 10**0.5  # between budgets where the recipe has one only
STEPS = (1.5, 10.0)  # between which a step taken from the recipe must lie
ROUNDED = 0.01  # by which a step may differ from a twelfth of a decade, or several
WIDER = (1.15, 1.5)  # the same of the widths that continue a ladder
HEAD = 32  # widths of a nano ladder's heads: larger widths are its multiples
COMMAND = "python sweeps/sizes.py"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A size at a budget (exact training FLOPs) or at a number of tokens."""

    label: str
    size: Any  # what the recipe's key takes: a width, a name of Table 2.1, a shape
    model: GPTSpec
    at: float
    tokens: float
    key: str  # the recipe's key that ``at`` belongs to: budgets or tokens


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """What a recipe could run next."""

    recipe: Path
    family: str
    words: list[str]  # that the command needs whatever is chosen
    cells: list[Cell]
    left: str  # what was left out and why, in a sentence; may be empty

    def table(self) -> pd.DataFrame:
        """The cells as a store's runs are listed, a row each."""
        rows = []
        for cell in self.cells:
            counts = costs.params(cell.model)
            rows.append(
                {
                    "run_id": f"{cell.label} at {cell.at:.3g}",
                    "size": cell.label,
                    "params_total": counts.total,
                    "params_nonembedding": counts.nonembedding,
                    "tokens": cell.tokens,
                    "flops_model": costs.train_flops(cell.model, cell.tokens),
                    "epochs": 1.0,
                    "status": "planned",
                    "loss": np.nan,
                }
            )
        return pd.DataFrame(rows)

    def commands(self, chosen: Sequence[int], environment: str = "") -> list[str]:
        """The command lines that run these cells and keep the sweep's other runs; a nano ladder needs one only."""
        wanted: dict[tuple[str, float], list[Any]] = defaultdict(list)
        for i in sorted(chosen):
            cell = self.cells[i]
            wanted[cell.key, cell.at].append(cell.size)
        common = [f"recipe={self.recipe}", *self.words, "extend=true"]
        if self.family == "nano":
            budgets = ",".join(_number(at) for _, at in wanted)
            widths = ", ".join(f"{_number(at)}: {_list(found)}" for (_, at), found in wanted.items())
            return [_line(environment, [*common, f"budgets=[{budgets}]", f"widths_at={{{widths}}}"])]
        name = "sizes" if self.family == "gpt3" else "shapes"
        alike: dict[tuple[str, str], list[float]] = defaultdict(list)
        for (key, at), found in wanted.items():
            alike[key, _list(found)].append(at)
        lines = []
        for (key, listed), places in alike.items():
            others = [f"{other}=[]" for other in _keys(self.family) if other != key]
            numbers = ",".join(map(_number, places))
            lines.append(_line(environment, [*common, f"{name}={listed}", f"{key}=[{numbers}]", *others]))
        return lines


def read(recipe: Path, made: pd.DataFrame, largest: float) -> Ladder:
    """The cells of a sweep's recipe at its budgets and beyond, without those made.

    Args:
        recipe: the sweep's file.
        made: a store's runs, in whatever state: params_total, tokens, budget_flops, vocab, epochs, status.
        largest: exact training FLOPs of the largest run that may be proposed.

    Raises:
        UsageError: where the recipe has nothing to offer.
    """
    try:
        written = cli.read_yaml(recipe)
        if written["family"] == "profiles":
            raise UsageError(
                f"{recipe} places its sizes itself: give it a further budget (budgets=[...] in sizes.py), or "
                "candidates=FILE here"
            )
        ladder = {"nano": _nano, "gpt3": _gpt3, "shapes": _shapes}[written["family"]]
        every = [cell for cell in ladder(written, made, largest) if _flops(cell) <= largest * 1.001]
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{recipe} is no recipe of this version ({error!r:.80}): give candidates=FILE") from error
    words = []
    if written.get("adaptive"):
        words.append("adaptive=false")
    if written.get("replicas", 1) != 1:
        words.append("replicas=1")
    text = _unique_tokens(made)
    kept, short, repeated = [], 0, 0
    for cell in every:
        short += cell.tokens < float(written["min_tokens"])
        repeated += cell.tokens > MAX_EPOCHS * text
        if float(written["min_tokens"]) <= cell.tokens <= MAX_EPOCHS * text and not _is_made(cell, made):
            kept.append(cell)
    reasons = [f"{short} of fewer than {float(written['min_tokens']):.3g} tokens (min_tokens)"] if short else []
    reasons += [f"{repeated} whose text would be seen more than {MAX_EPOCHS:g} times"] if repeated else []
    left = f"left out of the recipe's grid: {', '.join(reasons)}" if reasons else ""
    if not kept:
        raise UsageError(
            f"{recipe} offers no further run of at most {largest:.3g} FLOPs{f' ({left})' if left else ''}: give "
            "largest=FLOPs, or candidates=FILE"
        )
    return Ladder(recipe=recipe, family=written["family"], words=words, cells=kept, left=left)


def beyond(values: Sequence[float], most: float) -> list[float]:
    """Values and their geometric continuation up to ``most``, in their own last step; to three digits."""
    known = sorted(set(values))
    step = min(max(known[-1] / known[-2] if len(known) > 1 else STEP, STEPS[0]), STEPS[1])
    even = 10 ** (round(12 * np.log10(step)) / 12)
    if abs(even / step - 1) < ROUNDED:  # 1e12, 3.16e12 go on to 1e13
        step = float(even)
    found, k = [v for v in known if v <= most * 1.001], 1
    while known[-1] * step**k <= most * 1.001:
        found.append(float(f"{known[-1] * step**k:.3g}"))
        k += 1
    return found


def _nano(written: Mapping[str, Any], made: pd.DataFrame, largest: float) -> Iterator[Cell]:
    """Widths within the recipe's span of its centre at every budget; the recipe's own, then wider ones."""
    vocab = int(made.vocab.iloc[0])
    given = sorted({*written["widths"], *(w for widths in written["widths_at"].values() for w in widths)})
    budgets = beyond(list(made.budget_flops.dropna().unique()), largest)
    centre = [
        float(written["center_params"]) * (b / float(written["center_flops"])) ** float(written["center_exponent"])
        for b in budgets
    ]
    span = float(written["span"])
    models = {w: _model(w, written, vocab) for w in given}
    while models and max(costs.params(m).nonembedding for m in models.values() if m) < max(centre) * span:
        width = _wider(sorted(models))
        models[width] = _model(width, written, vocab)
    for budget, middle in zip(budgets, centre, strict=True):
        for width, model in sorted(models.items()):
            if model is not None and middle / span <= costs.params(model).nonembedding <= middle * span:
                tokens = costs.tokens_for(model, budget)
                yield Cell(label=f"d{width}", size=width, model=model, at=budget, tokens=tokens, key="budgets")


def _model(width: int, written: Mapping[str, Any], vocab: int) -> GPTSpec | None:
    """A width's shape; None where the heads do not divide it."""
    try:
        return sizes.nano(width, vocab_size=vocab, **_shape(written))
    except ValueError:
        return None


def _shape(written: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a recipe's model that say a shape: parameters and FLOPs know no parametrisation."""
    return {key: value for key, value in written["model"].items() if not key.startswith("mup_")}


def _wider(widths: Sequence[int]) -> int:
    """The next width of a ladder: by its last step, in whole heads."""
    step = widths[-1] / widths[-2] if len(widths) > 1 else WIDER[1]
    return max(widths[-1] // HEAD + 1, round(widths[-1] * min(max(step, WIDER[0]), WIDER[1]) / HEAD)) * HEAD


def _gpt3(written: Mapping[str, Any], made: pd.DataFrame, largest: float) -> Iterator[Cell]:
    """The recipe's sizes of Table 2.1, and the larger ones, at its numbers of tokens and beyond."""
    vocab, model = int(made.vocab.iloc[0]), written["model"]
    known = list(sizes.GPT3)
    smallest = min(known.index(name) for name in [*written["sizes"], *made["size"]] if name in known)
    for name in known[smallest:]:
        built = sizes.GPT3[name].model(model["n_ctx"], vocab, model["band"])
        built = GPTSpec(**{**vars(built), "attention": model["attention"]})
        for tokens in beyond(written["tokens"], costs.tokens_for(built, largest)):
            if tokens >= sizes.GPT3[name].batch_tokens:
                yield Cell(label=name, size=name, model=built, at=tokens, tokens=tokens, key="tokens")


def _shapes(written: Mapping[str, Any], made: pd.DataFrame, largest: float) -> Iterator[Cell]:
    """The recipe's shapes at its budgets and numbers of tokens, and beyond."""
    vocab, budgets = int(made.vocab.iloc[0]), [*written["budgets"], *made.budget_flops.dropna().unique()]
    for n_layer, d_model, n_head, d_head in _listed(written, made):
        model = GPTSpec(
            n_layer=n_layer, d_model=d_model, n_head=n_head, d_head=d_head, vocab_size=vocab, **_shape(written)
        )
        size = {"n_layer": n_layer, "d_model": d_model, "n_head": n_head, "d_head": d_head}
        if d_model == n_head * d_head:
            del size["d_head"]  # its default
        label = f"{n_layer}x{d_model}"
        for budget in beyond(budgets, largest) if budgets else []:
            tokens = costs.tokens_for(model, budget)
            yield Cell(label=label, size=size, model=model, at=budget, tokens=tokens, key="budgets")
        for tokens in beyond(written["tokens"], costs.tokens_for(model, largest)) if written["tokens"] else []:
            yield Cell(label=label, size=size, model=model, at=tokens, tokens=tokens, key="tokens")


def _listed(written: Mapping[str, Any], made: pd.DataFrame) -> list[tuple[int, int, int, int]]:
    """(n_layer, d_model, n_head, d_head) of the recipe's shapes and of the runs made by an earlier one."""
    found = [
        (s["n_layer"], s["d_model"], s["n_head"], s.get("d_head") or s["d_model"] // s["n_head"])
        for s in written["shapes"]
    ]
    names = ["n_layer", "d_model", "n_head", "d_head"]
    found += [(int(a), int(b), int(c), int(d)) for a, b, c, d in made[names].drop_duplicates().to_numpy()]
    return list(dict.fromkeys(found))


def _flops(cell: Cell) -> float:
    return costs.train_flops(cell.model, cell.tokens)


def _is_made(cell: Cell, made: pd.DataFrame) -> bool:
    """Whether a run of the cell was made: the same parameters, and tokens that differ by rounding to whole batches."""
    same = made.params_total == costs.params(cell.model).total
    tokens = (made.tokens / cell.tokens - 1).abs() < 0.02
    if cell.key == "budgets":
        tokens |= (made.budget_flops / cell.at - 1).abs() < 1e-6
    return bool((same & tokens).any())


def _unique_tokens(made: pd.DataFrame) -> float:
    """Tokens of the text that the runs saw; without end where they do not say."""
    known = made[(made.epochs > 0) & (made.status == "done")]
    return float((known.tokens / known.epochs).median()) if len(known) else float("inf")


def _keys(family: str) -> tuple[str, ...]:
    return ("tokens",) if family == "gpt3" else ("budgets", "tokens")


def _number(value: float) -> str:
    return f"{value:.10g}"


def _list(values: Sequence[Any]) -> str:
    """A list as a user types it."""
    words = [
        "{" + ",".join(f"{k}: {v}" for k, v in value.items()) + "}" if isinstance(value, dict) else str(value)
        for value in values
    ]
    return f"[{','.join(words)}]"


def _line(environment: str, words: Sequence[str]) -> str:
    return " ".join([*([environment] if environment else []), COMMAND, *map(shlex.quote, words)])
