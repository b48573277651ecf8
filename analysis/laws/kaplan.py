"""The laws of Kaplan et al. 2020, "Scaling Laws for Neural Language Models" (arXiv 2001.08361).

N counts non-embedding parameters there, and losses have no irreducible term. The adjustment to the critical batch size
(section 5) turns a run's compute and steps into those of a run at the cheapest batch.
"""

from __future__ import annotations

import numpy as np

from analysis.laws.base import Array, PowerSum, scale_of

B_STAR = 2.1e8  # tokens; Table 5
ALPHA_B = 0.21


def _single(name: str, variable: str, equation: str) -> PowerSum:
    return PowerSum(
        name=name,
        equation=f"L({variable}) = ({variable}_c/{variable})^alpha_{variable}",
        source=f"Kaplan et al. 2020, {equation}",
        parameters=(f"{variable}_c", f"alpha_{variable}"),
        needs=(variable,),
        dimension=2,
        terms=(((0, None), (1, variable)),),
        published=lambda theta: (scale_of(theta[0], theta[1]), theta[1]),
    )


LOSS_OF_N = _single("kaplan_n", "N", "eq. 1.1")
LOSS_OF_D = _single("kaplan_d", "D", "eq. 1.2")
LOSS_OF_C = _single("compute_frontier", "C", "table 5; Brown et al. 2020, figure 3.1")
LOSS_OF_C_MIN = PowerSum(
    name="kaplan_c_min",
    equation="L(C_min) = (C_c/C_min)^alpha_C, C_min = C/(1 + B/B_crit(L))",
    source="Kaplan et al. 2020, eq. 1.3 and 5.5",
    parameters=("C_c", "alpha_C"),
    needs=("C_min",),
    dimension=2,
    terms=(((0, None), (1, "C_min")),),
    published=lambda theta: (scale_of(theta[0], theta[1]), theta[1]),
)

LOSS_OF_C_WITH_FLOOR = PowerSum(
    name="compute_frontier_irreducible",
    equation="L(C) = E + (C_c/C)^alpha_C",
    source="Henighan et al. 2020 (arXiv 2010.14701), eq. 1.1",
    parameters=("E", "C_c", "alpha_C"),
    needs=("C",),
    dimension=3,
    terms=(((0, None),), ((1, None), (2, "C"))),
    published=lambda theta: (np.exp(theta[0]), scale_of(theta[1], theta[2]), theta[2]),
)

# theta = (ln of the two coefficients, alpha_N/alpha_D, ln alpha_D)
LOSS_OF_N_AND_D = PowerSum(
    name="kaplan_nd",
    equation="L(N,D) = [(N_c/N)^(alpha_N/alpha_D) + D_c/D]^alpha_D",
    source="Kaplan et al. 2020, eq. 1.5",
    parameters=("N_c", "D_c", "alpha_N", "alpha_D"),
    needs=("N", "D"),
    dimension=4,
    terms=(((0, None), (2, "N")), ((1, None),)),
    fixed={1: "D"},
    outer=3,
    published=lambda t: (scale_of(t[0], t[2]), np.exp(t[1]), t[2] * np.exp(t[3]), np.exp(t[3])),
)

LOSS_OF_N_AND_S = PowerSum(
    name="kaplan_ns",
    equation="L(N,S) = (N_c/N)^alpha_N + (S_c/S_min)^alpha_S, S_min = S/(1 + B_crit(L)/B)",
    source="Kaplan et al. 2020, eq. 1.6",
    parameters=("N_c", "S_c", "alpha_N", "alpha_S"),
    needs=("N", "S_min"),
    dimension=4,
    terms=(((0, None), (1, "N")), ((2, None), (3, "S_min"))),
    published=lambda t: (scale_of(t[0], t[1]), scale_of(t[2], t[3]), t[1], t[3]),
)


def critical_batch(loss: Array) -> Array:
    """B_crit(L) = B_star / L^(1/alpha_B) in tokens (eq. 1.4); loss in nats per token."""
    return np.asarray(B_STAR / loss ** (1 / ALPHA_B))


def minimum_compute(compute: Array, batch_tokens: Array, loss: Array) -> Array:
    """C_min in the units of ``compute``: what the run would have cost at a batch far below critical (eq. 5.5)."""
    return np.asarray(compute / (1 + batch_tokens / critical_batch(loss)))


def minimum_steps(steps: Array, batch_tokens: Array, loss: Array) -> Array:
    """S_min: the steps that the run would have needed at a batch far above critical (eq. 5.4)."""
    return np.asarray(steps / (1 + critical_batch(loss) / batch_tokens))
