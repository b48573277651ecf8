"""L = E + A/N^alpha + B/D^beta with exponents that are held fixed or tied to one another.

Fixing a of N* ~ C^a = C^(beta/(alpha + beta)) ties beta to alpha: beta = alpha a/(1 - a).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from analysis.laws.base import Array, Data, Evaluated, non_negative
from analysis.laws.chinchilla import CHINCHILLA

ALPHA, BETA = 3, 4  # places in chinchilla's theta
_NAME = re.compile(r"^chinchilla\[alpha=(?P<alpha>[^,]*),beta=(?P<beta>[^,]*),ratio=(?P<ratio>[^\]]*)\]$")


@dataclass(frozen=True, kw_only=True)
class FixedExponents:
    """Chinchilla on a subspace: theta = (ln E, ln A, ln B, and the exponents that are free)."""

    alpha: float | None = None
    beta: float | None = None
    ratio: float | None = None  # beta/alpha, where it is given

    needs = ("N", "D")

    @property
    def name(self) -> str:
        """Key in fit.json; ``named`` reads it back."""
        alpha, beta, ratio = ("" if v is None else repr(v) for v in (self.alpha, self.beta, self.ratio))
        return f"chinchilla[alpha={alpha},beta={beta},ratio={ratio}]"

    @property
    def equation(self) -> str:
        """As a paper would print it, with what is fixed."""
        fixed = [f"{n} = {v:.4g}" for n, v in (("alpha", self.alpha), ("beta", self.beta)) if v is not None]
        tied = [] if self.ratio is None else ["alpha = beta" if self.ratio == 1 else f"beta/alpha = {self.ratio:.4g}"]
        return f"{CHINCHILLA.equation}, {', '.join(fixed + tied)}"

    @property
    def source(self) -> str:
        """Where it was published."""
        return f"{CHINCHILLA.source}; exponents fixed by the user"

    @property
    def parameters(self) -> tuple[str, ...]:
        """Published names: the fixed ones stand among them."""
        return CHINCHILLA.parameters

    @property
    def dimension(self) -> int:
        """Free parameters."""
        return int(self._axes.shape[1])

    @property
    def _axes(self) -> Array:
        """(5, k): chinchilla's theta is _axes @ theta + _origin."""
        free = np.eye(5)[:, :3]
        if self.alpha is not None or self.beta is not None:
            both = self.ratio is not None or (self.alpha is not None and self.beta is not None)
            return free if both else np.column_stack([free, np.eye(5)[:, BETA if self.alpha is not None else ALPHA]])
        tied = np.zeros(5)
        tied[[ALPHA, BETA]] = 1.0, self.ratio if self.ratio is not None else 1.0
        return np.column_stack([free, tied])

    @property
    def _origin(self) -> Array:
        found = np.zeros(5)
        alpha, beta, ratio = self.alpha, self.beta, self.ratio
        if ratio is not None:
            alpha = beta / ratio if alpha is None and beta is not None else alpha
            beta = alpha * ratio if beta is None and alpha is not None else beta
        found[ALPHA], found[BETA] = alpha or 0.0, beta or 0.0
        return found

    def on(self, data: Data) -> Evaluated:
        """The law on fixed data; see Law."""
        if self.dimension == 3:
            return _of_coefficients(self._bases(data))
        whole, axes, origin = CHINCHILLA.on(data), self._axes, self._origin

        def evaluate(theta: Array) -> tuple[Array, Array]:
            value, gradient = whole(theta @ axes.T + origin)
            return value, axes.T @ gradient

        return evaluate

    def starts(self, data: Data, loss: Array) -> Array:
        """Chinchilla's own starts, each brought to the nearest point of the subspace.

        Where coefficients alone are free, those of least relative squares and ones that share the loss alike: the way
        from there is a straight one.
        """
        if self.dimension == 3:
            bases = self._bases(data)
            alike = np.log(loss).mean() - np.log(3) - bases.mean(1)
            return np.stack([non_negative(np.exp(bases - np.log(loss))[:, None])[:, 0], alike])
        every = CHINCHILLA.starts(data, loss) - self._origin
        return np.asarray(np.unique(every @ np.linalg.pinv(self._axes).T, axis=0))

    def _bases(self, data: Data) -> Array:
        """What is added to ln E, ln A and ln B in the logarithm of each term, (3, n)."""
        ln_n, ln_d = np.log(data["N"]), np.log(data["D"])
        return np.stack([np.zeros_like(ln_n), -self._origin[ALPHA] * ln_n, -self._origin[BETA] * ln_d])

    def describe(self, theta: Array) -> dict[str, float]:
        """Chinchilla's parameters of one row."""
        return CHINCHILLA.describe(self._axes @ theta + self._origin)


def _of_coefficients(bases: Array) -> Evaluated:
    """ln of the sum of terms whose logarithms are theta plus a base each, (J, n), with its gradient."""

    def evaluate(theta: Array) -> tuple[Array, Array]:
        terms = theta[:, :, None] + bases  # (P, J, n)
        top = terms.max(1)
        np.exp(np.subtract(terms, top[:, None], out=terms), out=terms)
        total = terms.sum(1)
        return top + np.log(total), np.divide(terms, total[:, None], out=terms)

    return evaluate


HELD = FixedExponents(alpha=0.35, beta=0.35)
"""Near the published fits: .34 and .28 (Hoffmann et al. 2022), .348 and .366 (Besiroglu et al. 2024, arXiv 2404.10102),
.353 twice (Muennighoff et al. 2023, arXiv 2305.16264)."""


def fixed(alpha: float | None, beta: float | None, a: float | None, *, equal: bool) -> FixedExponents | None:
    """The law with what a user fixed; None where that is nothing.

    Args:
        a: of N* ~ C^a.
        equal: whether alpha = beta.
    """
    ratio = a / (1 - a) if a is not None else 1.0 if equal else None
    if alpha is None and beta is None and ratio is None:
        return None
    return FixedExponents(alpha=alpha, beta=beta, ratio=ratio)


def named(name: str) -> FixedExponents:
    """The law of a name."""
    match = _NAME.match(name)
    assert match is not None, f"{name} is no law"
    given = {key: float(value) if value else None for key, value in match.groupdict().items()}
    return FixedExponents(**given)
