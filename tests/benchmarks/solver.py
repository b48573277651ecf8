"""The fit of L(N,D) to 234 runs: ours beside the published way, in one process, on one core.

``python -m tests.benchmarks.solver [--short]``. The published way is scipy's L-BFGS-B with finite differences from
each of Hoffmann et al.'s 4,500 starts, and for the bootstrap one such minimisation a resample from the optimum
(Besiroglu et al. 2024). --short takes every 30th start and every 20th resample and scales their time up.

Printed: CPU seconds, objectives, and the standard errors beside those of a converged bootstrap on the same resamples:
every resample minimised by L-BFGS-B with the exact gradient from our solution and from the best 24 screened starts.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import itertools
import sys
import time
from importlib import resources

import numpy as np
import pandas as pd
from scipy import optimize

from analysis import laws
from analysis.estimation import robust, solve
from tests.benchmarks.target import target

DRAWS = 4000


def runs_234() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The shipped runs."""
    with resources.as_file(resources.files("analysis") / "reference" / "hoffmann2022_runs_234.csv") as path:
        table = pd.read_csv(path).astype(float)
    return {"N": table.N.to_numpy(), "D": table.D.to_numpy()}, table.loss.to_numpy()


def objective(theta: np.ndarray, data: dict[str, np.ndarray], loss: np.ndarray, weights: np.ndarray) -> float:
    """The published objective: Huber of the log-sum-exp form; theta = (e, a, b, alpha, beta)."""
    e, a, b, alpha, beta = theta
    terms = np.stack([np.full(len(loss), e), a - alpha * np.log(data["N"]), b - beta * np.log(data["D"])])
    top = terms.max(0)
    residual = np.log(loss) - top - np.log(np.exp(terms - top).sum(0))
    size = np.abs(residual)
    rho = np.where(size <= robust.DELTA, 0.5 * size**2, robust.DELTA * (size - 0.5 * robust.DELTA))
    return float(weights @ rho)


def with_gradient(theta: np.ndarray, evaluate, observed: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
    """The same through our law, with its analytic gradient, for the converged bootstrap."""
    value, gradient = evaluate(theta[None])
    residual = observed - value[0]
    slope = weights * robust.HUBER.weight(residual) * residual
    return 1e4 * float(weights @ robust.HUBER.value(residual)), -1e4 * gradient[0] @ slope


def main() -> None:
    """Print the comparison."""
    short = "--short" in sys.argv
    data, loss = runs_234()
    n, ones = len(loss), np.ones(len(loss))
    axes = (np.arange(-1, 1.1, 0.5), *[np.arange(0, 26, 5)] * 2, *[np.arange(0, 2.1, 0.5)] * 2)
    starts = [np.array(start, float) for start in itertools.product(*axes)]

    ours = []
    for _ in range(5):
        began = time.process_time()
        fit = solve.fit(laws.CHINCHILLA, data, loss)
        ours.append(time.process_time() - began)
    point = float(np.median(ours))
    step = 30 if short else 1
    began = time.process_time()
    best = np.inf
    for start in starts[::step]:
        found = optimize.minimize(objective, start, args=(data, loss, ones), method="L-BFGS-B")
        best = min(best, float(found.fun))
    theirs = (time.process_time() - began) * step
    assert fit.theta is not None
    mine = objective(fit.theta, data, loss, ones)
    print(
        f"point fit of {n} runs: ours {point:.3f} CPU-s, L-BFGS-B from {len(starts)} starts {theirs:.1f} CPU-s"
        f"{' (every 30th, scaled)' if short else ''}: {theirs / point:.0f}x"
    )
    print(f"objective: ours {mine:.12e}, L-BFGS-B {best:.12e}, ours never worse: {mine <= best * (1 + 1e-9)}")
    print("parameters: " + ", ".join(f"{k} {v:.5g}" for k, v in fit.params.items()))

    counts = np.random.default_rng(42).multinomial(n, np.full(n, 1 / n), size=DRAWS).astype(float)
    began = time.process_time()
    draws = solve.refit(fit, data, np.log(loss), weights=counts)
    boot = time.process_time() - began
    stride = 20 if short else 4
    began = time.process_time()
    for row in counts[::stride]:
        optimize.minimize(objective, fit.theta, args=(data, loss, row), method="BFGS")
    slow = (time.process_time() - began) * stride
    print(
        f"bootstrap of {DRAWS}: ours {boot:.1f} CPU-s, BFGS with finite differences {slow:.0f} CPU-s "
        f"(every {stride}th, scaled): {slow / boot:.1f}x"
    )

    evaluate, observed = laws.CHINCHILLA.on(data), np.log(loss)
    screened = laws.CHINCHILLA.starts(data, loss)
    rough = np.array([robust.HUBER.value(observed - evaluate(row[None])[0]).sum() for row in screened])
    best_starts = screened[np.argsort(rough)[:6]]
    chosen = range(0, DRAWS, 4 if short else 1)
    converged = np.array(
        [
            min(
                (
                    optimize.minimize(
                        with_gradient,
                        start,
                        args=(evaluate, observed, counts[i]),
                        jac=True,
                        method="L-BFGS-B",
                        options={"maxiter": 3000, "ftol": 1e-15, "gtol": 1e-10},
                    )
                    for start in (draws[i], fit.theta, *best_starts[:2])
                ),
                key=lambda found: found.fun,
            ).x
            for i in chosen
        ]
    )
    names = laws.CHINCHILLA.parameters
    a = np.array([list(fit.law.describe(row).values()) for row in draws[list(chosen)]]).std(0, ddof=1)
    b = np.array([list(fit.law.describe(row).values()) for row in converged]).std(0, ddof=1)
    worst = float(np.abs(a / b - 1).max())
    print(f"standard errors over the same {len(chosen)} resamples, ours | converged:")
    print("  " + ", ".join(f"{name} {x:.5g} | {y:.5g}" for name, x, y in zip(names, a, b, strict=True)))
    print(f"  largest difference {worst:.2%}")
    target("solver_point_cpu_seconds", point, "<=", 1.0)
    target("solver_point_times_lbfgsb", theirs / point, ">=", 50.0)
    target("solver_objective_relative_excess", mine / best - 1, "<=", 1e-9)
    target("solver_bootstrap4000_cpu_seconds", boot, "<=", 20.0)
    target("solver_bootstrap4000_times_bfgs", slow / boot, ">=", 5.0)
    target("solver_standard_errors_relative_difference", worst, "<=", 0.02)


if __name__ == "__main__":
    main()
