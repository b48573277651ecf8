"""Robust functions of a residual, which an objective sums over runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from analysis.laws import Array

DELTA = 1e-3  # Hoffmann et al. 2022


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
        return RHOS[self.name][0](residual, self.delta)

    def weight(self, residual: Array) -> Array:
        """rho'(r)/r, the weight of iteratively reweighted least squares."""
        return RHOS[self.name][1](residual, self.delta)


def _huber(residual: Array, delta: Array | float) -> Array:
    size = np.abs(residual)
    inside = np.minimum(size, delta)
    return np.asarray(inside * (size - 0.5 * inside))


Function = Callable[[Array, Array | float], Array]  # of residuals and delta, which broadcasts against them
RHOS: dict[str, tuple[Function, Function, Function]] = {  # rho, rho'(r)/r, and rho'' where it is positive
    # r^2/2 within delta, linear outside (Huber 1964)
    "huber": (
        _huber,
        lambda r, delta: delta / np.maximum(np.abs(r), delta),
        lambda r, delta: (np.abs(r) <= delta).astype(float),
    ),
    "least_squares": (
        lambda r, delta: 0.5 * r**2,
        lambda r, delta: np.ones_like(r),
        lambda r, delta: np.ones_like(r),
    ),
    # a Huber without the kink: delta^2 (sqrt(1 + (r/delta)^2) - 1)
    "soft_l1": (
        lambda r, delta: delta**2 * (np.sqrt(1 + (r / delta) ** 2) - 1),
        lambda r, delta: 1 / np.sqrt(1 + (r / delta) ** 2),
        lambda r, delta: (1 + (r / delta) ** 2) ** -1.5,
    ),
    # forgets far runs: delta^2/2 ln(1 + (r/delta)^2)
    "cauchy": (
        lambda r, delta: 0.5 * delta**2 * np.log1p((r / delta) ** 2),
        lambda r, delta: 1 / (1 + (r / delta) ** 2),
        lambda r, delta: np.maximum(1 - (r / delta) ** 2, 0.0) / (1 + (r / delta) ** 2) ** 2,
    ),
}
HUBER = Rho()
LEAST_SQUARES = Rho(name="least_squares")
