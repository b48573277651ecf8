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

    from analysis.accuracy.score_forecast import ACCURACIES, forecast_gpt3
    from gpt3core import terminal

    columns, rows, found = ("task", "metric", "zero-shot", "one-shot", "few-shot"), [], forecast_gpt3()
    for (task, metric), of_task in found.groupby(["task", "metric"], sort=False):
        cells = {
            r.setting: f"{r.predicted:.0f} ({r.low:.0f} to {r.high:.0f}) | {r.measured:.0f}"
            for r in of_task.itertuples()
        }
        rows.append((str(task), str(metric), *(cells.get(shots, "-") for shots in columns[2:])))
    title = "GPT-3 175B from 125M to 13B: percent (90% interval) | measured"
    terminal.table(terminal.console(), title, columns, rows, words=columns, last=("one-shot", "zero-shot"))
    judged = found[found.metric.isin(ACCURACIES)]
    error = (judged.predicted - judged.measured).abs().mean()
    inside = ((judged.low <= judged.measured) & (judged.measured <= judged.high)).mean()
    print(f"{len(judged)} accuracies and exact matches: mean absolute error {error:.2f} points, {inside:.0%} inside")
    return 0


if __name__ == "__main__":
    cli.run(main)
