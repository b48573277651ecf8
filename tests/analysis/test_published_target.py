"""A published model as a target: predicted as it was trained, and the best model of its compute beside it."""

import json

import numpy as np
import pandas as pd
import pytest

from analysis import api, fit
from analysis.output import documents, text
from analysis.output.answer import answer
from analysis.runs import published
from analysis.runs.conventions import Compute, Convention, Parameters
from tests.analysis.test_laws_and_solver import TRUE
from tests.analysis.test_tables import rows


@pytest.mark.parametrize(
    ("size", "layers", "width"), [("gpt3-175b", 96, 12288), ("gpt3-13b", 40, 5120), ("gpt3-125m", 12, 768)]
)
def test_it_is_counted_as_the_laws_count(size, layers, width):
    """Non-embedding parameters are 12 n_layer d_model^2 and what norms and biases add (Kaplan et al. 2020)."""
    without = published.model(size, Convention(n=Parameters.NONEMBEDDING, c=Compute.SIX_ND))
    total = published.model(size, Convention(n=Parameters.TOTAL, c=Compute.EXACT))
    assert without.n == pytest.approx(12 * layers * width**2, rel=2e-3)
    assert total.n - without.n == pytest.approx((50257 + 2048) * width, rel=0.05)
    assert (without.d, without.c) == (3e11, 6 * without.n * 3e11)
    kaplan = published.model(size, Convention(n=Parameters.TOTAL, c=Compute.KAPLAN))
    assert (kaplan.n, kaplan.c) == (total.n, without.c)
    assert total.c == pytest.approx(6 * total.n * total.d, rel=0.01), "as table D.1 has it"


def true_loss(n, d):
    return TRUE["E"] + TRUE["A"] / n ** TRUE["alpha"] + TRUE["B"] / d ** TRUE["beta"]


def test_the_model_is_predicted_and_not_the_best_one_of_its_compute():
    study = api.fit(rows(noise=1e-4), target="gpt3-175b", law="chinchilla", bootstrap=20, N="total")
    model, best = study.predictions
    assert (model.n, model.d, model.compute) == (174.6e9, 3e11, 6 * 174.6e9 * 3e11)  # the runs do not record theirs
    assert model.loss == pytest.approx(true_loss(174.6e9, 3e11), rel=2e-3)
    assert best.n < model.n / 2, "Hoffmann et al.: GPT-3 was under-trained"
    assert best.loss < model.loss
    document = documents.to_json(study)["predictions"]
    assert [(p["target"], p["optimal"]) for p in document] == [("gpt3-175b", False), ("gpt3-175b", True)]
    said = [said.partition(":")[0] for label, said in answer(study) if label == "at 3.14e23"]
    assert said == ["gpt3-175b", "the best of its compute"]
    table = [row.words for row in text.predictions(study).rows]
    assert [line[0] for line in table] == ["gpt3-175b", "best at C of gpt3-175b"]
    assert "gpt3-175b | 3.14e+23" in text.to_markdown(study)
    assert not any(n.code == "target-count" for n in study.notes)


@pytest.mark.soak
def test_what_cannot_be_told_of_it_is_said():
    open_count = api.fit(rows(), target="gpt3-175b", law="chinchilla", bootstrap=5)
    assert "target-count" in {n.code for n in open_count.notes}
    parts = []
    for c in 10.0 ** np.arange(18, 24):
        n = np.sqrt(c / 120) * np.geomspace(0.2, 5, 7)
        parts.append(pd.DataFrame({"N": n, "D": c / (6 * n)}))
    table = pd.concat(parts).assign(loss=lambda t: true_loss(t.N, t.D))
    of_compute = api.fit(table, target="gpt3-13b", law="compute_frontier", bootstrap=5, rules="none")
    assert [p.optimal for p in of_compute.predictions] == [True]
    assert "target-not-predicted" in {n.code for n in of_compute.notes}


def test_the_command_prints_both(tmp_path, capsys):
    rows(noise=1e-3).to_csv(tmp_path / "t.csv", index=False)
    words = ["target=gpt3-175b", "target_compute=[1e22]", "law=hoffmann", "N=total", "bootstrap=5", "figures=false"]
    assert fit.main([f"runs={tmp_path / 't.csv'}", f"out={tmp_path / 'o'}", *words]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "175B" in printed
    assert "300B" in printed
    document = json.loads((tmp_path / "o" / "fit.json").read_text())
    assert [p["compute"] for p in document["predictions"]] == [6 * 174.6e9 * 3e11] * 2 + [1e22]
    assert document["receipt"]["options"]["models"][0]["name"] == "gpt3-175b"
