"""Each law in one place: log loss and its gradient, vectorised over batches of parameters.

Parameters are the rows of ``theta`` (P, k) in the coordinates in which the fit is well behaved (logarithms of
coefficients); a law maps them and the data (n,) to log losses (P, n) and gradients (P, n, k). ``describe`` gives the
published names back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Data = Mapping[str, Array]  # "C" in FLOPs, "N" in parameters, "D" in tokens; each (n,)


class Law(Protocol):
    """What the solver needs of a law."""

    @property
    def name(self) -> str:
        """Key in fit.json."""

    @property
    def equation(self) -> str:
        """As a paper would print it."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """Published names, as many as theta has columns."""

    def log_loss(self, theta: Array, data: Data) -> tuple[Array, Array]:
        """ln L (P, n) and its gradient (P, n, k)."""

    def starts(self, data: Data, loss: Array) -> Array:
        """A grid of starting points (P, k)."""

    def describe(self, theta: Array) -> dict[str, float]:
        """Published parameters of one row."""


def _sum_of_powers(terms: Array, slopes: Array) -> tuple[Array, Array]:
    """ln sum_j exp(terms_j), and the share of each term times the derivative of its exponent.

    Args:
        terms: (P, n, J) exponents.
        slopes: (P, n, J, k) their derivatives by the parameters.
    """
    top = terms.max(-1, keepdims=True)
    powers = np.exp(terms - top)
    total = powers.sum(-1, keepdims=True)
    share = powers / total
    return (top + np.log(total))[..., 0], np.einsum("pnj,pnjk->pnk", share, slopes)


class ComputeFrontier:
    """L(C) = (C_c / C)^alpha_C (Kaplan et al. 2020, eq. 1.3; Brown et al. 2020, figure 3.1). theta = (ln A, alpha), A
    = C_c^alpha.
    """

    name = "compute_frontier"
    equation = "L(C) = (C_c/C)^alpha_C"
    parameters = ("C_c", "alpha_C")

    def log_loss(self, theta: Array, data: Data) -> tuple[Array, Array]:
        """ln L (P, n) and its gradient (P, n, k)."""
        x = np.log(data["C"])
        value = theta[:, :1] - theta[:, 1:2] * x
        gradient = np.stack([np.ones_like(value), np.broadcast_to(-x, value.shape)], -1)
        return value, gradient

    def starts(self, data: Data, loss: Array) -> Array:
        """Starting points from log-linear regressions, (P, k)."""
        slope, level = np.polyfit(np.log(data["C"]), np.log(loss), 1)
        return np.array([[level, -slope]])

    def describe(self, theta: Array) -> dict[str, float]:
        """Published parameters of one row of theta."""
        level, alpha = theta
        return {
            "C_c": float(np.exp(level / alpha)) if alpha > 0 and level / alpha < 700 else float("nan"),
            "alpha_C": float(alpha),
        }


class ComputeFrontierWithFloor:
    """L(C) = E + (C_c / C)^alpha_C (Henighan et al. 2020, eq. 1.1). theta = (ln E, ln A, alpha)."""

    name = "compute_frontier_irreducible"
    equation = "L(C) = E + (C_c/C)^alpha_C"
    parameters = ("E", "C_c", "alpha_C")

    def log_loss(self, theta: Array, data: Data) -> tuple[Array, Array]:
        """ln L (P, n) and its gradient (P, n, k)."""
        x = np.log(data["C"])
        floor = np.broadcast_to(theta[:, :1], (len(theta), len(x)))
        power = theta[:, 1:2] - theta[:, 2:3] * x
        slopes = np.zeros((len(theta), len(x), 2, 3))
        slopes[:, :, 0, 0] = 1
        slopes[:, :, 1, 1] = 1
        slopes[:, :, 1, 2] = -x
        return _sum_of_powers(np.stack([floor, power], -1), slopes)

    def starts(self, data: Data, loss: Array) -> Array:
        """Starting points from log-linear regressions, (P, k)."""
        found = []
        for share in (1e-3, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99):
            floor = share * loss.min()
            slope, level = np.polyfit(np.log(data["C"]), np.log(loss - floor), 1)
            found.append([np.log(floor), level, -slope])
        return np.array(found)

    def describe(self, theta: Array) -> dict[str, float]:
        """Published parameters of one row of theta."""
        floor, level, alpha = theta
        scale = float(np.exp(level / alpha)) if alpha > 0 and level / alpha < 700 else float("nan")
        return {"E": float(np.exp(floor)), "C_c": scale, "alpha_C": float(alpha)}


class Chinchilla:
    """L(N, D) = E + A/N^alpha + B/D^beta (Hoffmann et al. 2022, approach 3).

    theta = (ln E, ln A, ln B, alpha, beta).
    """

    name = "chinchilla"
    equation = "L(N,D) = E + A/N^alpha + B/D^beta"
    parameters = ("E", "A", "B", "alpha", "beta")

    def log_loss(self, theta: Array, data: Data) -> tuple[Array, Array]:
        """ln L (P, n) and its gradient (P, n, k)."""
        n, d = np.log(data["N"]), np.log(data["D"])
        e, a, b, alpha, beta = (theta[:, i : i + 1] for i in range(5))
        terms = np.stack([np.broadcast_to(e, (len(theta), len(n))), a - alpha * n, b - beta * d], -1)
        slopes = np.zeros((len(theta), len(n), 3, 5))
        slopes[:, :, 0, 0] = slopes[:, :, 1, 1] = slopes[:, :, 2, 2] = 1
        slopes[:, :, 1, 3] = -n
        slopes[:, :, 2, 4] = -d
        return _sum_of_powers(terms, slopes)

    def starts(self, data: Data, loss: Array) -> Array:
        """Hoffmann et al.'s grid of 4,500 (appendix D.3)."""
        axes = (
            np.arange(-1, 1.1, 0.5),
            np.arange(0, 26, 5),
            np.arange(0, 26, 5),
            np.arange(0, 2.1, 0.5),
            np.arange(0, 2.1, 0.5),
        )
        return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 5)

    def describe(self, theta: Array) -> dict[str, float]:
        """Published parameters of one row of theta."""
        e, a, b, alpha, beta = theta
        return {
            "E": float(np.exp(e)),
            "A": float(np.exp(a)),
            "B": float(np.exp(b)),
            "alpha": float(alpha),
            "beta": float(beta),
        }
