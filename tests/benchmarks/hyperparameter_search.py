"""Does the law of the best learning rate and batch hold for larger models? Step Law's runs, and simulated ones.

``python -m tests.benchmarks.hyperparameter_search [steplaw_dense.csv]``       a minute on a core

Public runs (Li et al. 2025, arXiv 2503.04715: 1,911 dense runs over 17 pairs of N and D, published without a licence
and so not shipped: name a copy with columns params_nonembedding, tokens, lr, batch_tokens in tokens, loss and
loss_smoothed). The law is fitted on the 13 pairs of at most 0.54B parameters and 50B tokens and asked for the two pairs
of 1.07B. What a choice gives away is its loss over that of the best run there; between runs the loss is interpolated
within their triangles in (ln lr, ln batch), and the nearest run's is printed too. Window and surface are chosen by
leaving out one of the 13 pairs at a time; that the batch is a law of D alone is Li et al.'s form, and the other one is
printed beside it. Peers: Step Law's own constants (which its authors fitted to all of these runs), DeepSeek's, and the
best run of the nearest smaller pair.

Simulated: pairs of a known law, two searches' worth of noisy trials each; do 95% intervals cover the truth ten times
beyond the largest size?
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.runs import tuned
from analysis.tuning import interval, judge, surface
from analysis.tuning.judge import Choice, Losses
from analysis.tuning.surface import Trials
from gpt3core.rule import PUBLISHED
from tests.benchmarks.target import target

RUNS = Path(os.environ.get("ISOFLOP_STEPLAW", "steplaw_dense.csv"))
LOSSES = (
    "loss_smoothed",
    "loss",
)  # the last batch's own loss is that batch's luck; theirs is smoothed over the last ones
MOST_N, MOST_D, HELD_N = 5.5e8, 5.0e10, 1.0e9
GIVEN_AWAY = 0.15  # percent
DRAWS, RESAMPLES = 40, 200
LR, BATCH = (8.0, -0.65, 0.25), (1.5, 0.0, 0.5)  # constant and exponents of the simulated truth


def read(path: Path, loss: str) -> pd.DataFrame:
    """The runs under isoflop's names."""
    table = pd.read_csv(path)
    names = {"params_nonembedding": "N", "tokens": "D"}
    return table.drop(columns="loss").assign(loss=table[loss]).rename(columns=names)


def fitted(table: pd.DataFrame, *, batch_of_n: bool = False) -> tuple[surface.Surface, judge.Judged]:
    """The law of some pairs, its form chosen among them."""
    data, known = surface.trials(table), judge.losses(table)
    found, _ = judge.choose(data, known, batch_of_n=batch_of_n)
    return surface.fit(data, found.form), found


def left_out_by(make: Callable[[pd.DataFrame], Choice], table: pd.DataFrame) -> list[float]:
    """What a peer gives away on each pair, made without it; percent."""
    pair, data, known = tuned.pairs(table), surface.trials(table), judge.losses(table)
    names = sorted(pair.unique())
    return [100 * known[k].given_away(make(table[pair != name])(*np.exp(data.z[k]))) for k, name in enumerate(names)]


def held(choice: Choice, data: Trials, known: list[Losses]) -> list[tuple[float, float]]:
    """Percent given away on each held-out pair: interpolated, and of the nearest run."""
    found = []
    for z, losses in zip(data.z, known, strict=True):
        chosen = choice(*np.exp(z))
        found.append((100 * losses.given_away(chosen), 100 * losses.given_away(chosen, nearest=True)))
    return found


def public(path: Path, loss: str) -> tuple[dict[str, list[tuple[float, float]]], float]:
    """Print the comparison on one column of losses; what each gives away on the held-out pairs, and ours left out."""
    table = read(path, loss)
    small = table[(table.N <= MOST_N) & (table.D <= MOST_D)].reset_index(drop=True)
    large = table[table.N >= HELD_N].reset_index(drop=True)
    data, known = surface.trials(large), judge.losses(large)
    law, judged = fitted(small)
    both, with_n = fitted(small, batch_of_n=True)
    smaller = judge.from_smaller(surface.trials(small), judge.losses(small), judged.form)

    def nearest(rows: pd.DataFrame) -> Choice:
        return judge.nearest_smaller(surface.trials(rows), judge.losses(rows), rows)

    choices = {
        "ours, batch*(D)": (law.best, list(100 * judged.given_away)),
        "ours, batch*(N, D)": (both.best, list(100 * with_n.given_away)),
        "nearest smaller pair's best": (nearest(small), left_out_by(nearest, small)),
    }
    for name, rule in PUBLISHED.items():
        choices[name] = (lambda n, d, r=rule: (r.lr.at(n, d), r.batch_tokens.at(n, d))), []
        choices[name][1].extend(left_out_by(lambda _, c=choices[name][0]: c, small))
    print(
        f"{loss}: {len(small)} runs of {judged.given_away.size} pairs fitted, {judged.form.words}: lr {law.lr.words},"
    )
    print(f"  batch {law.batch.words}; each next size from the smaller ones: {100 * smaller.mean():.3f}%")
    print(
        f"  {'percent given away':28s} left out: mean  worst   "
        + "".join(f"N={n:.3g}, D={d:.3g}   " for n, d in np.exp(data.z))
    )
    found = {}
    for name, (choice, left) in choices.items():
        found[name] = held(choice, data, known)
        cells = "".join(f"{a:8.3f} ({b:.3f} nearest)   " for a, b in found[name])
        print(f"  {name:28s} {np.mean(left):14.3f} {np.max(left):6.3f}  {cells}")
    return found, float(100 * judged.given_away.mean())


def simulated(random: np.random.Generator) -> pd.DataFrame:
    """Trials of nine pairs about a known optimum, by an asymmetric loss, with noise of 0.1%."""
    rows = []
    for n in (1e6, 4e6, 1.6e7):
        for ratio in (10, 30, 90):
            d = n * ratio
            best = np.log([law[0] * n ** law[1] * d ** law[2] for law in (LR, BATCH)])
            x = best + random.uniform(-1.6, 1.6, (24, 2)) + 0.2 * random.standard_normal(2)
            u, w = (x - best).T
            excess = 0.011 * (np.exp(u) - 1 - u) + 0.006 * w**2 - 0.004 * u * w
            loss = 2.5 * (n / 1e6) ** -0.05 * (1 + excess + 0.001 * random.standard_normal(len(x)))
            rows.append(
                pd.DataFrame({"N": n, "D": d, "lr": np.exp(x[:, 0]), "batch_tokens": np.exp(x[:, 1]), "loss": loss})
            )
    return pd.concat(rows, ignore_index=True)


def coverage() -> tuple[float, float]:
    """The share of simulated searches whose intervals of lr and of batch cover the truth at ten times the largest N."""
    n, d = 1.6e8, 4.8e9
    truth = {"lr": LR[0] * n ** LR[1] * d ** LR[2], "batch": BATCH[0] * n ** BATCH[1] * d ** BATCH[2]}
    covered: dict[str, list[bool]] = {"lr": [], "batch": []}
    missed: dict[str, list[float]] = {"lr": [], "batch": []}
    for seed in range(DRAWS):
        table = simulated(np.random.default_rng(seed))
        data = surface.trials(table)
        best, judged = judge.choose(data, judge.losses(table))
        law = surface.fit(data, best.form)
        drawn = interval.resample(data, law, RESAMPLES, seed, judge.as_good(best, judged))
        for which, value in truth.items():
            low, high = drawn.at(which, n, d)
            covered[which].append(low <= value <= high)
            missed[which].append(abs(float(np.log(getattr(law, which).at(n, d) / value))))
    for which in covered:
        print(f"simulated {which}: {np.mean(covered[which]):.0%} covered, median miss {np.median(missed[which]):.1%}")
    return float(np.mean(covered["lr"])), float(np.mean(covered["batch"]))


def main(argv: list[str]) -> int:
    """The script."""
    path = Path(argv[0]) if argv else RUNS
    ours: list[tuple[float, float]] | None = None
    peers: dict[str, list[tuple[float, float]]] = {}
    left: float | None = None
    if path.is_file():
        for loss in reversed(LOSSES):
            peers, left = public(path, loss)
        ours = peers.pop("ours, batch*(D)")
    rates, batches = coverage()
    for k, size in enumerate(("20B", "57B")):
        for j, how in enumerate(("interpolated", "nearest")):
            value = None if ours is None else ours[k][j]
            target(f"given_away_1.07B_{size}_{how}_percent", value, "<=", GIVEN_AWAY)
    target("given_away_left_out_mean_percent", left, "<=", GIVEN_AWAY)
    for name in ("steplaw", "deepseek", "nearest smaller pair's best"):
        ratio = None
        if ours is not None:
            ratio = float(np.mean([a for a, _ in ours]) / np.mean([a for a, _ in peers[name]]))
        target(f"given_away_1.07B_over_that_of_{name.split()[0]}", ratio, "<=", 1.0)
    target("lr_intervals_cover_ten_times_beyond", rates, ">=", 0.85)
    target("batch_intervals_cover_ten_times_beyond", batches, ">=", 0.85)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
