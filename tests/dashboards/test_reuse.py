"""Pages drawn from the fit on disk: the same as from a fresh one, and nothing is fitted for them."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from analysis import api, fit
from analysis.estimation import solve
from analysis.output import documents, saved, text
from analysis.runs.selection import select
from analysis.settings import StudySettings
from dashboards import data, report
from dashboards.figures import catalogue
from gpt3core.store.rundir import RunDir

pytestmark = pytest.mark.xdist_group("reuse")


@pytest.fixture
def root(isolated, simulated):
    return shutil.copytree(simulated, isolated / "root")


@pytest.fixture(scope="module")
def fitted(simulated, tmp_path_factory):
    """A store with its fit, to copy from."""
    root = shutil.copytree(simulated, tmp_path_factory.mktemp("fitted") / "root")
    write(root)
    return root


@pytest.fixture
def written(isolated, fitted):
    return shutil.copytree(fitted, isolated / "root")


def write(root, *words):
    assert fit.main([f"runs={root}", "bootstrap=30", "figures=false", *words]) == 0


def settings(root, **changed):
    return StudySettings(runs=str(root), **{"bootstrap": 30, **changed})


class FittedError(Exception):
    """Somebody fitted."""


@pytest.fixture
def no_solver(monkeypatch):
    def raises(*_, **__):
        raise FittedError

    for name in ("fit", "refit", "minimise"):
        monkeypatch.setattr(solve, name, raises)


def drawn(study):
    """All that a reader sees of a study, as JSON and words."""
    pages = catalogue.pages(study, data.losses(study.runs))
    return (
        [(page.slug, page.title, page.about, page.figure.to_json(), page.rows.to_csv()) for page in pages],
        text.tables(study),
        documents.to_json(study),
    )


CHANGED = {"law": "chinchilla", "target_compute": [1e14, 3e15], "N": "total", "C": "6nd"}


@pytest.mark.soak
@pytest.mark.parametrize("changed", [CHANGED, {}], ids=["changed", "defaults"])
def test_what_is_drawn_from_the_disk_is_what_a_fresh_fit_draws(written, changed, monkeypatch):
    if changed:
        write(written, *(f"{key}={value}" for key, value in changed.items()))
    fresh, _ = api.study(settings(written, **changed))
    monkeypatch.setattr(api, "analyse", None)
    kept, _ = data.load(settings(written, **changed))
    assert drawn(kept) == drawn(fresh)


def test_without_a_fit_on_disk_the_report_fits(root, isolated, no_solver):
    with pytest.raises(FittedError):
        report.main([f"runs={root}", "bootstrap=30", f"out={isolated / 'r'}"])
    assert not (isolated / "r").exists()


def test_the_report_is_drawn_from_the_disk(written, isolated, no_solver):
    assert report.main([f"runs={written}", "bootstrap=30", f"out={isolated / 'r'}"]) == 0
    assert (isolated / "r" / "index.html").exists()


def test_a_table_of_runs_is_read_back_too(isolated, monkeypatch):
    monkeypatch.chdir(isolated)
    n, d = np.meshgrid(np.geomspace(1e7, 1e9, 5), np.geomspace(1e9, 1e11, 5))
    table = pd.DataFrame({"N": n.ravel(), "D": d.ravel()})
    table["loss"] = 1.7 + 400 / table.N**0.34 + 400 / table.D**0.28
    table.to_csv("t.csv", index=False)
    table.head(3)[["N", "D"]].to_csv("p.csv", index=False)
    write("t.csv", "predict=p.csv")
    fresh, _ = api.study(settings("t.csv", predict="p.csv"))
    monkeypatch.setattr(api, "analyse", None)
    kept, _ = data.load(settings("t.csv", predict="p.csv"))
    assert drawn(kept) == drawn(fresh)


def test_other_settings_are_fitted_anew(written, monkeypatch):
    monkeypatch.setattr(api, "analyse", _fitted)
    data.load(settings(written))
    for changed in (
        {"bootstrap": 31},
        {"seed": 1},
        {"law": "chinchilla"},
        {"C": "6nd"},
        {"delta": 2e-3},
        {"min_tokens": 1e6},
    ):
        with pytest.raises(FittedError):
            data.load(settings(written, **changed))


def _fitted(*_):
    raise FittedError


def test_new_results_other_code_and_damage_are_fitted_anew(written, monkeypatch):
    late = RunDir(written, select(settings(written)).table.run_id[0]).path / "result.json"
    content = late.read_bytes()
    result = json.loads(content)
    monkeypatch.setattr(api, "analyse", _fitted)
    data.load(settings(written))
    late.write_text(json.dumps({**result, "precision": "fp32"}))
    with pytest.raises(FittedError):
        data.load(settings(written))
    late.write_bytes(content)
    data.load(settings(written))
    with monkeypatch.context() as patch:
        patch.setattr("analysis.output.receipt.code", lambda: "another")
        with pytest.raises(FittedError):
            data.load(settings(written))
    kept = written / "sweeps" / "laptop" / "fit" / saved.NAME
    kept.write_bytes(kept.read_bytes()[:-100])
    with pytest.raises(FittedError):
        data.load(settings(written))
    kept.unlink()
    with pytest.raises(FittedError):
        data.load(settings(written))


def test_no_pickle_is_read(written, monkeypatch):
    """An archive that holds an object is as none: numpy refuses it."""
    kept = written / "sweeps" / "laptop" / "fit" / saved.NAME
    with np.load(kept) as archive:
        arrays = dict(archive)
    np.savez(kept, **{**arrays, "tree": np.array([{"receipt": 1}], dtype=object)})
    monkeypatch.setattr(api, "analyse", _fitted)
    with pytest.raises(FittedError):
        data.load(settings(written))
