"""``python -m analysis.forecast`` prints the forecast of GPT-3 175B's scores from 125M to 13B beside table H.1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpt3core import cli


@dataclass
class Nothing:
    """There is nothing to set: the table is the paper's."""


def main(argv: Sequence[str]) -> int:
    """Print the forecast of GPT-3 175B."""
    if "--help" in argv:
        print(__doc__)
        return 0
    cli.settings(Nothing(), argv)

    from rich.console import Console
    from rich.table import Table

    from analysis.accuracy.score_forecast import ACCURACIES, forecast_gpt3

    table = Table(title="GPT-3 175B from 125M to 13B: percent (90% interval) | measured", title_justify="left")
    for name in ("task", "metric", "zero-shot", "one-shot", "few-shot"):
        table.add_column(name)
    found = forecast_gpt3()
    for (task, metric), rows in found.groupby(["task", "metric"], sort=False):
        cells = {
            r.setting: f"{r.predicted:.0f} ({r.low:.0f} to {r.high:.0f}) | {r.measured:.0f}" for r in rows.itertuples()
        }
        table.add_row(str(task), str(metric), *(cells.get(s, "-") for s in ("zero-shot", "one-shot", "few-shot")))
    Console(width=None if Console().is_terminal else 120).print(table)
    judged = found[found.metric.isin(ACCURACIES)]
    error = (judged.predicted - judged.measured).abs().mean()
    inside = ((judged.low <= judged.measured) & (judged.measured <= judged.high)).mean()
    print(f"{len(judged)} accuracies and exact matches: mean absolute error {error:.2f} points, {inside:.0%} inside")
    return 0


if __name__ == "__main__":
    cli.run(main)
