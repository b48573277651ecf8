"""Published models that a law is asked about by name, counted as the law counts."""

from __future__ import annotations

from dataclasses import dataclass

from analysis.reference.tables import gpt3_models
from analysis.runs.conventions import Compute, Convention, Parameters
from gpt3core import costs
from gpt3core.errors import UsageError
from gpt3core.hints import nearest
from gpt3core.sizes import GPT3

PREFIX = "gpt3-"


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model as it was trained."""

    name: str
    n: float  # parameters, by the convention asked for
    d: float  # tokens
    c: float  # FLOPs, by the convention asked for


def check(name: str) -> None:
    """Refuse a name that is not known.

    Raises:
        UsageError: with the names that are.
    """
    known = tuple(gpt3_models()["size"])
    if name not in known:
        raise UsageError(f"target={name}{nearest(name, known)}: known are {', '.join(known)}")


def model(name: str, convention: Convention) -> Model:
    """A model of table D.1 (Brown et al. 2020), its N and C by a convention.

    N is the published one, which counts embeddings, or what is left without them in the shape of table 2.1; C is the
    published one where the convention's is what runs record.
    """
    check(name)
    (row,) = gpt3_models().set_index("size").loc[[name]].to_dict("records")
    total, tokens = float(row["params"]), float(row["train_tokens"])
    without = float(costs.params(GPT3[name.removeprefix(PREFIX).upper()].model()).nonembedding)
    n = without if convention.n is Parameters.NONEMBEDDING else total
    compute = {
        Compute.EXACT: float(row["train_flops"]),
        Compute.SIX_ND: costs.six_nd(n, tokens),
        Compute.KAPLAN: costs.six_nd(without, tokens),
    }
    return Model(name=name, n=n, d=tokens, c=compute[convention.c])
