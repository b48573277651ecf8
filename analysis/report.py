"""A study as files and text: fit.json, runs.parquet, law.md, and the tables that the command prints."""

from __future__ import annotations

import hashlib
import io
import math
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from analysis import isoflop, uncertainty
from analysis.laws import Array
from analysis.study import NO_FLOOR, LawFit, Study
from gpt3core.store import files


def write(study: Study, out: Path) -> None:
    """Write runs.parquet, fit.json and law.md; the same runs and options give the same bytes."""
    files.make_folder(out)
    buffer = io.BytesIO()
    study.runs.table.to_parquet(buffer, index=False)
    files.write_bytes(out / "runs.parquet", buffer.getvalue())
    files.write_json(out / "fit.json", to_json(study))
    files.write_bytes(out / "law.md", to_markdown(study).encode())


# --------------------------------------------------------------------------------------------------------------- json


def to_json(study: Study) -> dict[str, Any]:
    """The contract that scripts rely on. Numbers that do not exist are null."""
    minima = study.minima
    draws = None if minima.draws is None else minima.draws[:, 0]
    document = {
        "laws": {law.fit.law.name: _law(law) for law in (study.frontier, study.floored, study.chinchilla)}
        | {
            "n_star": {
                "equation": "N*(C) = k C^a",
                "params": {"k": minima.coefficient, "a": minima.exponent},
                "interval95": {} if draws is None else {"a": uncertainty.interval(draws)},
                "status": "ok" if len(minima.used) > 2 else "too few runs",
                "minima": [
                    {
                        "compute": p.budget,
                        "N": p.n_star,
                        "loss": p.loss_star,
                        "inside": p.inside,
                        "runs": p.run_ids,
                        "reason": p.reason,
                    }
                    for p in minima.parabolas
                ],
            }
        },
        "conventions": {
            "N": study.options.size,
            "C": study.options.compute,
            "loss": "nats per token",
            "all": study.conventions,
        },
        "rules": [{"name": r.name, "meaning": r.meaning, "excluded": r.excluded} for r in study.rules],
        "predictions": [
            {
                "law": p.law,
                "compute": p.compute,
                "N": p.n,
                "D": p.d,
                "loss": p.loss,
                "interval95_mean": p.interval_mean,
                "interval95_new_run": p.interval_new_run,
                "decades_beyond_data": p.decades,
            }
            for p in study.predictions
        ],
        "backtest": [{**vars(b), "ln_error": b.miss} for b in study.backtests],
        "few_shot": [vars(t) for t in study.trends],
        "shot_gains": study.gains,
        "notes": [vars(n) for n in study.notes],
        "receipt": _receipt(study),
    }
    cleaned: dict[str, Any] = _finite(document)
    return cleaned


def _law(law: LawFit) -> dict[str, Any]:
    fit = law.fit
    published = law.published()
    entry = {
        "equation": fit.law.equation,
        "params": fit.params,
        "interval95": {name: uncertainty.interval(values) for name, values in published.items()},
        "standard_error": {
            name: float(np.nanstd(values, ddof=1)) for name, values in published.items() if len(values) > 1
        },
        "objective": fit.objective,
        "status": fit.status.value,
        "reason": fit.reason,
        "runs": fit.runs,
        "condition": fit.condition,
        "share_of_starts_at_optimum": fit.share_at_optimum,
    }
    if "alpha" in fit.params:
        alpha, beta = fit.params["alpha"], fit.params["beta"]
        entry["optimum"] = {"a": beta / (alpha + beta), "b": alpha / (alpha + beta)}
    return entry


def _receipt(study: Study) -> dict[str, Any]:
    results = study.runs.table[["run_id", "loss", "tokens"]].to_csv(index=False, float_format="%.17g")
    packages = {}
    for name in ("isoflop", "numpy", "scipy", "pandas"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "unknown"
    return {
        "sweep": study.runs.sweep,
        "runs": len(study.runs.table),
        "data_sha256": hashlib.sha256(results.encode()).hexdigest(),
        "options": {**vars(study.options), "target_compute": list(study.options.target_compute)},
        "versions": packages,
    }


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


# --------------------------------------------------------------------------------------------------------------- text

Row = list[str]


def tables(study: Study) -> list[tuple[str, list[str], list[Row]]]:
    """The report as (title, header, rows): what is printed and what goes into law.md."""
    n_name = {"nonembedding": "non-embedding", "total": "total"}[study.options.size]
    c_name = {"exact": "exact training FLOPs", "6nd": "6ND"}[study.options.compute]
    return [
        (
            f"Laws (N {n_name}, C {c_name}, loss in nats per token)",
            ["law", "parameters", "95% interval of the mean law", "status"],
            _laws(study),
        ),
        ("IsoFLOP minima", ["C", "runs", "N*", "D/N at N*", "L*", "note"], _minima(study)),
        (
            "Exponents by convention (budgets are groups of equal exact C in all of them)",
            ["N", "C", "a of N* ~ C^a", "alpha_C"],
            _conventions(study),
        ),
        (
            "Predictions",
            ["law", "C", "beyond the data", "N*", "D*", "loss", "95% of the mean law", "95% of a new run"],
            _predictions(study),
        ),
        (
            "Backtests (fit below, predict above)",
            ["fitted to", "target", "decades", "predicted", "measured", "error"],
            _backtests(study),
        ),
        (
            "Few-shot accuracy against compute",
            [
                "task",
                "K",
                "chance",
                "best baseline",
                "accuracy, small -> large runs",
                "ln p(answer) per decade",
                "verdict",
            ],
            _few_shot(study),
        ),
        ("What K examples bring over none (mean over runs)", ["task", "K", "accuracy", "ln p(answer)"], _gains(study)),
        ("Rules", ["rule", "meaning", "runs out"], _rules(study)),
    ]


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}g}"


def _count(value: float) -> str:
    for unit, scale in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= scale:
            return f"{value / scale:.3g}{unit}"
    return _number(value)


def _span(values: list[float] | None, digits: int = 3) -> str:
    return "not available" if values is None else f"{_number(values[0], digits)} to {_number(values[1], digits)}"


def _parameter(name: str, value: float) -> str:
    return "0 (at its bound)" if name == "E" and value < NO_FLOOR else _number(value, 4)


def _floored(name: str, draws: Array) -> list[float]:
    """The interval of a parameter; an irreducible loss too small to matter is printed as zero."""
    low, high = uncertainty.interval(draws)
    return [0.0 if v < NO_FLOOR else v for v in (low, high)] if name == "E" else [low, high]


def _laws(study: Study) -> list[Row]:
    rows = []
    for law in (study.frontier, study.floored, study.chinchilla):
        published = law.published()
        rows.append(
            [
                law.fit.law.equation,
                ", ".join(f"{name} {_parameter(name, value)}" for name, value in law.fit.params.items()) or "-",
                ", ".join(f"{name} {_span(_floored(name, values))}" for name, values in published.items()) or "-",
                law.fit.status.value + (f" ({law.fit.reason})" if law.fit.reason else ""),
            ]
        )
    minima = study.minima
    spread = "-" if minima.draws is None else f"a {_span(uncertainty.interval(minima.draws[:, 0]))}"
    status = "ok" if len(minima.used) > 2 else f"too few runs ({len(minima.used)} budgets with a minimum, 3 are needed)"
    rows.append(["N*(C) = k C^a", f"k {_number(minima.coefficient)}, a {_number(minima.exponent)}", spread, status])
    return rows


def _minima(study: Study) -> list[Row]:
    rows = []
    for p in study.minima.parabolas:
        if not p.ok:
            rows.append([f"{p.budget:.3g}", str(len(p.run_ids)), "-", "-", "-", p.reason])
            continue
        tokens = isoflop.tokens_at(p, study.table, study.size_column)
        note = f"{len(p.far)} far runs out" if p.far else ""
        rows.append(
            [
                f"{p.budget:.3g}",
                str(len(p.run_ids)),
                _count(p.n_star),
                f"{tokens / p.n_star:.0f}",
                f"{p.loss_star:.4f}",
                note,
            ]
        )
    return rows


def _conventions(study: Study) -> list[Row]:
    return [[str(c["N"]), str(c["C"]), _number(c["a"]), _number(c["alpha_C"], 4)] for c in study.conventions]


def _predictions(study: Study) -> list[Row]:
    return [
        [
            p.law,
            f"{p.compute:.3g}",
            f"{p.decades:.1f} decades",
            _count(p.n),
            _count(p.d),
            f"{p.loss:.3f}",
            _span(p.interval_mean, 4),
            _span(p.interval_new_run, 4),
        ]
        for p in study.predictions
    ]


def _backtests(study: Study) -> list[Row]:
    return [
        [
            f"{b.fitted_to:.3g}",
            f"{b.target:.3g}",
            f"{b.decades:.1f}",
            f"{b.predicted:.3f}",
            f"{b.measured:.3f}",
            f"{-b.miss:+.1%}",
        ]
        for b in study.backtests
    ]


def _few_shot(study: Study) -> list[Row]:
    rows = []
    for t in study.trends:
        accuracy = f"{t.accuracy_small:.3f} -> {t.accuracy_large:.3f} +- {t.accuracy_large_se:.3f}"
        logprob = f"{t.logprob_per_decade:+.2f} +- {t.logprob_per_decade_se:.2f}"
        if t.verdict == "not measured":
            accuracy, logprob = "-", "-"
            verdict = "not measured: does not fit n_ctx"
        else:
            verdict = (
                t.verdict if t.slope is None else f"{t.verdict}: logit {t.slope:+.2f} +- {t.slope_se:.2f} a decade"
            )
        rows.append([t.task, str(t.shots), f"{t.chance:.2f}", f"{t.baseline:.3f}", accuracy, logprob, verdict])
    return rows


def _gains(study: Study) -> list[Row]:
    return [
        [
            str(g["task"]),
            str(g["shots"]),
            f"{g['accuracy_gain']:+.3f} +- {g['accuracy_gain_se']:.3f}",
            f"{g['logprob_gain']:+.2f} +- {g['logprob_gain_se']:.2f}",
        ]
        for g in study.gains
    ]


def _rules(study: Study) -> list[Row]:
    rows = [[r.name, r.meaning, ", ".join(r.excluded) or "none"] for r in study.rules]
    far = [run_id for p in study.minima.parabolas for run_id in p.far]
    return [
        *rows,
        ["near", f"parabolas only: within {isoflop.NEAR:.0%} of the budget's best loss", ", ".join(far) or "none"],
    ]


def to_markdown(study: Study) -> str:
    """The tables as Markdown, ready for a paper's appendix."""
    lines = [
        f"# Scaling law of the sweep {study.runs.sweep}",
        "",
        f"{len(study.table)} of {len(study.runs.table)} runs fitted.",
        "",
    ]
    for title, header, rows in tables(study):
        if rows:
            lines += [f"## {title}", "", "| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
            lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows] + [""]
    lines += ["## Notes", "", *[f"- {n.severity} `{n.code}`: {n.message}" for n in study.notes], ""]
    return "\n".join(lines)
