"""A study as files: fit.json, runs.parquet, bootstrap.parquet and law.md."""

from __future__ import annotations

import hashlib
import io
import json
import math
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis import text, uncertainty
from analysis.envelope import Envelope
from analysis.fitting import LawFit
from analysis.isoflop import Minima
from analysis.laws import Array
from analysis.predict import Prediction
from analysis.stacking import Mixture, Stack
from analysis.study import Study, coverage
from gpt3core.errors import StoreError
from gpt3core.store import files

PACKAGES = ("isoflop", "numpy", "scipy", "pandas")


def write(study: Study, out: Path) -> None:
    """Write the files; the same runs and options give the same bytes.

    A fit that stands there already with the same numbers keeps its receipt's time: it is the same fit.
    """
    files.make_folder(out)
    for name, table in (("runs.parquet", study.runs.table), ("bootstrap.parquet", bootstrap(study))):
        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False)
        files.write_bytes(out / name, buffer.getvalue())
    document = to_json(study)
    if not _stands(out / "fit.json", document):
        document["receipt"]["made"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        files.write_json(out / "fit.json", document)
    files.write_bytes(out / "law.md", text.to_markdown(study).encode())


def _stands(path: Path, document: dict[str, Any]) -> bool:
    try:
        written = files.read_json(path)
        written["receipt"].pop("made", None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StoreError):
        return False
    return bool(written == json.loads(json.dumps(document)))


def bootstrap(study: Study) -> pd.DataFrame:
    """Every draw of every law's parameters: law, resampled (by run, size or budget), draw, parameter, value."""
    parts = []
    for name, law in study.laws.items():
        for by, draws in {"run": law.draws, **law.by_cluster}.items():
            if draws is None:
                continue
            for parameter, values in law.published(draws).items():
                fixed = {"law": name, "resampled": by, "draw": np.arange(len(values)), "parameter": parameter}
                parts.append(pd.DataFrame({**fixed, "value": values}))
    columns = ["law", "resampled", "draw", "parameter", "value"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def to_json(study: Study) -> dict[str, Any]:
    """The contract that scripts rely on. Numbers that do not exist are null."""
    stack = study.stack
    laws = {name: _law(law) for name, law in study.laws.items()}
    document: dict[str, Any] = {
        "laws": laws | {"n_star": _n_star(study.minima, study), "envelope": _envelope(study.envelope)},
        "conventions": {
            "N": str(study.size),
            "C": str(study.compute),
            "loss": "nats per token",
            "all": study.conventions,
        },
        "rules": [vars(r) for r in study.rules],
        "noise": vars(study.noise),
        "predictions": [_prediction(p) for p in [*study.predictions, *study.predicted_points]],
        "stack": None
        if stack is None
        else {"anywhere": _mixed(stack, stack.anywhere), "optimal": _mixed(stack, stack.optimal)},
        "backtest": [] if stack is None else _backtest(stack),
        "coverage": coverage(study).to_dict("records"),
        "influence": [vars(i) for i in study.influences],
        "forecasts": study.forecasts.to_dict("records"),
        "few_shot": [_trend(t) for t in study.trends],
        "shot_gains": study.gains,
        "notes": [vars(n) for n in study.notes],
        "receipt": _receipt(study),
    }
    cleaned: dict[str, Any] = _finite(document)
    return cleaned


def _law(law: LawFit) -> dict[str, Any]:
    fit = law.fit
    published = law.published()
    entry: dict[str, Any] = {
        "equation": fit.law.equation,
        "source": fit.law.source,
        "params": fit.params,
        "interval95": {name: uncertainty.interval(values) for name, values in published.items()},
        "standard_error": _errors(published),
        "interval95_by": {
            by: {name: uncertainty.interval(values) for name, values in law.published(draws).items()}
            for by, draws in law.by_cluster.items()
        },
        "loss_function": {"name": fit.loss.name, "delta": fit.loss.delta},
        "objective": fit.objective,
        "status": fit.status.value,
        "reason": fit.reason,
        "fitted_to": law.fitted_to,
        "runs": fit.runs,
        "condition": fit.condition,
        "at_bounds": list(fit.at_bounds),
        "share_of_starts_at_optimum": fit.share_at_optimum,
    }
    if "alpha" in fit.params:
        alpha, beta = fit.params["alpha"], fit.params["beta"]
        entry["optimum"] = {"a": beta / (alpha + beta), "b": alpha / (alpha + beta)}
        if published:
            a = published["beta"] / (published["alpha"] + published["beta"])
            entry["optimum"]["interval95_a"] = uncertainty.interval(a)
    return entry


def _errors(published: dict[str, Array]) -> dict[str, float]:
    return {name: float(np.nanstd(values, ddof=1)) for name, values in published.items() if len(values) > 1}


def _n_star(minima: Minima, study: Study) -> dict[str, Any]:
    draws = None if minima.draws is None else minima.draws[:, 0]
    return {
        "equation": "N*(C) = k C^a",
        "source": "Hoffmann et al. 2022, approach 2",
        "params": {"k": minima.coefficient, "a": minima.exponent},
        "interval95": {} if draws is None else {"a": uncertainty.interval(draws)},
        "status": "ok" if len(minima.used) > 2 else "too few runs",
        "minima": [
            {
                "compute": p.budget,
                "N": p.n_star,
                "N_cubic": p.n_cubic,
                "N_parametric": None if implied is None else implied.n_star,
                "parabola_bias": None if implied is None else implied.bias,
                "loss": p.loss_star,
                "inside": p.inside,
                "runs": p.run_ids,
                "reason": p.reason,
            }
            for p, implied in zip(minima.parabolas, study.implied, strict=True)
        ],
    }


def _envelope(envelope: Envelope) -> dict[str, Any]:
    return {
        "equation": "N*(C) = k C^a, D*(C) ~ C^b",
        "source": "Hoffmann et al. 2022, approach 1",
        "params": {"k": envelope.k, "a": envelope.a, "b": envelope.b},
        "status": "too few runs" if envelope.reason else "ok",
        "reason": envelope.reason,
        "runs": list(envelope.points.run_id) if len(envelope.points) else [],
    }


def _prediction(p: Prediction) -> dict[str, Any]:
    return {
        "compute": p.compute,
        "N": p.n,
        "D": p.d,
        "loss": p.loss,
        "interval95_mean": p.interval_mean,
        "interval95_new_run": p.interval_new_run,
        "decades_beyond_data": p.decades,
        "by_choice": p.by_choice,
        "accuracies": [vars(a) for a in p.accuracies],
    }


def _mixed(stack: Stack, mixture: Mixture) -> dict[str, Any]:
    return {
        "choices": [
            {"choice": c.name, "weight": w, "backtest_error": e, "status": f.status.value}
            for c, f, w, e in zip(stack.choices, stack.fits, mixture.weights, mixture.errors, strict=True)
        ],
        "calibration": {**vars(mixture.calibration), "supported": mixture.calibration.supported},
    }


def _backtest(stack: Stack) -> list[dict[str, Any]]:
    """Every prediction of a backtest, by the weights of its kind of point."""
    columns = [
        "fitted_to",
        "fitted_runs",
        "run_id",
        "target",
        "decades",
        "optimal",
        "predicted",
        "measured",
        "ln_error",
    ]
    found: list[dict[str, Any]] = []
    for mixture in [stack.anywhere] if stack.optimal is stack.anywhere else [stack.anywhere, stack.optimal]:
        if mixture.tests.cuts:
            miss, rows = mixture.tests.misses(mixture.weights), mixture.tests.rows.rename(columns={"C": "target"})
            rows = rows.assign(ln_error=miss, predicted=rows.measured * np.exp(-miss))
            found += [{str(k): v for k, v in row.items()} for row in rows[columns].to_dict("records")]
    return found


def _trend(trend: Any) -> dict[str, Any]:
    entry = {name: value for name, value in vars(trend).items() if name not in ("by_compute", "by_loss")}
    for name in ("by_compute", "by_loss"):
        law = getattr(trend, name)
        if law is not None:
            entry[name] = {k: v for k, v in vars(law).items() if k != "covariance"}
    return entry


def _receipt(study: Study) -> dict[str, Any]:
    used = study.everything[["run_id", "N", "D", "C", "U", "loss"]]
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "unknown"
    options = {**vars(study.options), "loss": vars(study.options.loss)}
    return {
        "runs": len(study.everything),
        "name": study.runs.name,
        "data_sha256": hashlib.sha256(used.to_csv(index=False, float_format="%.17g").encode()).hexdigest(),
        "options": {name: list(v) if isinstance(v, tuple) else v for name, v in options.items()},
        "versions": packages,
    }


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_finite(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
