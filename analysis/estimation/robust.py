"""Robust functions of a residual, which an objective sums over runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from analysis.laws import Array
from analysis.settings import DELTA


@dataclass(frozen=True, kw_only=True)
class Rho:
    """The robust function of the residual that an objective sums; see ``RHOS``."""

    name: str = "huber"
    delta: float = DELTA

    def __post_init__(self) -> None:
        """Refuse unknown names."""
        if self.name not in RHOS:
            raise ValueError(f"loss_function={self.name}: allowed are {', '.join(RHOS)}")
        if not self.delta > 0:
            raise ValueError(f"delta={self.delta}: it must be positive")

    def value(self, residual: Array) -> Array:
        """Its value."""
        return RHOS[self.name](residual, self.delta)[0]

    def weight(self, residual: Array) -> Array:
        """rho'(r)/r, the weight of iteratively reweighted least squares."""
        return RHOS[self.name](residual, self.delta)[1]


Function = Callable[[Array, Array | float], tuple[Array, Array, Array]]
"""Of residuals and delta, which broadcasts against them: rho, rho'(r)/r, and rho'' where it is positive."""


def _huber(residual: Array, delta: Array | float) -> tuple[Array, Array, Array]:
    """r^2/2 within delta, linear outside (Huber 1964)."""
    size = np.abs(residual)
    inside = np.minimum(size, delta)
    return inside * (size - 0.5 * inside), delta / np.maximum(size, delta), (size <= delta).astype(float)


def _least_squares(residual: Array, delta: Array | float) -> tuple[Array, Array, Array]:
    one = np.ones_like(residual)
    return 0.5 * residual**2, one, one


def _soft_l1(residual: Array, delta: Array | float) -> tuple[Array, Array, Array]:
    """A Huber without the kink: delta^2 (sqrt(1 + (r/delta)^2) - 1)."""
    root = np.sqrt(1 + (residual / delta) ** 2)
    return delta**2 * (root - 1), 1 / root, root**-3


def _cauchy(residual: Array, delta: Array | float) -> tuple[Array, Array, Array]:
    """Forgets far runs: delta^2/2 ln(1 + (r/delta)^2)."""
    square = (residual / delta) ** 2
    return 0.5 * delta**2 * np.log1p(square), 1 / (1 + square), np.maximum(1 - square, 0.0) / (1 + square) ** 2


RHOS: dict[str, Function] = {
    "huber": _huber,
    "least_squares": _least_squares,
    "soft_l1": _soft_l1,
    "cauchy": _cauchy,
}
HUBER = Rho()
LEAST_SQUARES = Rho(name="least_squares")
