"""The law of repeated data: Muennighoff et al. 2023, "Scaling Data-Constrained Language Models" (arXiv 2305.16264).

Tokens beyond the first epoch, and parameters beyond what the unique tokens can use, count for less and less:
L = E + A/N'^alpha + B/D'^beta with D' = U + U R_D* (1 - exp(-R_D/R_D*)), R_D = D/U - 1 the repetitions of U unique
tokens; N' alike with U_N = min(N, N_opt(U)) the parameters that are compute-optimal for U tokens.
"""

from __future__ import annotations

import numpy as np

from analysis.laws.base import Array, Data, Evaluated
from analysis.laws.chinchilla import CHINCHILLA

REPEATS = ("R_D", "R_N")  # parameters: repetitions until what is repeated is worth little
MOST_REPEATS = 1e6  # of these parameters: beyond, or below one over it, no loss tells a difference
FRESH = 1.05  # epochs up to which text counts as seen once
SMALL = 1e-4  # repetitions beside R*: below, the series is exact to 1e-8
_R_STARTS = np.log([1.0, 5.0, 15.0, 50.0])


class DataConstrained:
    """theta = (ln E, ln A, ln B, alpha, beta, ln R_D*, ln R_N*)."""

    name = "data_constrained"
    equation = "L(N,D,U) = E + A/N'^alpha + B/D'^beta, X' = U_X (1 + R_X* (1 - exp(-R_X/R_X*)))"
    source = "Muennighoff et al. 2023 (arXiv 2305.16264), eq. 5 to 7"
    parameters = ("E", "A", "B", "alpha", "beta", "R_D", "R_N")
    needs = ("N", "D", "U")
    dimension = 7

    def on(self, data: Data) -> Evaluated:
        """The law on fixed data; see Law."""
        ln_n, ln_d = np.log(data["N"]), np.log(data["D"])
        ln_u = np.minimum(np.log(data["U"]), ln_d)

        def evaluate(theta: Array) -> tuple[Array, Array]:
            e, a, b, alpha, beta, r_d, r_n = (theta[:, i, None] for i in range(7))
            ln_d_eff, _, by_rd = _effective(ln_d, ln_u, r_d)
            # N_opt(U) = G^(1 + beta/alpha) U^(beta/alpha), G = (alpha A / (beta B))^(1/(alpha + beta))
            with np.errstate(all="ignore"):
                ln_ratio = np.log(alpha / beta) + a - b
                ln_opt = ln_ratio / alpha + beta / alpha * ln_u
                free = ln_opt < ln_n  # more parameters than the unique tokens can use
                ln_un = np.where(free, ln_opt, ln_n)
                ln_n_eff, by_un, by_rn = _effective(ln_n, ln_un, r_n)
                terms = np.stack([np.broadcast_to(e, ln_n_eff.shape), a - alpha * ln_n_eff, b - beta * ln_d_eff])
                top = terms.max(0)
                powers = np.exp(terms - top)
                total = powers.sum(0)
                share_e, share_n, share_d = powers / total
                chain = np.where(free, -alpha * share_n * by_un, 0.0)  # d ln L / d ln U_N where U_N = N_opt
                gradient = np.stack(
                    [
                        share_e,
                        share_n + chain / alpha,
                        share_d - chain / alpha,
                        -share_n * ln_n_eff + chain * (1 / alpha**2 - ln_ratio / alpha**2 - beta / alpha**2 * ln_u),
                        -share_d * ln_d_eff + chain * (-1 / (alpha * beta) + ln_u / alpha),
                        -beta * share_d * by_rd,
                        -alpha * share_n * by_rn,
                    ],
                    1,
                )
            return top + np.log(total), gradient

        return evaluate

    def starts(self, data: Data, loss: Array) -> Array:
        """Those of L(N,D) on the runs without repetition (on all where these are few), times a grid of R*."""
        fresh = data["D"] <= FRESH * data["U"]
        chosen = fresh if fresh.sum() > CHINCHILLA.dimension else np.ones(len(loss), bool)
        subset = {name: column[chosen] for name, column in data.items()}
        rows = CHINCHILLA.starts(subset, loss[chosen])
        error = np.abs(np.log(loss[chosen]) - CHINCHILLA.on(subset)(rows)[0]).sum(1)
        rows = rows[np.argsort(error, kind="stable")[:12]]
        grid = np.stack(np.meshgrid(_R_STARTS, _R_STARTS, indexing="ij"), -1).reshape(-1, 2)
        return np.hstack([np.repeat(rows, len(grid), 0), np.tile(grid, (len(rows), 1))])

    def describe(self, theta: Array) -> dict[str, float]:
        """Published parameters of one row of theta."""
        return {
            name: float(value if name in ("alpha", "beta") else np.exp(value))
            for name, value in zip(self.parameters, theta, strict=True)
        }


def _effective(ln_x: Array, ln_u: Array, ln_r: Array) -> tuple[Array, Array, Array]:
    """ln X' and its derivatives by ln U and ln R*; R = X/U - 1.

    Exact where R* is so large that repeated text is as good as new: differences of numbers near one are none there.
    """
    ratio = np.exp(np.minimum(ln_x - ln_u, 50.0))
    star = np.exp(ln_r)
    x = (ratio - 1) / star
    gone, decay = -np.expm1(-x), np.exp(-x)
    g = 1 + star * gone
    bent = np.where(x < SMALL, x * x * (0.5 - x / 3), gone - x * decay)
    return ln_u + np.log(g), 1 - decay * ratio / g, star * bent / g


DATA_CONSTRAINED = DataConstrained()
