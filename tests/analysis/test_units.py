"""Units and columns that cannot be meant are asked about; values that no run can have are refused."""

import numpy as np
import pandas as pd
import pytest

from analysis import api
from analysis.runs import foreign
from analysis.runs.points import counted
from analysis.runs.selection import select
from analysis.settings import RunSettings
from gpt3core.errors import UsageError
from tests.analysis.test_tables import rows


def chosen(table, **words):
    return select(RunSettings(**words), table)


def with_c(factor=1.0):
    return rows().assign(C=lambda t: 6 * t.N * t.D * factor)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (rows().assign(D=rows().D / 1e9), r"D \(column D\) is .* multiply by 1e9\? Give it as columns.D=D\*1e9"),
        (rows().assign(N=rows().N / 1e6), r"N \(column N\) is .* multiply by 1e6\?"),
        (rows().assign(N=rows().N / 1e9, D=rows().D / 1e9), r"N .* multiply by 1e9\?"),
        (
            rows().assign(N=rows().N / 1e6, D=rows().D / 1e9),
            r"in millions and billions\? Give them as columns.N=N\*1e6 columns.D=D\*1e9, or as columns.N=N\*1",
        ),
        (
            rows().assign(N=rows().N / 1e6, D=rows().D / 1e6),
            r"in millions\? Give them as columns.N=N\*1e6 columns.D=D\*1e6",
        ),
        (with_c(1 / 8.64e19), r"C \(column C\) is .* is it in PF-days\? Give it as columns.C=C\*8.64e19"),
        (with_c(1e-18), r"is it in EFLOPs\?"),
        (with_c(1e6), r"name another column, or give it as columns.C=C\*1 if it is right"),
    ],
)
def test_units_that_no_run_can_have_are_refused_with_the_one_that_makes_sense(table, sentence):
    with pytest.raises(UsageError, match=sentence):
        chosen(table)


def test_points_are_asked_for_their_units_too_and_a_loss_among_them_is_said_to_be_unused(tmp_path):
    points = tmp_path / "points.csv"
    pd.DataFrame({"N": [1e9], "D": [20.0], "loss": [2.5]}).to_csv(points, index=False)
    chosen_runs, columns = chosen(rows()), {}
    with pytest.raises(UsageError, match=r"D \(column D\) is 20 .* multiply by 1e9\? Give it as columns.D=D\*1e9"):
        counted(foreign.read_points(points, columns), chosen_runs, points, columns)
    columns = {"D": "D*1e9"}
    found, notes = counted(foreign.read_points(points, columns), chosen_runs, points, columns)
    assert found.D.tolist() == [2e10]
    assert [note.message for note in notes if note.code == "points-loss"] == [
        f"{points}: loss is not used, for a point is what a run is (N, D, C)"
    ]


def test_a_unit_that_the_user_wrote_is_not_asked_about_again():
    billions = rows().assign(D=rows().D / 1e9)
    np.testing.assert_allclose(np.sort(chosen(billions, columns={"D": "D*1e9"}).everything.D), np.sort(rows().D))
    assert len(chosen(billions, columns={"D": "D*1"}).everything) == 40
    assert len(chosen(with_c(1e6), columns={"C": "C*1"}).table)
    assert len(chosen(with_c(1e6), C="6nd").table), "that column is not what C means"
    np.testing.assert_allclose(chosen(with_c(1 / 8.64e19), columns={"C": "C*8.64e19"}).table.C.max(), with_c().C.max())


@pytest.mark.parametrize("active", [1.0, 0.05, 30.0])
def test_experts_and_large_vocabularies_are_no_question(active):
    assert chosen(with_c(active)).runs.notes == []


def test_a_loss_in_another_unit_is_asked_about_and_fitted_as_well_as_before():
    table = rows(noise=0.003)
    small = table.assign(loss=table.loss * 1e-3)
    found, scaled = (api.fit(t, bootstrap=20, law="chinchilla") for t in (table, small))
    (note,) = [n for n in scaled.notes if n.code == "loss-unit"]
    assert "columns.loss=loss*1000" in note.message
    one, other = (s.laws["chinchilla"] for s in (found, scaled))
    assert other.fit.status is one.fit.status
    assert other.fit.params["E"] == pytest.approx(one.fit.params["E"] / 1e3, rel=1e-3)
    assert [n.code for n in chosen(table.assign(loss=np.exp(table.loss) + 9)).runs.notes] == ["loss-unit"]
    assert [n.code for n in chosen(table.assign(loss=np.exp(table.loss))).runs.notes] == ["loss-unit"], "14 are usual"
    assert chosen(small, columns={"loss": "loss*1"}).runs.notes == []
    assert chosen(table).runs.notes == []


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (rows().assign(epochs=-1.0), "row 1 .and 39 more.: epochs is -1, it must be finite and positive"),
        (rows().assign(loss_se=[0.01] * 39 + [-0.01]), "row 40: loss_se is -0.01, it must be finite and zero or more"),
        (rows().assign(gpu_hours=-1.0), "gpu_hours is -1"),
        (rows().assign(budget_flops=0.0), "budget_flops is 0"),
        (rows().drop(columns="loss").assign(L=12, d_model=64), "no column for loss: .*; it has N, D, L, d_model"),
        (rows().drop(columns="D").assign(steps=12), "no column for D: .*; it has N, loss, steps"),
        (rows().assign(**{" loss": 3.0}), "more than one column 'loss'"),
    ],
)
def test_values_and_columns_that_cannot_be_meant_are_refused(table, sentence):
    with pytest.raises(UsageError, match=sentence):
        chosen(table)


def test_losses_called_l_are_losses_and_blanks_in_names_and_words_do_not_count(tmp_path):
    table = rows().rename(columns={"loss": "L", "D": " D "}).assign(**{"status ": "done ", "loss_se": np.nan})
    table.loc[3, "status "] = " diverged"
    table.to_csv(tmp_path / "t.csv", index=False)
    found = foreign.check_runs(foreign.read(tmp_path / "t.csv", {}), tmp_path / "t.csv")
    np.testing.assert_allclose(found.loss, rows().loss)
    assert list(found.status.unique()) == ["done", "diverged"]


def test_the_words_of_a_status_that_left_every_run_out_are_said():
    with pytest.raises(UsageError, match="40 diverged; status 'trained', and runs that finished are done, ok"):
        api.fit(rows().assign(status="trained"))


@pytest.mark.parametrize("compute", ["-1", "0", "inf"])
def test_a_target_of_no_compute_is_refused_by_the_design(compute):
    from analysis import design

    with pytest.raises(UsageError, match="FLOPs, positive"):
        design.main(["candidates=g.csv", f"target_compute={compute}"])
    with pytest.raises(UsageError, match="FLOPs, positive"):
        api.propose(pd.DataFrame(), pd.DataFrame(), compute=float(compute))


def test_batches_in_sequences_are_asked_about_and_small_ones_of_small_models_are_not():
    table = rows().assign(batch_size=512.0)
    (note,) = chosen(table, columns={"batch_tokens": "batch_size"}).runs.notes
    assert note.code == "batch-unit" and "columns.batch_tokens=batch_size*2048" in note.message
    assert chosen(table, columns={"batch_tokens": "batch_size*2048"}).runs.notes == []
    assert (
        chosen(table.assign(N=table.N / 1e5, D=table.D / 1e5), columns={"batch_tokens": "batch_size"}).runs.notes == []
    )
