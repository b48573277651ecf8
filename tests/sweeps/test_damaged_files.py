"""The driver on damaged files: each concerns its run only, is set aside, and is made again."""

from dataclasses import replace

import pytest

from gpt3core.errors import DiskFullError, StoreError
from gpt3core.store.rundir import RunDir
from gpt3core.store.sweepdir import SweepDir
from sweeps import command
from sweeps.driving import taking
from tests.sweeps.fake_cluster import FakeCluster, Silent, drive, ids, some


@pytest.mark.parametrize("damaged", ["", "{", "[]", "{}", '{"loss": 3}', "\x00\x00"])
def test_a_damaged_result_concerns_its_run_only(smoke, damaged):
    root, victim = smoke[2], ids(smoke)[1]
    drive(smoke, FakeCluster(root))
    (RunDir(root, victim).path / "result.json").write_text(damaged)
    cluster, display = FakeCluster(root), Silent()
    outcome = drive(smoke, cluster, display)
    assert cluster.started == [victim]
    assert sorted(outcome.done) == sorted(ids(smoke))
    assert victim in outcome.damage[0]
    assert command._conclude(SweepDir(root, smoke[0].name), 4, outcome) == 3
    assert list(RunDir(root, victim).path.glob("damaged-result.json-*"))


@pytest.mark.parametrize(
    "wrong",
    [
        '"damage": 5',
        '"devices": null',
        '"tokens_per_second": "x"',
        '"epochs": null',
        '"flops_per_second": NaN',
        "[" * 5000,
    ],
)
def test_a_result_with_fields_that_no_trainer_writes_concerns_its_run_only(smoke, wrong):
    root, victim = smoke[2], ids(smoke)[1]
    drive(smoke, FakeCluster(root))
    (RunDir(root, victim).path / "result.json").write_text(f'{{"status": "done", {wrong}}}')
    outcome = drive(smoke, FakeCluster(root))
    assert sorted(outcome.done) == sorted(ids(smoke))
    assert victim in outcome.damage[0]


@pytest.mark.parametrize("content", [b"", b"[]", b"PAR1 torn"])
def test_a_damaged_evaluation_is_set_aside_and_made_again(smoke, content):
    root, victim = smoke[2], ids(smoke)[1]
    drive(smoke, FakeCluster(root))
    table = RunDir(root, victim).evaluation_path(smoke[1].evals.eval_id)
    table.write_bytes(content)
    cluster = FakeCluster(root)
    outcome = drive(smoke, cluster)
    assert cluster.started == [victim]
    assert "its evaluation was damaged" in outcome.damage[0]
    assert RunDir(root, victim).evaluated(smoke[1].evals.eval_id)


@pytest.mark.parametrize("damaged", ["[]", "{}", '{"runs": ['])
def test_a_damaged_record_stops_no_command(smoke, damaged, monkeypatch, capsys):
    monkeypatch.setenv("ISOFLOP_ROOT", str(smoke[2]))
    monkeypatch.setattr(command.texts, "describe", lambda *_: None)
    drive(smoke, FakeCluster(smoke[2]))
    (SweepDir(smoke[2], "smoke").path / "sweep.json").write_text(damaged)
    assert command.read(["recipe=smoke"]).record is None
    assert "it is set aside when the sweep is driven" in capsys.readouterr().err


@pytest.mark.parametrize("damaged", ["[]", "{}", '{"status": "done", "devices": null}'])
def test_a_damaged_result_stops_no_plan(smoke, damaged, known_text, monkeypatch, capsys):
    monkeypatch.setenv("ISOFLOP_ROOT", str(smoke[2]))
    run = command.read(["recipe=smoke"]).grid.runs[0]
    folder = RunDir(smoke[2], run.run_id)
    folder.create(run)
    (folder.path / "result.json").write_text(damaged)
    assert command.sweep(["recipe=smoke", "--plan"], usage="") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"run {run.run_id}: its result is damaged" in said
    assert (folder.path / "result.json").read_text() == damaged, "a plan changes nothing"


def test_a_store_of_another_version_is_not_planned_on(isolated, known_text, monkeypatch):
    monkeypatch.setenv("ISOFLOP_ROOT", str(isolated))
    (isolated / "store.json").write_text('{"format": 1}')
    with pytest.raises(StoreError, match="has store format 1"):
        command.read(["recipe=smoke"])


def test_a_log_that_cannot_be_written_ends_no_sweep(smoke, monkeypatch):
    def full(*_, **__):
        raise DiskFullError("no room")

    monkeypatch.setattr(SweepDir, "event", full)
    display = Silent()
    assert len(drive(smoke, FakeCluster(smoke[2]), display).done) == 4
    assert sum("events.jsonl is not written any more" in line for line in display.lines) == 1


def test_an_earlier_run_finds_its_text_where_it_lies_now(smoke):
    chosen, cells, root = smoke
    drive(smoke, FakeCluster(root))
    moved = [replace(run, data=replace(run.data, corpus="/moved")) for run in cells.runs]
    fewer = replace(cells, runs=moved[:1])
    with SweepDir(root, chosen.name).owned():
        taken = taking.take(replace(chosen, extend=True), fewer, SweepDir(root, chosen.name))
    assert len(taken.runs) == 4
    assert {run.data.corpus for run in taken.runs} == {"/moved"}


@pytest.mark.parametrize("name", ["sweep.json", "status.json"])
@pytest.mark.parametrize("damaged", ["", "[]", "{}", "{"])
def test_damaged_files_of_the_sweep_are_set_aside_and_it_goes_on(smoke, name, damaged):
    chosen, _, root = smoke
    drive(some(smoke, 2), FakeCluster(root))
    (SweepDir(root, chosen.name).path / name).write_text(damaged)
    assert len(drive(smoke, FakeCluster(root)).done) == 4
    assert len(SweepDir(root, chosen.name).record().runs) == 4


def test_a_damaged_specification_is_written_again(smoke):
    root, victim = smoke[2], ids(smoke)[1]
    drive(smoke, FakeCluster(root))
    (RunDir(root, victim).path / "spec.json").write_text("{")
    outcome = drive(smoke, FakeCluster(root))
    assert len(outcome.done) == 4
    assert RunDir(root, victim).spec() == smoke[1].runs[1]
    assert victim in outcome.damage[0]
