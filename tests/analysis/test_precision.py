"""Runs of one table that were trained in different precisions or parametrisations: said, and taken out when asked."""

import json
from dataclasses import replace

import pandas as pd
import pytest

from analysis import api
from analysis.runs import store
from analysis.tuning import study
from gpt3core.errors import UsageError
from gpt3core.store.rundir import RunDir
from gpt3core.store.sweepdir import SweepDir
from tests.analysis.synthetic import make_store
from tests.analysis.test_tables import fit, rows


def mixed():
    return rows().assign(precision=["fp32" if i % 4 else "bf16" for i in range(40)], name=[f"r{i}" for i in range(40)])


def note(study):
    (found,) = [n.message for n in study.notes if n.code == "mixed-precision"]
    return found


def test_a_table_that_mixes_precisions_says_so_with_counts():
    found = note(api.fit(mixed(), bootstrap=5, law="chinchilla"))
    assert "bf16 (10 runs), fp32 (29 runs)" in found  # one is under-trained
    assert "precision=fp32 leaves the others out" in found


@pytest.mark.soak
def test_a_store_that_mixes_precisions_says_so(isolated):
    ids = make_store(isolated / "root")
    assert not [
        n for n in api.fit(isolated / "root", bootstrap=5, law="chinchilla").notes if n.code == "mixed-precision"
    ]
    for run_id in ids[:3]:
        path = RunDir(isolated / "root", run_id).path / "result.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "precision": "fp32"}))
    said = note(api.fit(isolated / "root", bootstrap=5, law="chinchilla"))
    assert f"bf16 ({len(ids) - 3} runs), fp32 (3 runs)" in said
    kept = api.fit(isolated / "root", bootstrap=5, precision="bf16", law="chinchilla")
    assert set(kept.table.run_id) == set(ids[3:])


def test_the_rule_takes_the_others_out_by_name(tmp_path):
    mixed().to_csv(tmp_path / "t.csv", index=False)
    done = fit("runs=t.csv", "precision=fp32", "law=chinchilla", "out=o", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "o" / "fit.json").read_text())
    (rule,) = [r for r in document["rules"] if r["name"] == "precision"]
    assert rule["excluded"] == sorted(f"r{i}" for i in range(0, 40, 4))
    assert "mixed-precision" not in {n["code"] for n in document["notes"]}


@pytest.mark.parametrize(
    ("table", "sentence"),
    [(mixed(), "precision=fp8: no run was trained in it; there are bf16, fp32"), (rows(), "these runs do not say it")],
)
def test_a_precision_that_is_not_there_is_refused_with_those_that_are(table, sentence):
    with pytest.raises(UsageError, match=sentence):
        api.fit(pd.DataFrame(table), precision="fp8")


def test_a_table_has_no_sweeps():
    with pytest.raises(UsageError, match="a table has no sweeps"):
        api.fit(rows(), sweep="laptop")


def test_a_sweep_that_mixes_parametrisations_says_so_and_its_table_says_which(isolated):
    root = isolated / "root"
    standard = make_store(root, "budgets=[1e12,1e13]")
    scaled = make_store(root, "name=mup", "model.mup_base_width=32", "budgets=[1e12]")
    sweep = SweepDir(root, "mup")
    assert study._mup(store.load(root, "mup").table) == 32, "a rule keeps it"
    alone = api.fit(root, sweep="mup", bootstrap=5, law="chinchilla")
    assert "mixed-parametrisation" not in {n.code for n in alone.notes}
    with sweep.owned():
        sweep.write_record(replace(sweep.record(), runs=(*standard, *scaled)))
    both = api.fit(root, sweep="mup", bootstrap=5, law="chinchilla", rules="none")
    (said,) = [n.message for n in both.notes if n.code == "mixed-parametrisation"]
    assert f"muP of base width 32 ({len(scaled)} runs), the standard one ({len(standard)} runs)" in said
    assert f"exclude=[{','.join(scaled)}]" in said
