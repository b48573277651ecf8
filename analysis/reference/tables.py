"""The published tables, as frames."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import numpy as np
import pandas as pd

from analysis.laws.base import Array


def reference(name: str) -> pd.DataFrame:
    """A table by its file's name; SOURCES.md says where each comes from."""
    with resources.as_file(resources.files("analysis") / "reference" / name) as path:
        return pd.read_csv(path)


def gpt3_models() -> pd.DataFrame:
    """The eight GPT-3 models: model, size (as in target=), params, train_tokens, train_flops."""
    return reference("gpt3_models.csv")


@dataclass(frozen=True, kw_only=True)
class LossOfCompute:
    """A published L = coefficient C^-exponent, C in PF-days and L in nats per token, and where it holds."""

    label: str  # whose
    coefficient: float
    exponent: float
    low_pf_days: float  # of its figure
    high_pf_days: float
    counts: str  # what C counts, and which loss it is
    where: str  # it was published

    def loss(self, pf_days: Array) -> Array:
        """Nats per token, (n,)."""
        return np.asarray(self.coefficient * pf_days**-self.exponent)


def loss_of_compute() -> dict[str, LossOfCompute]:
    """The published laws of compute by name; one printed as (c/C)^exponent has the coefficient c^exponent."""
    table = reference("loss_of_compute.csv").set_index("name")
    table["coefficient"] = table.coefficient.fillna(table.pop("c_pf_days") ** table.exponent)
    return {
        str(name): LossOfCompute(**{str(k): v for k, v in row.items()}) for name, row in table.to_dict("index").items()
    }


def gpt3_scores() -> tuple[pd.DataFrame, Array]:
    """Table H.1 of Brown et al. 2020, without the test-server scores, which exist for 175B alone.

    Returns:
        One row a series (task, category, metric, setting), one column a size, in percent; and the sizes' training
        FLOPs (table D.1).
    """
    models, scores = gpt3_models(), reference("gpt3_table_H1.csv")
    scores = scores[scores.split != "test_server"]
    key = ["task", "category", "metric", "setting"]
    wide = scores.pivot_table(index=key, columns="model", values="value", sort=False)[list(models.model)]
    return wide.reset_index(), models.train_flops.to_numpy(float)
