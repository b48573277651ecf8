"""Parametric laws of parameters and tokens: Hoffmann et al. 2022 (approach 3) and its relatives.

For the separable laws the compute-optimal allocation under C = 6ND has a closed form (eq. 4 there).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from analysis.laws.base import Array, PowerSum

# theta = (ln E, ln A, ln B, alpha, beta)
CHINCHILLA = PowerSum(
    name="chinchilla",
    equation="L(N,D) = E + A/N^alpha + B/D^beta",
    source="Hoffmann et al. 2022 (arXiv 2203.15556), approach 3",
    parameters=("E", "A", "B", "alpha", "beta"),
    needs=("N", "D"),
    dimension=5,
    terms=(((0, None),), ((1, None), (3, "N")), ((2, None), (4, "D"))),
    published=lambda t: (np.exp(t[0]), np.exp(t[1]), np.exp(t[2]), t[3], t[4]),
)

# theta = (ln E, ln a, ln b, eta)
OVER_TRAINING = PowerSum(
    name="over_training",
    equation="L(C,M) = E + (a M^eta + b M^-eta) C^-eta, M = D/N, C = 6ND",
    source="Gadre et al. 2024 (arXiv 2403.08540), eq. 4",
    parameters=("E", "a", "b", "eta"),
    needs=("N", "D"),
    dimension=4,
    terms=(((0, None),), ((1, None), (3, "C/M")), ((2, None), (3, "CM"))),
    published=lambda t: (np.exp(t[0]), np.exp(t[1]), np.exp(t[2]), t[3]),
)


def allocation(params: Mapping[str, float], compute: Array) -> tuple[Array, Array]:
    """N* and D* of L = E + A/N^alpha + B/D^beta under 6ND = compute (Hoffmann et al. 2022, eq. 4).

    nan where an exponent is not positive: such a law has no optimum.
    """
    alpha, beta = params["alpha"], params["beta"]
    c = np.asarray(compute, float)
    if not (alpha > 0 and beta > 0):
        return np.full_like(c, np.nan), np.full_like(c, np.nan)
    a, _ = optimal_exponents(params)
    scale = (alpha * params["A"] / (beta * params["B"])) ** (1 / (alpha + beta))
    n = scale * (c / 6) ** a
    return n, c / (6 * n)


def optimal_exponents(params: Mapping[str, float]) -> tuple[float, float]:
    """a and b of N* ~ C^a, D* ~ C^b under 6ND = C (eq. 4 there); nan where an exponent of the law is not positive."""
    alpha, beta = params["alpha"], params["beta"]
    if not (alpha > 0 and beta > 0):
        return float("nan"), float("nan")
    return beta / (alpha + beta), alpha / (alpha + beta)
