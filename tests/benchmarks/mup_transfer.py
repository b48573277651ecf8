"""Does a learning rate found on a narrow proxy hold for wider models? Loss against learning rate at four widths.

``python -m tests.benchmarks.mup_transfer [FOLDER]``     ten minutes on a core; the store is ISOFLOP_ROOT

GPT-3-shaped models of width 32, 64, 128 and 256 (heads of 32) on the starter corpus, 200 steps of 512 tokens each, at
six or seven learning rates, in the standard parametrisation and with muP, based on the narrowest and on the widest. The
optimum of a width is the vertex of the parabola through its lowest loss and the two beside it. Printed: by how many
octaves it moves with a doubling of the width, what is lost where every width is trained at the narrowest's optimum, and
what muP loses against a standard parametrisation tuned at every width. FOLDER gets mup.html, and
mup.png where Chromium is installed.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from gpt3core import run as runs
from gpt3core.data import corpus
from gpt3core.evals.spec import EvalSpec
from gpt3core.spec import RunSpec
from gpt3core.store.rundir import RunDir, default_root, open_root
from sweeps.planning import grid
from sweeps.planning.models import ShapesModel
from sweeps.planning.recipe import Optim, Shape, ShapesRecipe
from tests.benchmarks.target import target

WIDTHS = (32, 64, 128, 256)
STEPS, BATCH, D_HEAD = 200, 512, 32
EVALS = EvalSpec(tasks=(), shots=(0,), validation_tokens=32_768)
STANDARD = "standard"
BASES = {STANDARD: 0, "muP from 32": 32, "muP from 256": 256}  # a parametrisation each, by its base width
FROM_32, FROM_256 = list(BASES)[1:]
# where the optima lie
TRIED = {
    STANDARD: tuple(0.0005 * 2**k for k in range(7)),
    FROM_32: tuple(0.002 * 2**k for k in range(6)),
    FROM_256: tuple(0.00025 * 2**k for k in range(7)),
}
COLOURS = ("#c6dbef", "#6baed6", "#2171b5", "#08306b")
SIZE = (1200, 460)

Curve = dict[float, float]  # learning rate -> loss
Losses = dict[tuple[str, int], Curve]  # by parametrisation and width


def planned(kind: str, width: int, rate: float, sha256: str) -> RunSpec:
    """The run of a width at a learning rate, by the planner; at its base a parametrisation is the standard one."""
    batch = {"batch_tokens_min": BATCH, "batch_tokens_max": BATCH}
    base = 0 if BASES[kind] == width else BASES[kind]
    recipe = ShapesRecipe(
        name="mup-transfer",
        shapes=[Shape(n_layer=2, d_model=width, n_head=width // D_HEAD)],
        tokens=[STEPS * BATCH],
        min_tokens=1e5,
        model=ShapesModel(mup_base_width=base, mup_base_d_head=D_HEAD) if base else ShapesModel(),
        optim=Optim(lr=rate, **batch) if base else Optim(lr_max=rate, lr_times_width=1e9, **batch),
        precision="fp32",
        kernel="softmax",
    )
    (found,) = grid.build(recipe, sha256).runs
    return found


def trained(spec: RunSpec, root: Path) -> float:
    """The held-out loss of a run, infinite where it diverged."""
    result = runs.run(spec, EVALS, root, checkpoint_seconds=1e6)
    assert result is not None
    table = RunDir(root, spec.run_id).evaluation(EVALS.eval_id)
    return math.inf if result["status"] != "done" or table is None else float(table["loss"][0])


def measure(root: Path) -> Losses:
    """Train all that is not there yet, narrow models first."""
    sha256 = corpus.fingerprint("starter")
    losses: Losses = {}
    for width in WIDTHS:
        for kind, rates in TRIED.items():
            found = {rate: trained(planned(kind, width, rate, sha256), root) for rate in rates}
            losses[kind, width] = found
            row = "  ".join(f"{rate:.5g} {loss:.4f}" for rate, loss in found.items())
            print(f"{kind}, width {width}: {row}", flush=True)
    return losses


def optimum(curve: Curve) -> tuple[float, float]:
    """log2 of the best learning rate and its loss, by a parabola; the best one tried where that is at the end."""
    rates, losses = list(curve), list(curve.values())
    lowest = int(np.argmin(losses))
    if not 0 < lowest < len(losses) - 1 or not np.isfinite(losses[lowest - 1 : lowest + 2]).all():
        return math.log2(rates[lowest]), losses[lowest]
    left, middle, right = losses[lowest - 1 : lowest + 2]
    curvature = left + right - 2 * middle
    shift = (left - right) / (2 * curvature)
    return math.log2(rates[lowest]) + shift, middle - curvature * shift**2 / 2


def given_away(losses: Losses, kind: str) -> float:
    """The most that a width loses, in nats, at the proxy's best learning rate of those tried."""
    proxy = losses[kind, WIDTHS[0]]
    rate = min(proxy, key=lambda tried: proxy[tried])
    return max(losses[kind, width][rate] - min(losses[kind, width].values()) for width in WIDTHS)


def over_standard(losses: Losses, kind: str) -> float:
    """The most that a width loses, in nats, against the standard parametrisation with a learning rate of its own."""
    return max(min(losses[kind, width].values()) - min(losses[STANDARD, width].values()) for width in WIDTHS)


def figure(losses: Losses) -> go.Figure:
    """Loss against learning rate, a panel a parametrisation, a line a width."""
    titles = ["standard parametrisation", *(f"muP, base width {BASES[kind]}" for kind in (FROM_32, FROM_256))]
    found = make_subplots(cols=3, shared_yaxes=True, horizontal_spacing=0.03, subplot_titles=titles)
    for column, kind in enumerate(BASES, start=1):
        for width, colour in zip(WIDTHS, COLOURS, strict=True):
            style = {"name": f"width {width}", "line_color": colour, "showlegend": column == 1}
            x, y = list(losses[kind, width]), list(losses[kind, width].values())
            found.add_scatter(x=x, y=y, mode="lines+markers", **style, row=1, col=column)
            best, loss = optimum(losses[kind, width])
            star = {"symbol": "star", "size": 14, "color": "#d94801"}
            legend = {"name": "optimum", "showlegend": column == 1 and width == WIDTHS[0]}
            found.add_scatter(x=[2**best], y=[loss], mode="markers", marker=star, **legend, row=1, col=column)
        ticks = TRIED[kind][::2]
        words = [f"{rate:.4g}" for rate in ticks]
        found.update_xaxes(type="log", title="learning rate", tickvals=ticks, ticktext=words, row=1, col=column)
    low = min(min(curve.values()) for curve in losses.values())
    found.update_yaxes(range=[low - 0.08, low + 1.3])
    found.update_yaxes(title=f"held-out loss after {STEPS * BATCH / 1e3:.0f}k tokens, nats per token", row=1, col=1)
    layout = {"width": SIZE[0], "height": SIZE[1], "template": "plotly_white", "margin": {"t": 40, "b": 50, "r": 20}}
    return found.update_layout(**layout)


def draw(losses: Losses, folder: Path) -> None:
    """Write the figure, and a picture of it where a browser can be had."""
    page = folder / "mup.html"
    figure(losses).write_html(page, include_plotlyjs=True, config={"displayModeBar": False})
    if browser := shutil.which("chromium"):
        size = f"--window-size={SIZE[0] + 16},{SIZE[1] + 16}"
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--virtual-time-budget=8000", size]
        picture = f"--screenshot={folder / 'mup.png'}"
        subprocess.run([browser, *options, picture, page.as_uri()], check=True, capture_output=True, timeout=120)
    print(f"drawn: {page}")


def main() -> int:
    """The script."""
    root = default_root()
    open_root(root, create=True)
    losses = measure(root)
    moved = {}
    for kind in BASES:
        best = [optimum(losses[kind, width]) for width in WIDTHS]
        moved[kind] = float(np.polyfit(np.log2(WIDTHS), [rate for rate, _ in best], 1)[0])
        rates = ", ".join(f"{width}: {2**rate:.4f}" for width, (rate, _) in zip(WIDTHS, best, strict=True))
        print(f"{kind}: best learning rate by width {rates}; {moved[kind]:+.2f} octaves a doubling of the width;")
        print(f"  at the narrowest's best learning rate a width loses up to {given_away(losses, kind):.3f} nats")
    if len(sys.argv) > 1:
        draw(losses, Path(sys.argv[1]).absolute())
    target("standard_optimum_moves_octaves_per_doubling", abs(moved[STANDARD]), ">", 0.25)
    for kind in (FROM_32, FROM_256):
        name = kind.replace(" ", "_")
        target(f"{name}_optimum_moves_octaves_per_doubling", abs(moved[kind]), "<", 0.25)
        target(f"{name}_loss_given_away_at_the_proxys_rate_nats", given_away(losses, kind), "<=", 0.02)
        target(f"{name}_loss_over_standard_tuned_at_each_width_nats", over_standard(losses, kind), "<=", 0.02)
    return 0


if __name__ == "__main__":
    sys.exit(main())
