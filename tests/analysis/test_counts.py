"""What N counts: a column that the user names is the one fitted to, and points are counted as the laws count."""

import numpy as np
import pandas as pd
import pytest

from analysis import api, design
from analysis.runs import foreign
from analysis.runs.points import counted
from analysis.runs.selection import select
from analysis.settings import RunSettings
from gpt3core.errors import UsageError
from tests.analysis.synthetic import make_store
from tests.analysis.test_tables import rows


def several():
    """N of one's own, beside 1.5 times as many in total and 0.9 times as many without embeddings."""
    return rows().rename(columns={"N": "mine"}).assign(params_total=lambda t: 1.5 * t.mine)


def chosen(table, **words):
    return select(RunSettings(**words), table)


def test_a_column_named_for_n_is_the_one_fitted_to_whatever_else_the_file_counts():
    found = chosen(several(), columns={"N": "mine"})
    assert found.convention.n == "given"
    np.testing.assert_allclose(np.sort(found.everything.N), np.sort(several().mine))
    named = chosen(several(), columns={"N": "mine"}, N="total")
    np.testing.assert_allclose(np.sort(named.everything.N), np.sort(several().mine))
    assert named.convention.n == "total"
    both = several().assign(params_nonembedding=lambda t: 0.9 * t.mine)
    assert chosen(both).convention.n == "nonembedding"
    assert chosen(both, columns={"N_total": "params_total"}).convention.n == "total"


def test_other_counts_stay_beside_it_and_an_n_that_is_not_used_is_said():
    study = api.fit(several(), columns={"N": "mine"}, bootstrap=5, law="chinchilla")
    assert {str(e.convention.n) for e in study.exponents} == {"given", "total"}
    study = api.fit(several().rename(columns={"mine": "N"}), bootstrap=5, law="chinchilla")
    assert study.convention.n == "total"
    assert "other-count" in {n.code for n in study.notes}


def points_of(runs, points, **words):
    selection = chosen(runs, **words)
    raw = foreign.named(points, {k: v for k, v in words.get("columns", {}).items() if v in points}, "p")
    return counted(raw, selection, "p", words.get("columns", {}))


def test_points_are_counted_as_the_laws_count():
    total = several()[["params_total", "D", "loss"]]
    points = pd.DataFrame({"N": [1e9], "params_total": [1.5e9], "D": [1e11]})
    found, notes = points_of(total, points)
    assert (found.N[0], found.C[0], notes) == (1.5e9, 6 * 1.5e9 * 1e11, [])
    found, notes = points_of(several(), points.rename(columns={"N": "mine"}), columns={"N": "mine"})
    assert (found.N[0], notes) == (1e9, [])
    with pytest.raises(UsageError, match=r"p has non-embedding parameters .params_nonembedding., and .* N total"):
        points_of(total, pd.DataFrame({"params_nonembedding": [1e9], "D": [1e11]}))
    with pytest.raises(UsageError, match="p has total parameters"):
        points_of(several(), points[["params_total", "D"]], columns={"N": "mine"})


def test_what_an_n_of_points_counts_is_said_where_nothing_says_it():
    total = several()[["params_total", "D", "loss"]]
    _, notes = points_of(total, pd.DataFrame({"N": [1e9], "D": [1e11]}))
    assert "N is taken to count the parameters that the laws are fitted to (N total)" in notes[0].message
    assert points_of(rows(), pd.DataFrame({"params": [1e9], "D": [1e11]}))[1] == []
    assert points_of(rows(), pd.DataFrame({"N": [1e9], "D": [1e11]}), N="total")[1] == []
    _, notes = points_of(several(), pd.DataFrame({"N": [1e9], "D": [1e11]}), columns={"N": "mine"})
    assert [n.code for n in notes] == ["points-count"]


def test_c_of_points_follows_the_convention():
    points = pd.DataFrame({"N": [1e9], "D": [1e11], "C": [9e20]})
    recorded = rows().assign(C=9 * rows().N * rows().D)
    for runs, words in ((recorded, {"C": "6nd"}), (rows(), {})):
        found, notes = points_of(runs, points, **words)
        assert (found.C[0], [n.code for n in notes]) == (6e20, ["points-compute"])
    found, notes = points_of(recorded, points)
    assert (found.C[0], notes) == (9e20, [])


def test_compute_that_the_runs_do_not_say_is_not_called_recorded():
    assert chosen(rows()).convention.c == "6nd"
    assert chosen(rows().assign(C=9 * rows().N * rows().D)).convention.c == "exact"
    with pytest.raises(UsageError, match="C=exact: these runs do not say their compute"):
        chosen(rows(), C="exact")


def test_the_commands_say_it_for_points_and_candidates(isolated, capsys):
    root = isolated / "root"
    make_store(root)
    pd.DataFrame({"N": [1e5, 2e5], "D": [1e7, 1e7]}).to_csv(isolated / "g.csv", index=False)
    assert design.main([f"runs={root}", f"candidates={isolated / 'g.csv'}"]) == 0
    assert "taken to count the parameters" in " ".join(capsys.readouterr().out.split())
    pd.DataFrame({"total_params": [1e5], "D": [1e7]}).to_csv(isolated / "t.csv", index=False)
    with pytest.raises(UsageError, match="has total parameters"):
        design.main([f"runs={root}", f"candidates={isolated / 't.csv'}"])
    with pytest.raises(UsageError, match="has total parameters"):
        api.fit(root, predict=pd.read_csv(isolated / "t.csv"), bootstrap=5, law="chinchilla")
