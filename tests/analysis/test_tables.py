"""Anybody's table: names, units, formats, and what is refused in one sentence."""

import gzip
import json
import re

import numpy as np
import pandas as pd
import pytest

from analysis import api
from analysis import fit as command
from analysis.runs import foreign, reading
from gpt3core.errors import UsageError
from gpt3core.store import places
from tests.analysis.test_laws_and_solver import ladder
from tests.commands import called


def rows(runs=40, noise=0.003):
    data, loss = ladder(noise=noise, runs=runs)
    return pd.DataFrame({"N": data["N"], "D": data["D"], "loss": loss})


def fit(*words, cwd):
    return called(command.main, ["bootstrap=20", "figures=false", *words], cwd)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl", ".csv.gz"])
def test_formats_names_and_units(tmp_path, suffix):
    table = rows().rename(columns={"N": "params", "loss": "val_loss"}).assign(tokens_billion=lambda t: t.D / 1e9)
    path = tmp_path / f"t{suffix}"
    table = table.drop(columns="D")
    if suffix == ".parquet":
        table.to_parquet(path)
    elif suffix == ".jsonl":
        table.to_json(path, orient="records", lines=True)
    else:
        table.to_csv(path, index=False)
    found = foreign.check_runs(foreign.read(path, {"D": "tokens_billion*1e9"}), path)
    np.testing.assert_allclose(found.D, rows().D, rtol=1e-9)
    np.testing.assert_allclose(found.C, 6 * rows().N * rows().D, rtol=1e-9)
    assert list(found.run_id[:2]) == ["row-1", "row-2"]


@pytest.mark.parametrize(
    ("name", "table"),
    [("t.ndjson", True), ("T.CSV.gz", True), ("runs.v2", False), ("2026.11", False), ("gpt-1.3B", False)],
)
def test_a_name_with_a_dot_is_not_yet_a_tables(tmp_path, name, table):
    """While it is there and while it is not; one that is there is read as what it is."""
    path = tmp_path / name
    assert places.is_table(path) is table
    path.mkdir()
    assert not places.is_table(path)
    path.rmdir()
    path.touch()
    assert places.is_table(path), "if only to be told what can be read"
    with pytest.raises(UsageError) as refused:
        reading.load(tmp_path / "t.xyz")
    endings = re.findall(r"\.\w+", str(refused.value).partition(" a file of ")[2])
    assert len(endings) > 3
    assert set(endings) <= set(places.TABLES)


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.csv.gz"])
@pytest.mark.parametrize(("separator", "decimal"), [(",", "."), (";", "."), (";", ","), ("\t", "."), ("\t", ",")])
def test_columns_parted_by_semicolons_or_tabs_and_decimal_commas_are_the_same_table(tmp_path, name, separator, decimal):
    table = rows().assign(run=["a,b" if i % 2 else "1,5B" for i in range(40)], note="3,21")
    table.loc[3, "note"] = "no number"
    table.to_csv(tmp_path / name, index=False, sep=separator, decimal=decimal)
    found = reading.load(tmp_path / name)
    pd.testing.assert_frame_equal(found, table, check_dtype=False, rtol=1e-12)


def test_a_spreadsheet_of_another_country_is_read(tmp_path):
    """Byte order mark, quoted names with the other separator in them, whole numbers, empty cells, exponents."""
    text = '\ufeff"N";"D";"loss";"lr, peak"\n70000000;1,4E+09;3,214;\n150000000;3E+09;2,987;0,001\n'
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    found = foreign.read(tmp_path / "t.csv", {"lr": "lr, peak"})
    assert found[["N", "D", "loss"]].to_numpy().tolist() == [[7e7, 1.4e9, 3.214], [1.5e8, 3e9, 2.987]]
    assert found.lr.iloc[1] == 1e-3


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("N,D,loss\n70000000,1400000000,3,21\n80000000,1500000000,3,11\n", "more fields than the 3 names of its"),
        ("N,D,loss\n1.5,2.5,3.5,4,5\n1.6,2.6,3.6,4,5\n", "is a comma the sign of decimals"),
        ('N,D,loss\n"70,000,000",1400000000,3.21\n', "N is '70,000,000', a number is expected .with a point"),
        ("N;D;loss\n70000000;1.4e9;3,2,1\n", "loss is '3,2,1', a number is expected"),
        ("N;D;N\n1;2;3\n", "more than one column 'N'"),
        ("N\tD\tloss\n65,536\t12,345\t3\n", "N is '65,536', and every other comma .* thousands .* or decimals"),
        ("N;D;loss\n65,536;1300000;3.214\n", "N is '65,536', a number is expected"),
    ],
)
def test_a_comma_that_may_mean_two_things_is_asked_about(tmp_path, text, sentence):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UsageError, match=sentence):
        foreign.read(tmp_path / "t.csv", {})


@pytest.mark.parametrize(
    "before",
    [
        "# made by me\n# N in parameters, D in tokens\n",
        "sep=,\n",
        "\ufeffsep=,\r\n",
        '# {"lr": 0.1, "wd": 0.1, "b": 2}\n',
        "# N, D and, for each, the loss, in nats\n",
        "\n# made by me\n\n# another\n \n",
        '# one that says "nothing\n' * 30,
        "# a, b, c, d\n",
    ],
)
def test_remarks_before_the_first_line_are_no_rows(tmp_path, before):
    (tmp_path / "t.csv").write_text(before + rows().to_csv(index=False))
    pd.testing.assert_frame_equal(foreign.read(tmp_path / "t.csv", {}), foreign.named(rows(), {}, tmp_path))
    (tmp_path / "n.csv").write_text(rows().to_csv(index_label="#"))
    pd.testing.assert_frame_equal(foreign.read(tmp_path / "n.csv", {}), foreign.named(rows(), {}, tmp_path))


@pytest.mark.parametrize("header", ["#loss,N,D\n", "# nats, parameters, tokens, on one text\n#loss,N,D\n\n"])
def test_a_header_may_begin_as_a_remark(tmp_path, header):
    (tmp_path / "t.csv").write_text(header + ".5,1e9,2e10\n.4,2e9,4e10\n")
    assert reading.load(tmp_path / "t.csv").values.tolist() == [[0.5, 1e9, 2e10], [0.4, 2e9, 4e10]]


def test_a_compressed_file_that_is_cut_off_is_one_sentence(tmp_path):
    packed = gzip.compress(rows(200).to_csv(index=False).encode())
    (tmp_path / "t.csv.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(UsageError, match=r"t\.csv\.gz cannot be read: Compressed file ended"):
        foreign.read(tmp_path / "t.csv.gz", {})


def test_row_names_without_a_header_are_no_column(tmp_path):
    """As R's write.table leaves them."""
    (tmp_path / "t.csv").write_text('"N","D","loss"\n"1",70000000,1400000000,3.21\n"2",80000000,1500000000,3.1\n')
    assert foreign.read(tmp_path / "t.csv", {}).loss.tolist() == [3.21, 3.1]


def test_products_of_integer_columns_do_not_overflow(tmp_path):
    table = pd.DataFrame({"N": [10**12] * 7, "D": [10**13] * 7, "loss": [2.0] * 7})
    table.to_csv(tmp_path / "t.csv", index=False)
    found = foreign.check_runs(foreign.read(tmp_path / "t.csv", {}), tmp_path / "t.csv")
    assert (found.C == 6e25).all()


@pytest.mark.parametrize(
    ("change", "words", "sentence"),
    [
        (lambda t: t.assign(loss=t.loss.where(t.index != 3)), [], "row 4: loss is missing or not a number"),
        (lambda t: t, ["columns.D=D/0"], "columns.D=D/0: /0 is no unit"),
        (lambda t: t, ["columns.D=D*1.2.3"], "columns.D=D"),
        (lambda t: t, ["seed=-1"], "seed=-1: zero or more"),
        (lambda t: t.assign(N=t.N.where(t.index != 2, -5.0)), [], "row 3: N is -5"),
        (lambda t: t.assign(D=t.D.where(t.index > 1, 0.0)), [], "row 1 (and 1 more): D is 0"),
        (lambda t: t.assign(loss=t.loss.astype(object).where(t.index != 0, "low")), [], "row 1: loss is 'low'"),
        (lambda t: t.drop(columns="loss"), [], "no column for loss"),
        (lambda t: t.drop(columns="D"), [], "no column for D"),
        (lambda t: t.head(4), [], "at least 6 are needed"),
        (lambda t: t.head(0), [], "holds no rows"),
        (lambda t: t, ["columns.N=parms"], "no column 'parms'"),
        (lambda t: t, ["columns.X=N"], "known names are"),
        (lambda t: t, ["law=chinchila"], "did you mean chinchilla"),
        (lambda t: t, ["loss_function=hubr"], "allowed are huber"),
        (lambda t: t.rename(columns={"N": "params_total"}), ["N=nonembedding"], "do not say it"),
        (lambda t: t, ["exclude=[nobody]"], "no run has this name"),
        (lambda t: t, ["target=gpt4"], "known are gpt3-125m"),
        (lambda t: t, ["predict=none.csv"], "there is no file"),
    ],
)
def test_what_cannot_be_fitted_is_one_sentence_and_no_file(tmp_path, change, words, sentence):
    change(rows()).to_csv(tmp_path / "t.csv", index=False)
    done = fit("runs=t.csv", "out=o", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "o").exists()


@pytest.mark.soak
def test_points_come_back_in_the_files_order(tmp_path):
    table = rows()
    table["C"] = 6 * table.N * table.D
    table.nsmallest(30, "C").to_csv(tmp_path / "t.csv", index=False)
    points = table.nlargest(10, "C").sample(frac=1, random_state=0)
    points[["N", "D"]].to_csv(tmp_path / "p.csv", index=False)
    done = fit("runs=t.csv", "predict=p.csv", "out=o", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "o" / "fit.json").read_text())
    found = pd.DataFrame(document["predictions"])
    np.testing.assert_allclose(found.N, points.N, rtol=1e-12)
    np.testing.assert_allclose(found.D, points.D, rtol=1e-12)
    np.testing.assert_allclose(found.loss, points.loss, rtol=0.05)
    for _, p in found.iterrows():
        assert p.interval95_new_run[0] <= p.interval95_mean[0] <= p.loss <= p.interval95_mean[1]
    points[["C"]].to_csv(tmp_path / "c.csv", index=False)
    done = fit("runs=t.csv", "predict=c.csv", "out=o2", "target_compute=[1e25]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = pd.DataFrame(json.loads((tmp_path / "o2" / "fit.json").read_text())["predictions"])
    np.testing.assert_allclose(found.compute, [1e25, *points.C], rtol=1e-12)
    np.testing.assert_allclose(6 * found.N * found.D, found.compute, rtol=1e-6)
    assert found.optimal.all(), "a point that is a compute alone is the best run of it"


def test_python_gives_what_the_command_gives(tmp_path):
    table = rows()
    path = tmp_path / "t.csv"
    table.rename(columns={"D": "billions"}).assign(billions=table.D / 1e9).to_csv(path, index=False)
    points = pd.DataFrame({"N": [1e11, 2e11], "D": [1e12, 3e12]})
    points.to_csv(tmp_path / "p.csv", index=False)
    done = fit("runs=t.csv", "columns.D=billions*1e9", "predict=p.csv", "out=o", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "o" / "fit.json").read_text())["predictions"]
    found = api.fit(table, predict=points, bootstrap=20).predicted_points
    np.testing.assert_allclose([p.loss for p in found], [p["loss"] for p in written], rtol=1e-6)
    one = api.fit(table, predict=points, bootstrap=20, law="chinchilla")
    assert list(one.laws) == ["chinchilla"]
    assert list(one.predicted_points[0].by_choice) == ["chinchilla, huber 0.001"]


def test_python_takes_what_a_notebook_has_and_refuses_the_rest_in_a_sentence(tmp_path):
    table = rows()
    few = {"bootstrap": 5, "law": "chinchilla"}
    (asked,) = api.fit(table, target_compute=1e24, **few).predictions
    indexed = api.fit(table.set_index(["N", "D"]), target_compute=[1e24], **few)
    counted = api.fit(
        table.set_axis([0, 1, 2], axis=1), columns={"N": 0, "D": 1, "loss": 2}, target_compute=1e24, **few
    )
    assert indexed.predictions[0].loss == counted.predictions[0].loss == asked.loss
    pd.DataFrame({"C": [1e24]}).to_csv(tmp_path / "p.csv", index=False)
    assert api.fit(table, predict=tmp_path / "p.csv", **few).predicted_points[0].loss == asked.loss
    for words, sentence in (
        ({"source": table.to_dict()}, "source: a pandas DataFrame or a path is expected, and a dict was given"),
        ({"predict": {"N": [1e9]}}, "predict: a pandas DataFrame or a path"),
        ({"target_compute": ["x"]}, "numbers of FLOPs are expected"),
        ({"target_compute": "123"}, "target_compute='123': numbers of FLOPs are expected"),
        ({"delta": float("inf")}, "positive and finite"),
    ):
        with pytest.raises(UsageError, match=sentence):
            api.fit(**{"source": table, **few, **words})
    with pytest.raises(UsageError, match="name the two tables apart"):
        api.compare(table, table, names=("A", "A"))


def test_a_run_that_did_not_finish_is_listed_and_not_refused(tmp_path):
    table = rows().assign(status="done", name=[f"r{i}" for i in range(40)])
    table.loc[3, ["loss", "status"]] = [np.nan, "diverged"]
    table.loc[7, "loss"] = np.nan
    table.to_csv(tmp_path / "t.csv", index=False)
    done = fit("runs=t.csv", "exclude=[r7]", "law=chinchilla", "out=o", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rules = {r["name"]: r["excluded"] for r in json.loads((tmp_path / "o" / "fit.json").read_text())["rules"]}
    assert rules["diverged"] == ["r3"]
    assert rules["excluded"] == ["r7"]


def test_aliases_of_one_letter_are_not_guessed_from_another_case(tmp_path):
    path = tmp_path / "t.csv"
    rows().rename(columns={"D": "d"}).to_csv(path, index=False)
    with pytest.raises(UsageError, match="no column for D"):
        foreign.check_runs(foreign.read(path, {}), path)


def test_the_user_may_say_what_an_unnamed_n_counts():
    assert api.fit(rows(), bootstrap=20, law="chinchilla", N="total").convention.n == "total"
    assert api.fit(rows(), bootstrap=20, law="chinchilla").convention.n == "given"


@pytest.mark.soak
def test_names_with_brackets_are_printed_as_they_are(tmp_path):
    """Text from outside is no markup: neither a style nor the end of one."""
    names = [f"mix[red]{i}" if i % 2 else f"r{i}[/x]" for i in range(len(rows()))]
    rows().assign(run_id=names).to_csv(tmp_path / "t[red]x[b].csv", index=False)
    done = fit("runs=t[red]x[b].csv", "out=o", "exclude=['mix[red]7']", "tables=all", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "t[red]x[b]" in done.stdout
    assert "mix[red]7" in done.stdout


def test_columns_named_twice_are_refused(tmp_path):
    text = rows().to_csv(index=False).replace("N,D,loss", "loss,D,loss", 1)
    (tmp_path / "t.csv").write_text(text)
    done = fit("runs=t.csv", "out=o", cwd=tmp_path)
    assert done.returncode == 2
    assert "more than one column 'loss': name them apart" in done.stderr
