"""Predictions beyond the data and their intervals, beside the peers, on public runs and on simulated ladders.

``python -m tests.benchmarks.backtest [--public | --simulated] [--leave-one-out]``. With the last one the constants of
the intervals (backtest.Growth) are chosen anew for every family of tables, on all the other families, from a grid
around those that are in use, and the figures are those of the family left out. ``--steplaw=FILE`` adds the runs of
Li et al. 2025 (arXiv 2503.04715), which have no stated licence and are not shipped, as two more families.

Every table is cut at one tenth and at one thirtieth of its largest compute (where 20 runs are left); what lies above is
predicted from what lies below by our ensemble (what ``python -m analysis.fit predict=`` prints), by plain Huber and
least-squares fits of L(N,D) with the intervals of a pair bootstrap plus resampled residuals, and by simple-scaling-laws
0.2.0 (its default law; its mean and its new-run intervals). Tables are cut again after dropping the runs above a fifth
of their largest compute, so that short ones are judged more than twice. Printed: median absolute error, coverage and
width of nominal 95% intervals of a new run, and their interval score on log loss (Gneiting and Raftery 2007; smaller is
better), by table and in the mean.

The peer is installed by ``make peers``. The simulated ladders have known kinds of misspecification: the learning rate
off for large models, a warm-up that short runs pay for, embeddings counted as parameters, repeated data, a break.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import importlib.util
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import laws
from analysis.estimation import choices, ensemble, robust, solve, uncertainty
from analysis.estimation.ensemble import Ensemble
from analysis.reference.tables import reference
from analysis.runs import rules
from tests.benchmarks import left_out
from tests.benchmarks.ladders import ladders
from tests.benchmarks.target import target

DATA = Path(__file__).parent / "data"
CUTS, LEAST_RUNS, LEAST_SHORT, TOPS = (10, 30), 20, 10, (1, 5)
ALPHA = 0.05
OURS, PEER, WHAT = "isoflop", "simple-scaling-laws", ("error", "cover", "width", "score")
KINDS = ("none", "learning rate", "warm-up", "embedding", "repeated", "break")


def public() -> dict[str, pd.DataFrame]:
    """The public tables that carry the cuts."""
    found = {"hoffmann 234": reference("hoffmann2022_runs_234.csv").astype(float)}
    gadre = pd.read_csv(DATA / "gadre2024_models.csv")
    for name, rows in gadre.groupby("dataset_name"):
        for loss in ("c4_val", "openlm", "paloma_redpajama"):
            table = rows[["N", "D"]].astype(float).assign(loss=rows[f"loss_{loss}"])
            found[f"gadre {name} {loss}"] = table
    runs = pd.read_csv(DATA / "muennighoff2023_runs.csv")
    runs = runs.rename(columns={"params": "N", "tokens": "D", "unique_tokens": "U", "val_loss": "loss"}).drop(
        columns="name"
    )
    found["muennighoff, fresh data"] = runs[runs.D <= 1.05 * runs.U]
    found["repeated data (muennighoff)"] = runs  # the peers know nothing of repetition: a family of its own
    return {name: _complete(table) for name, table in found.items()}


def _complete(table: pd.DataFrame) -> pd.DataFrame:
    table = table.reset_index(drop=True).assign(run_id=lambda t: [f"r{i}" for i in range(len(t))], status="done")
    table["C"] = 6 * table.N * table.D
    if "U" not in table:
        table["U"] = table.D
    return table.assign(epochs=table.D / table.U)


def simulated() -> dict[str, pd.DataFrame]:
    """Two ladders, IsoFLOP and grid, of each kind of misspecification, two seeds each."""
    return {
        f"simulated, {kind}, {design} {seed}": _complete(_ladder(kind, design, 100 * KINDS.index(kind) + seed))
        for kind in KINDS
        for design in ("isoflop", "grid")
        for seed in range(2)
    } | {f"simulated, {name}": _complete(table) for name, table in ladders().items()}


def _ladder(kind: str, design: str, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    alpha, beta, e = rng.uniform(0.25, 0.45), rng.uniform(0.25, 0.45), rng.uniform(1.5, 2.2)
    a, b = 0.4 * 1e8**alpha * rng.uniform(0.5, 1.5), 0.4 * 2e9**beta * rng.uniform(0.5, 1.5)
    top, span = rng.uniform(20, 22.5), rng.uniform(3, 4.5)
    if design == "isoflop":
        budgets = 10 ** np.linspace(top - span, top, rng.integers(5, 9))
        cells = [(n, c / (6 * n)) for c in budgets for n in np.sqrt(c / 120) * np.geomspace(0.25, 4, 7)]
    else:
        sizes = np.geomspace(np.sqrt(10 ** (top - span) / 120), np.sqrt(10**top / 120), rng.integers(5, 8))
        cells = [(n, n * m) for n in sizes for m in (5, 10, 20, 40, 80, 160)]
    n, d = np.array(cells).T
    effective, counted = d, n
    if kind == "repeated":
        unique = np.quantile(d, 0.6)
        again = np.maximum(d / unique - 1, 0)
        effective = np.where(again > 0, unique * (1 + 15 * (1 - np.exp(-again / 15))), d)
    if kind == "embedding":
        counted = n + 50257 * (n / (12 * 0.008)) ** (1 / 3)
    loss = e + a / n**alpha + b / effective**beta
    if kind == "learning rate":
        loss *= 1 + 0.004 * np.log10(n / n.min()) ** 2 * rng.uniform(0.5, 1.5)
    if kind == "warm-up":
        loss *= 1 + rng.uniform(0.1, 0.4) * np.minimum(1, np.quantile(d, 0.02) / d)
    if kind == "break":
        bend = 0.015 * rng.choice([-1, 1])
        loss = e + (loss - e) * (1 + (6 * n * d / 10 ** (top - 1.5)) ** 2) ** -bend
    noise = rng.choice([0.001, 0.003, 0.006])
    return pd.DataFrame({"N": counted, "D": d, "loss": loss * np.exp(noise * rng.standard_normal(len(loss)))})


def steplaw(path: str) -> dict[str, pd.DataFrame]:
    """Ten runs of any learning rate and batch a cell of N and D, and four within 1% of their cell's best."""
    runs = (
        pd.read_csv(path).rename(columns={"params_nonembedding": "N", "tokens": "D"}).astype({"N": float, "D": float})
    )
    runs = runs[runs.loss < 6][["N", "D", "loss_smoothed"]].rename(columns={"loss_smoothed": "loss"})
    cell = runs.groupby(["N", "D"]).loss
    tuned = runs[runs.loss < 1.01 * cell.transform("min")].sample(frac=1, random_state=0).groupby(["N", "D"]).head(4)
    cloud = runs.sample(frac=1, random_state=0).groupby(["N", "D"]).head(10)
    return {"steplaw-tuned": _complete(tuned), "steplaw-cloud": _complete(cloud)}


def splits(name: str, table: pd.DataFrame) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """(below, above) the cuts."""
    least = LEAST_SHORT if any(few in name for few in (", short", "steplaw-tuned")) else LEAST_RUNS
    for top in TOPS:
        whole = table[table.C <= table.C.max() / top * 1.0001]
        for cut in CUTS:
            low = whole.C < whole.C.max() / cut
            if low.sum() >= least and (~low).sum() >= 2:
                yield whole[low].reset_index(drop=True), whole[~low].reset_index(drop=True)


Predicted = tuple[np.ndarray, np.ndarray, np.ndarray]  # ln L: centre, low, high


def fitted(below: pd.DataFrame) -> Ensemble:
    """The ensemble, after the rules."""
    passed, applied = rules.apply(below)
    found = ensemble.fit_ensemble(rules.with_ruled_out(passed, below, applied))
    assert found is not None
    return found


def ours(found: Ensemble, above: pd.DataFrame) -> Predicted:
    """Its predictions, with the intervals of a new run."""
    centre, _ = found.ln_loss(above)
    half = found.half_width(above, 1 - ALPHA)
    return centre, centre - half, centre + half


def plain(below: pd.DataFrame, above: pd.DataFrame, rho: robust.Rho) -> Predicted:
    """One fit of L(N,D); a bootstrap of its parameters with residuals drawn on top."""
    data, loss = choices.columns(below), below.loss.to_numpy(float)
    fit = solve.fit(laws.CHINCHILLA, data, loss, rho=rho)
    counts = uncertainty.resamples(np.arange(len(loss)), draws=400, seed=0)
    theta = uncertainty.bootstrap(fit, data, loss, counts)
    points = choices.columns(above)
    residual = np.log(loss / fit.predict(data))
    drawn = np.random.default_rng(0).choice(residual, (len(theta), len(above)))
    low, high = np.nanquantile(laws.CHINCHILLA.on(points)(theta)[0] + drawn, [ALPHA / 2, 1 - ALPHA / 2], axis=0)
    return np.log(fit.predict(points)), low, high


def peer(below: pd.DataFrame, above: pd.DataFrame) -> dict[str, Predicted]:
    """simple-scaling-laws with its defaults: intervals of a new run, and of the mean; nothing where it is missing."""
    if importlib.util.find_spec("simple_scaling_laws") is None:
        return {}
    import polars as pl
    import simple_scaling_laws

    names = {"N": "model_size__n", "D": "dataset_size__d"}
    runs = {new: below[old].to_numpy(float) for old, new in names.items()}
    ids = {"training_run_id": [str(i) for i in range(len(below))], "test_set_id": ["t"] * len(below)}
    model = simple_scaling_laws.fit(pl.DataFrame({**ids, **runs, "test_loss__l": below.loss.to_numpy(float)}), seed=0)
    points = {new: above[old].to_numpy(float) for old, new in names.items()}
    frame = pl.DataFrame({"point_id": [f"{i:06d}" for i in range(len(above))], **points})
    found = {}
    for kind in ("new-run", "mean"):
        rows = model.predict(frame, kind=kind, quantiles=[ALPHA / 2, 0.5, 1 - ALPHA / 2]).sort("point_id")
        columns = ("median", "q025", "q975")
        centre, low, high = (np.log(np.maximum(rows[f"test_loss__l__{c}"].to_numpy(), 1e-3)) for c in columns)
        found[f"simple-scaling-laws, {kind}"] = (centre, low, high)
    return found


def judge(predicted: Predicted, measured: np.ndarray, told: np.ndarray) -> dict[str, float]:
    """Median absolute error, coverage, median half width, interval score; all on ln L.

    Args:
        told: (n,) points that isoflop gives an interval for: the intervals of all methods are judged on these.
    """
    centre, low, high = predicted
    error = float(np.median(np.abs(measured - centre)))
    low, high, measured = low[told], high[told], measured[told]
    if not told.any():
        return {"error": error, **dict.fromkeys(WHAT[1:], np.nan)}
    missed = np.maximum(low - measured, 0) + np.maximum(measured - high, 0)
    return {
        "error": error,
        "cover": float(np.mean((low <= measured) & (measured <= high))),
        "width": float(np.median(high - low) / 2),
        "score": float(np.mean(high - low + 2 / ALPHA * missed)),
    }


def measured() -> pd.DataFrame:
    """A row a table, split and method."""
    chosen = {} if "--simulated" in sys.argv else public()
    chosen |= {} if "--public" in sys.argv else simulated()
    for word in sys.argv:
        chosen |= steplaw(word.partition("=")[2]) if word.startswith("--steplaw=") else {}
    rows = []
    for name, table in chosen.items():
        for below, above in splits(name, table):
            above = above[above.D <= rules.WORTHLESS_EPOCHS * above.U]
            found = fitted(below)
            trials = left_out.intervals(found, above) if "--leave-one-out" in sys.argv else {}
            methods = {
                OURS: ours(found, above),
                **trials,
                "Huber, bootstrap + residuals": plain(below, above, robust.HUBER),
                "least squares, the same": plain(below, above, robust.LEAST_SQUARES),
                **peer(below, above),
            }
            ln_loss = np.log(above.loss.to_numpy(float))
            told = np.isfinite(methods[OURS][1])
            print(f"{name}: {len(below)} below, {told.sum()} of {len(above)} above with an interval", file=sys.stderr)
            rows += [
                {"table": name, "method": method, "splits": 1, **judge(predicted, ln_loss, told)}
                for method, predicted in methods.items()
            ]
    return pd.DataFrame(rows)


def family(name: pd.Series) -> pd.Series:
    """The family of each table: its source, or the kind of its simulation."""
    return name.str.extract(r"^(simulated, [^,]*|[\w-]+)", expand=False)


def main() -> None:
    """Print the tables, and the targets."""
    warnings.simplefilter("ignore")
    by_table = measured().groupby(["table", "method"], sort=False).agg({"splits": "sum", **dict.fromkeys(WHAT, "mean")})
    means = by_table.drop(columns="splits").reset_index()
    means = means.assign(family=family(means.table))
    by_family = means.groupby(["family", "method"], sort=False)[list(WHAT)].mean()
    if "--leave-one-out" in sys.argv:
        left_out.report(by_family, OURS, PEER)
        return
    print((by_table * [1, 100, 100, 100, 100]).round(2).to_string())
    print("\nmean over the tables of a family, %\n" + (100 * by_family).round(2).to_string())
    everything = means.groupby("method", sort=False)[list(WHAT)].mean()
    print("\nmean over all tables, %\n" + (100 * everything).round(2).to_string())
    if "--simulated" not in sys.argv:
        names = by_family.index.get_level_values("family")
        public_mean = by_family[~names.str.startswith("simulated")].groupby("method", sort=False).mean()
        print("\nmean over the public families, %\n" + (100 * public_mean).round(2).to_string())
        targets(public_mean)


def targets(public_mean: pd.DataFrame) -> None:
    """Coverage, score and error on the public families, beside the best of the others."""
    own = public_mean.loc[OURS]
    plain_fits = public_mean.drop(index=[OURS, *[name for name in public_mean.index if PEER in name]])
    peers = public_mean[public_mean.index.str.contains(PEER)]
    target("backtest_coverage95_at_least", float(own.cover), ">=", 0.88)
    target("backtest_coverage95_at_most", float(own.cover), "<=", 0.99)
    target("backtest_median_error_over_best_plain_fit", float(own.error / plain_fits.error.min()), "<=", 1.0)
    error = None if peers.empty else float(own.error / peers.error.min())
    score = None if peers.empty else float(own.score / peers.score.min())
    target("backtest_median_error_over_simple_scaling_laws", error, "<=", 1.0)
    target("backtest_interval_score_over_simple_scaling_laws", score, "<=", 1.0)


if __name__ == "__main__":
    main()
