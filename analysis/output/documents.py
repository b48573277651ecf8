"""A study as files: fit.json, study.npz, runs.parquet, bootstrap.parquet and law.md."""

from __future__ import annotations

import json
import math
import time
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.accuracy.overlap import Asked
from analysis.accuracy.trends import Accuracy, Trend
from analysis.estimation import uncertainty
from analysis.estimation.ensemble import Ensemble, Weighting
from analysis.estimation.envelope import Envelope
from analysis.estimation.exponents import Exponents
from analysis.estimation.fitted_laws import FittedLaw, described
from analysis.estimation.isoflop import Minima
from analysis.estimation.predict import Prediction
from analysis.estimation.solve import FitStatus
from analysis.estimation.training_curves import CurveEnvelope
from analysis.laws import Array
from analysis.next_runs import NextRuns
from analysis.output import saved, text
from analysis.study import Fitted, Study
from gpt3core.errors import StoreError
from gpt3core.store import files


def write(study: Study, out: Path) -> None:
    """Write the files; the same runs and options give the same bytes.

    A fit that stands there already with the same numbers keeps its receipt's time: it is the same fit.
    """
    with files.explained(out, setting=files.OUT):
        files.make_folder(out)
        for name, table in (("runs.parquet", study.runs.table), ("bootstrap.parquet", bootstrap(study))):
            files.write_streamed(out / name, partial(table.to_parquet, index=False))
        document = to_json(study)
        if not _stands(out / "fit.json", document):
            document["receipt"]["made"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            files.write_json(out / "fit.json", document)
        files.write_bytes(out / "law.md", text.to_markdown(study).encode())
        saved.write(Fitted(**{field.name: getattr(study, field.name) for field in fields(Fitted)}), study.receipt, out)


def write_design(found: NextRuns, out: str) -> list[Path]:
    """Write what to run next as design.json, and the choice as next.csv; returns their paths."""
    folder = Path(out).expanduser().absolute()
    design = found.design
    chosen = design.proposals[-1].interval if design.proposals else 1.0
    document = {
        **vars(design),
        "proposals": [vars(p) for p in design.proposals],
        "unit": found.unit,
        "as_fitted": found.as_fitted,
        "interval95_now": design.interval(),
        "interval95_after": design.interval(chosen),
        "commands": found.commands,
    }
    shown = [name for name in ("size", "N", "D", "C", "hours", "usd", "interval") if name in found.table]
    with files.explained(folder, setting=files.OUT):
        files.make_folder(folder)
        files.write_json(folder / "design.json", finite(document))
        files.write_bytes(folder / "next.csv", found.table[shown].to_csv(index=False).encode())
    return [folder / "design.json", folder / "next.csv"]


def _stands(path: Path, document: dict[str, Any]) -> bool:
    try:
        written = files.read_json(path)
        written["receipt"].pop("made", None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StoreError):
        return False
    return bool(written == json.loads(json.dumps(document)))


def bootstrap(study: Study) -> pd.DataFrame:
    """Every draw of every law's parameters: law, resampled (by run, size or budget), draw, parameter, value."""
    drawn: dict[tuple[str, str, str], Array] = {}
    for name, law in study.laws.items():
        by_cluster = {by: described(law.fit.law, draws) for by, draws in law.by_cluster.items()}
        for by, published in {"run": law.published, **by_cluster}.items():
            drawn |= {(name, by, parameter): values for parameter, values in published.items()}
    if not drawn:
        return pd.DataFrame(columns=["law", "resampled", "draw", "parameter", "value"])
    counts = [len(values) for values in drawn.values()]
    laws, resampled, parameters = (np.repeat(words, counts) for words in zip(*drawn, strict=True))
    return pd.DataFrame(
        {
            "law": laws,
            "resampled": resampled,
            "draw": np.concatenate([np.arange(count) for count in counts]),
            "parameter": parameters,
            "value": np.concatenate(list(drawn.values())),
        }
    )


def to_json(study: Study) -> dict[str, Any]:
    """The contract that scripts rely on. Numbers that do not exist are null."""
    ensemble = study.ensemble
    accuracies = [*study.accuracies, *[[] for _ in study.predicted_points]]
    predictions = zip([*study.predictions, *study.predicted_points], accuracies, strict=True)
    document: dict[str, Any] = {
        "laws": {name: _law(law) for name, law in study.laws.items()}
        | {"n_star": _n_star(study.minima, study), "envelope": _envelope(study.envelope)}
        | ({} if study.training_curves is None else {"training_curves": _training_curves(study.training_curves)}),
        "advice": vars(study.advice),
        "conventions": {
            "N": str(study.convention.n),
            "C": str(study.convention.c),
            "loss": "nats per token",
            "all": [_exponents(e) for e in study.exponents],
        },
        "rules": [vars(r) for r in study.rules],
        "rules_off": list(study.rules_off),
        "noise": vars(study.noise),
        "predictions": [_prediction(p, scores) for p, scores in predictions],
        "without_optimum": study.without_optimum,
        "ensemble": None
        if ensemble is None
        else {"anywhere": _weighted(ensemble, ensemble.anywhere), "optimal": _weighted(ensemble, ensemble.optimal)},
        "backtest": [] if ensemble is None else _backtest(ensemble),
        "coverage": study.coverage.to_dict("records"),
        "fixed_exponents": None if study.fixed is None else dict(vars(study.fixed)),
        "influence": [{**vars(i), "runs": i.runs} for i in study.influences],
        "forecasts": study.forecasts.drop(columns="beside", errors="ignore").to_dict("records"),
        "score_forecasts": [vars(a) for a in study.score_forecasts],
        "few_shot": [_trend(t) for t in study.trends],
        "shot_gains": study.gains,
        "overlaps": [_overlap(asked) for asked in study.overlaps],
        "notes": [note.said() for note in study.notes],
        "receipt": dict(study.receipt),
    }
    cleaned: dict[str, Any] = finite(document)
    return cleaned


def _law(law: FittedLaw) -> dict[str, Any]:
    fit, published = law.fit, law.published
    entry: dict[str, Any] = {
        "equation": fit.law.equation,
        "source": fit.law.source,
        "params": fit.params,
        "interval95": {name: uncertainty.interval(values) for name, values in published.items()},
        "standard_error": _errors(published),
        "interval95_by": {
            by: {name: uncertainty.interval(values) for name, values in described(fit.law, draws).items()}
            for by, draws in law.by_cluster.items()
        },
        "loss_function": vars(fit.rho),
        "objective": fit.objective,
        "status": fit.status.value,
        "reason": fit.reason,
        "fitted_to": law.fitted_to,
        "runs": fit.runs,
        "condition": fit.condition,
        "at_bounds": list(fit.at_bounds),
        "share_of_starts_at_optimum": fit.share_at_optimum,
    }
    if math.isfinite(law.a_and_b[0]):
        entry["optimum"] = {"a": law.a_and_b[0], "b": law.a_and_b[1]}
        if len(law.a_draws):
            entry["optimum"]["interval95_a"] = uncertainty.interval(law.a_draws)
    return entry


def _exponents(found: Exponents) -> dict[str, Any]:
    return {
        "N": str(found.convention.n),
        "C": str(found.convention.c),
        "chosen": found.chosen,
        "a": found.isoflop,
        "a_parametric": found.parametric,
        "alpha_C": found.alpha_c,
    }


def _errors(published: dict[str, Array]) -> dict[str, float]:
    """Standard errors of the parameters; not finite where a draw lies beyond all numbers."""
    with np.errstate(all="ignore"):
        return {name: float(np.std(values, ddof=1)) for name, values in published.items() if len(values) > 1}


def _n_star(minima: Minima, study: Study) -> dict[str, Any]:
    draws = None if minima.draws is None else minima.draws[:, 0]
    return {
        "equation": "N*(C) = k C^a",
        "source": "Hoffmann et al. 2022, approach 2",
        "params": {"k": minima.coefficient, "a": minima.exponent},
        "interval95": {} if draws is None else {"a": uncertainty.interval(draws)},
        "held_out": minima.held_out.to_dict("records"),
        "inflation": None if minima.family is None else minima.family.inflation,
        "status": "too few runs" if len(minima.used) < 3 else "ok" if draws is not None else FitStatus.UNTESTED.value,
        "minima": [
            {
                "compute": p.budget,
                "N": p.n_star,
                "N_cubic": p.n_cubic,
                "N_parametric": None if implied is None else implied.n_star,
                "parabola_bias": None if implied is None else implied.bias,
                "D": p.d_star,
                "unique_tokens": p.u_star,
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
        "status": "too few runs" if envelope.reason else FitStatus.UNTESTED.value,
        "reason": envelope.reason,
        "runs": list(envelope.points.run_id) if len(envelope.points) else [],
    }


def _training_curves(found: CurveEnvelope) -> dict[str, Any]:
    there = not found.reason
    return {
        "equation": "N*(C) = k C^a, D*(C) ~ C^b",
        "source": "Hoffmann et al. 2022, approach 1",
        "params": {"k": found.k, "a": found.a, "b": found.b},
        "interval95": {"a": found.interval_a, "b": found.interval_b} if there else {},
        "status": FitStatus.OK.value if there else "too few runs",
        "reason": found.reason,
        "compute": found.compute,
        "sizes": found.sizes,
        "runs": found.runs,
        "left_out": {"repeated_text": found.repeated, "no_curve": found.without},
        "pairs": found.pairs,
        "largest_correction": found.correction,
    }


def _prediction(p: Prediction, accuracies: list[Accuracy]) -> dict[str, Any]:
    return {
        "target": p.name or None,
        "optimal": p.optimal,
        "compute": p.compute,
        "N": p.n,
        "D": p.d,
        "loss": p.loss,
        "sigma": p.sigma,
        "interval95_mean": p.interval_mean,
        "interval95_new_run": p.interval_new_run,
        "interval95_N": p.interval_n,
        "interval95_D": p.interval_d,
        "decades_beyond_data": p.decades,
        "by_choice": p.by_choice,
        "weight_by_choice": p.weights,
        "accuracies": [vars(a) for a in accuracies],
    }


def _weighted(ensemble: Ensemble, weighting: Weighting) -> dict[str, Any]:
    return {
        "choices": [
            {"choice": c.name, "weight": w, "backtest_error": e, "status": f.status.value}
            for c, f, w, e in zip(ensemble.choices, ensemble.fits, weighting.weights, weighting.errors, strict=True)
        ],
        "calibration": {
            **vars(weighting.calibration),
            "growth": vars(weighting.calibration.growth),
            "supported": weighting.calibration.supported,
        },
    }


def _backtest(ensemble: Ensemble) -> list[dict[str, Any]]:
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
    for weighting in (ensemble.anywhere, ensemble.at_optimum):
        if weighting is not None and weighting.tests.cuts:
            miss, rows = weighting.tests.misses(weighting.weights), weighting.tests.rows.rename(columns={"C": "target"})
            rows = rows.assign(ln_error=miss, predicted=rows.measured * np.exp(-miss))
            found += [{str(k): v for k, v in row.items()} for row in rows[columns].to_dict("records")]
    return found


def _overlap(asked: Asked) -> dict[str, Any]:
    row = asked.row
    return {
        **{"task": row.name, "shots": asked.shots, "runs": asked.runs, "gram": row.n, "items": row.total},
        **{"accuracy": row.score, "dirty": row.dirty, "accuracy_dirty": row.dirty_score},
        **{"clean": row.clean, "accuracy_clean": row.clean_score, "clean_share": row.clean_share},
        "difference": row.difference,
    }


def _trend(trend: Trend) -> dict[str, Any]:
    entry = {name: value for name, value in vars(trend).items() if name not in ("by_compute", "by_loss", "run_ids")}
    entry["runs"] = trend.runs
    for name in ("by_compute", "by_loss"):
        law = getattr(trend, name)
        if law is not None:
            told = {k: getattr(law, k) for k in ("ceiling", "ceiling_interval", "slope", "slope_se")}
            entry[name] = {k: v for k, v in vars(law).items() if not isinstance(v, np.ndarray)} | told
    return entry


def finite(value: Any) -> Any:
    """Plain data for JSON: numpy's numbers as Python's, what is not finite as null."""
    if isinstance(value, dict):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [finite(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
