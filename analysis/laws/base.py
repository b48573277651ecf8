"""What a law is to the solver, and the form that most published laws share: a sum of powers.

Parameters are the rows of ``theta`` (P, k) in the coordinates in which a fit is well behaved (logarithms of
coefficients); a law maps them and the data (n,) to log losses (P, n) and gradients (P, k, n). ``describe`` gives the
published names back. Everything is vectorised over P: the starts of one fit, or the resamples of a bootstrap.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Data = Mapping[str, Array]
"""Columns (n,): "C" in FLOPs, "N" in parameters, "D" in tokens, "U" in unique tokens, "S" in optimizer steps."""

Evaluated = Callable[[Array], tuple[Array, Array]]
"""theta (P, k) -> ln L (P, n) and its gradient (P, k, n)."""

EXPONENTS = np.geomspace(0.02, 2.0, 14)  # of a start: 0.05 (Kaplan) to 1 and beyond, in steps of 1.4
EXPONENT_NAMES = ("alpha", "beta", "eta", "alpha_C", "alpha_N", "alpha_D", "alpha_S")  # published, positive in theory
ABSENT = np.log(1e-9)  # ln of a coefficient that a start sets to zero, relative to the loss


class Law(Protocol):
    """What the solver needs of a law."""

    @property
    def name(self) -> str:
        """Key in fit.json."""

    @property
    def equation(self) -> str:
        """As a paper would print it."""

    @property
    def source(self) -> str:
        """Where it was published."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """Published names."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns of the data that it reads."""

    @property
    def dimension(self) -> int:
        """k, the columns of theta."""

    def on(self, data: Data) -> Evaluated:
        """The law on fixed data: ln L and its gradient as a function of theta."""

    def starts(self, data: Data, loss: Array) -> Array:
        """Starting points (P, k)."""

    def describe(self, theta: Array) -> dict[str, float]:
        """Published parameters of one row."""


Factor = tuple[int, str | None]
"""(column of theta, what multiplies it in a term's exponent: minus ln of a variable, or one where it is None)."""


@dataclass(frozen=True, kw_only=True)
class PowerSum:
    """ln L = p ln sum_j exp(term_j), each term linear in theta: coefficients times powers of the variables.

    ``terms[j]`` lists the factors of term j; ``fixed[j]`` is a variable whose exponent in term j is one and not
    fitted; ``outer`` is the column of theta that holds ln p, where the sum as a whole is raised to a power.
    """

    name: str
    equation: str
    source: str
    parameters: tuple[str, ...]
    needs: tuple[str, ...]
    dimension: int
    terms: tuple[tuple[Factor, ...], ...]
    published: Callable[[Array], tuple[Array, ...]]  # of theta (k,) or (k, rows)
    fixed: Mapping[int, str] = field(default_factory=dict)
    outer: int | None = None

    def on(self, data: Data) -> Evaluated:
        """The law on fixed data; see Law."""
        n = len(data[self.needs[0]])
        # what a term's factors are multiplied with, (factors, n), and what is added to it
        bases = [np.stack([_factor(data, name) for _, name in term]) for term in self.terms]
        places = [[column for column, _ in term] for term in self.terms]
        offsets = {j: -log_variable(data, name) for j, name in self.fixed.items()}
        level = {
            j: np.exp(offsets.get(j, np.zeros(n)))
            for j, term in enumerate(self.terms)
            if [name for _, name in term] == [None]
        }

        def evaluate(theta: Array) -> tuple[Array, Array]:
            terms = np.empty((len(self.terms), len(theta), n))
            for j, (basis, place) in enumerate(zip(bases, places, strict=True)):
                if j in level:  # a coefficient alone: one exponential for all runs
                    np.multiply(np.exp(theta[:, place]), level[j], out=terms[j])
                    continue
                np.matmul(theta[:, place], basis, out=terms[j])
                if j in offsets:
                    terms[j] += offsets[j]
                np.exp(terms[j], out=terms[j])  # one that overflows is far from any loss: nobody wants its value
            total = terms.sum(0)
            value = np.log(total)
            power = np.exp(theta[:, self.outer, None]) if self.outer is not None else 1.0
            share = power / total
            gradient = np.empty((len(theta), self.dimension, n))
            met: set[int] = set()  # columns of the gradient that an earlier term has written to
            for j, (basis, place) in enumerate(zip(bases, places, strict=True)):
                own = np.multiply(terms[j], share, out=terms[j])
                for row, column in zip(basis, place, strict=True):
                    if column in met:
                        gradient[:, column] += own * row
                    else:
                        np.multiply(own, row, out=gradient[:, column])
                        met.add(column)
            if self.outer is not None:
                value = power * value
                gradient[:, self.outer] = value
            return value, gradient

        return evaluate

    def starts(self, data: Data, loss: Array) -> Array:
        """Variable projection on a grid of exponents (and outer powers).

        At each point the coefficients solve a linear least-squares problem with non-negative solutions, tried on every
        subset of the terms.
        """
        columns = sorted({column for term in self.terms for column, name in term if name is not None})
        grid = [EXPONENTS] * len(columns)
        powers = np.geomspace(0.05, 1.0, 8) if self.outer is not None else np.ones(1)
        exponents = np.stack(np.meshgrid(*grid, powers, indexing="ij"), -1).reshape(-1, len(columns) + 1)
        theta = np.zeros((len(exponents), self.dimension))
        theta[:, columns] = exponents[:, :-1]
        if self.outer is not None:
            theta[:, self.outer] = np.log(exponents[:, -1])
        target = np.log(loss)[None] / exponents[:, -1:]  # of the sum inside the outer power
        basis = np.empty((len(self.terms), len(theta), len(loss)))
        for j, factors in enumerate(self.terms):
            basis[j] = -log_variable(data, self.fixed[j]) if j in self.fixed else 0.0
            for column, name in factors:
                if name is not None:
                    basis[j] -= theta[:, column, None] * log_variable(data, name)
        coefficients = non_negative(np.exp(basis - target))
        for j, factors in enumerate(self.terms):
            column = next(column for column, name in factors if name is None)
            theta[:, column] = coefficients[j]
        return theta

    def describe(self, theta: Array) -> dict[str, float]:
        """Published parameters of one row of theta."""
        with np.errstate(all="ignore"):
            return dict(zip(self.parameters, (float(v) for v in self.published(theta)), strict=True))


def _factor(data: Data, name: str | None) -> Array:
    """What multiplies a column of theta in a term, (n,): see Factor."""
    return np.ones(len(next(iter(data.values())))) if name is None else -log_variable(data, name)


def log_variable(data: Data, name: str) -> Array:
    """ln of a column, or of a derived one: "C/M" and "CM" with C = 6ND and M = D/N tokens per parameter."""
    if name == "C/M":
        return np.asarray(np.log(6.0) + 2 * np.log(data["N"]))
    if name == "CM":
        return np.asarray(np.log(6.0) + 2 * np.log(data["D"]))
    return np.asarray(np.log(data[name]))


def non_negative(basis: Array) -> Array:
    """ln of the coefficients c >= 0 that bring sum_j c_j basis_j closest to one, (J, P).

    Args:
        basis: (J, P, n), already divided by the loss, so that errors are relative.
    """
    count, rows, _ = basis.shape
    scale = np.maximum(basis.max(2), 1e-300)  # (J, P): columns of order one
    scaled = basis / scale[..., None]
    gram = np.einsum("ipn,jpn->pij", scaled, scaled)
    right = scaled.sum(2).T  # (P, J)
    best, found = np.full(rows, np.inf), np.full((count, rows), ABSENT)
    for chosen in itertools.chain.from_iterable(itertools.combinations(range(count), r) for r in range(1, count + 1)):
        pick = list(chosen)
        ridge = 1e-10 * np.eye(len(pick))
        solution = np.linalg.solve(gram[:, pick][:, :, pick] + ridge, right[:, pick, None])[..., 0]
        gain = -(solution * right[:, pick]).sum(1)  # the sum of squares, up to a constant
        better = (solution > 0).all(1) & (gain < best)
        best[better] = gain[better]
        found[:, better] = ABSENT
        for place, j in enumerate(pick):
            found[j, better] = np.log(solution[better, place])
    return np.asarray(found - np.log(scale))


def scale_of(log_coefficient: Array, exponent: Array) -> Array:
    """X_c of a power written (X_c/X)^exponent, from ln of its coefficient; nan where it does not exist."""
    ln_scale = log_coefficient / exponent
    return np.where((exponent > 0) & (ln_scale <= 700), np.exp(ln_scale), np.nan)


def not_falling(params: Mapping[str, float]) -> list[str]:
    """The exponents of a fitted law that are not positive: with them the loss would not fall with scale."""
    return [name for name, value in params.items() if name in EXPONENT_NAMES and not value > 0]
