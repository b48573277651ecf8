"""A power law with one smooth break: Caballero et al. 2023, "Broken Neural Scaling Laws" (arXiv 2210.14891)."""

from __future__ import annotations

import itertools

import numpy as np
from scipy import special

from analysis.laws.base import Array, Data, Evaluated


class Broken:
    """theta = (ln E, ln b, c0, c1, ln d1, ln f1); the slope goes from -c0 to -(c0 + c1) around C = d1."""

    name = "broken"
    equation = "L(C) = E + b C^-c0 (1 + (C/d1)^(1/f1))^(-c1 f1)"
    source = "Caballero et al. 2023 (arXiv 2210.14891), eq. 1 with one break"
    parameters = ("E", "b", "c0", "c1", "d1", "f1")
    needs = ("C",)
    dimension = 6

    def on(self, data: Data) -> Evaluated:
        """The law on fixed data; see Law."""
        x = np.log(data["C"])

        def evaluate(theta: Array) -> tuple[Array, Array]:
            e, b, c0, c1, d, ln_f = (theta[:, i, None] for i in range(6))
            f = np.exp(ln_f)
            z = (x - d) / f
            soft, past = np.logaddexp(0.0, z), special.expit(z)  # past: the share of the break behind x
            power = b - c0 * x - c1 * f * soft
            value = np.logaddexp(e, power)
            share = np.exp(power - value)
            by_power = (np.ones_like(share), -x + 0 * share, -f * soft, c1 * past, -c1 * f * (soft - z * past))
            return value, np.stack([1 - share, *(share * slope for slope in by_power)], 1)

        return evaluate

    def starts(self, data: Data, loss: Array) -> Array:
        """Breaks over the range of C, sharp or smooth, slopes from regressions on either side, three floors."""
        x = np.log(data["C"])
        found = []
        for share, at, sharp in itertools.product((1e-6, 0.5, 0.9), (0.25, 0.5, 0.75), (0.3, 1.0, 3.0)):
            floor = share * loss.min()
            y, d = np.log(loss - floor), np.quantile(x, at)
            before = np.polyfit(x, y, 1) if (x <= d).sum() < 3 else np.polyfit(x[x <= d], y[x <= d], 1)
            after = before if (x > d).sum() < 3 else np.polyfit(x[x > d], y[x > d], 1)
            found.append([np.log(floor), before[1], -before[0], before[0] - after[0], d, np.log(sharp)])
        return np.array(found)

    def describe(self, theta: Array) -> dict[str, float]:
        """Published parameters of one row of theta."""
        c0, c1 = (float(theta[i]) for i in (2, 3))
        with np.errstate(over="ignore"):
            e, b, d, f = (float(np.exp(theta[i])) for i in (0, 1, 4, 5))
        return {"E": e, "b": b, "c0": c0, "c1": c1, "d1": d, "f1": f}


BROKEN = Broken()
