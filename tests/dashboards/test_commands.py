"""What is typed wrongly to the app and the report: one sentence, a status of its own, and nothing is lost."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dashboards import app, exports, offline, report
from dashboards.figures.drawing import nothing
from gpt3core import cli
from gpt3core.errors import StoreError, UsageError
from tests.test_house import CODE

LONG = "x" * 300


@pytest.fixture
def started(monkeypatch):
    """Nothing is served: what reaches the server raises."""
    monkeypatch.setattr(app, "serve", lambda *_: pytest.fail("it was served"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["law=chinchila"], "law=chinchila, did you mean chinchilla?: allowed are all, "),
        (["target=gpt3-175"], "target=gpt3-175, did you mean gpt3-175b?: known are "),
        (["port=８０８０"], "port=８０８０: a number from 1 to 65535"),
        ([f"port={'9' * 5000}"], "port=9999"),
        (["port="], "port=: a number from 1 to 65535"),
        (["host="], "host= has no value: leave it out for 127.0.0.1, or give an address of this machine"),
        (["token=two words\nand a second line"], "token= has 27 characters: at least 16, all of ASCII and on one line"),
        (["port=1", "port=2"], "port=2: port=1 was given too"),
        (["sweep=../.."], "holds no sweep '../..'; there are laptop"),
    ],
)
def test_the_app_refuses_at_once_what_can_never_be_right(started, simulated, words, said):
    with pytest.raises((UsageError, StoreError)) as refused:
        app.main([f"runs={simulated}", *words])
    assert said in str(refused.value)


def test_a_port_that_another_app_of_ours_has_is_named(started, simulated):
    with app.listening(app.door(None, None), 0) as other:
        port = other.getsockname()[1]
        with pytest.raises(
            UsageError, match=f"port={port}: Address already in use; give another, like port={port + 1}"
        ):
            app.main([f"runs={simulated}", f"port={port}"])


@pytest.mark.parametrize("name", [LONG, f"{LONG}.csv"])
@pytest.mark.parametrize("main", [app.main, report.main])
def test_a_place_that_cannot_be_opened_is_one_sentence(started, main, name):
    with pytest.raises(StoreError, match=r"cannot be opened .File name too long.: check its name, and your rights"):
        main([f"runs=/tmp/{name}"])


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_so_is_a_folder_without_rights(tmp_path):
    shut = tmp_path / "shut"
    (shut / "root").mkdir(parents=True)
    shut.chmod(0o700)
    asked = f"""
import os
from pathlib import Path
from gpt3core.errors import StoreError
from gpt3core.store import places, rundir
os.setuid(65534)
for name in ("root", "t.csv", "notes.d"):
    path = Path({str(shut)!r}) / name
    try:
        print(places.is_table(path), rundir.open_root(path, create=False))
    except StoreError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", asked], cwd=CODE, capture_output=True, text=True, timeout=60)
    said = "cannot be opened (Permission denied): check its name, and your rights"
    assert done.stdout.splitlines() == [f"{shut / name} {said}" for name in ("root", "t.csv", "notes.d")], done.stderr


def test_a_home_that_nobody_knows_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["report", "runs=~nobody-of-that-name/runs"])
    with pytest.raises(SystemExit) as ended:
        cli.run(report.main)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: a folder is given as ~NAME, and this machine knows no home")


def test_a_folder_of_another_program_keeps_its_pages(tmp_path):
    (tmp_path / "index.html").write_text("<h1>My site</h1>")
    with pytest.raises(UsageError, match=r"index.html is no report of isoflop's, .* name another folder by out="):
        offline.write_pages("a", [], tmp_path, "list.html")
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
    assert (tmp_path / "index.html").read_text() == "<h1>My site</h1>"
    mine = tmp_path / "mine"
    for _ in range(2):
        offline.write_pages("a", [], mine, "list.html")
        (mine / "notes.txt").write_text("what else is there stays")
    assert (mine / "notes.txt").exists()


def empty(slug):
    return nothing(slug, slug, "no bar was measured")


def test_two_reports_at_once_into_one_folder_are_whole(tmp_path, monkeypatch):
    made = exports.csv

    def another_meanwhile(rows):
        monkeypatch.setitem(exports.KINDS, "csv", (made, ""))
        offline.write_pages("second", [empty("b")], tmp_path, "list.html")
        return made(rows)

    monkeypatch.setitem(exports.KINDS, "csv", (another_meanwhile, ""))
    offline.write_pages("first", [empty("a"), empty("c")], tmp_path, "list.html")
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*") if path.is_file())
    data = [f"data/{slug}.{kind}" for slug in "ac" for kind in ("csv", "parquet")]
    assert found == sorted(["a.html", "c.html", *data, "figures.js", "index.html", "plotly.min.js"])


def test_only_an_old_unfinished_folder_is_swept_away(tmp_path):
    old, new = (tmp_path / f".isoflop-unfinished{end}" for end in ("", "-new"))
    for folder in (old, new):
        (folder / "data").mkdir(parents=True)
    os.utime(old, times=(0, 0))
    offline.write_pages("a", [], tmp_path, "list.html")
    assert [path.name for path in tmp_path.glob(".*")] == [new.name]


def test_what_an_interrupted_report_left_of_gone_figures_goes_at_the_next(tmp_path, monkeypatch):
    offline.write_pages("a", [empty("kept"), empty("gone")], tmp_path, "list.html")
    with monkeypatch.context() as patch:
        unlink = Path.unlink

        def interrupted(path, **given):
            unlink(path, **given)
            if path.suffix == ".html":
                raise KeyboardInterrupt

        patch.setattr(Path, "unlink", interrupted)
        with pytest.raises(KeyboardInterrupt):
            offline.write_pages("a", [empty("kept")], tmp_path, "list.html")
    offline.write_pages("a", [empty("kept")], tmp_path, "list.html")
    assert not list(tmp_path.rglob("gone.*"))


def test_a_folder_in_the_place_of_a_page_and_a_name_too_long_are_said_by_their_key(tmp_path):
    (tmp_path / "index.html").mkdir()
    for out, why in ((tmp_path, "Is a directory"), (tmp_path / LONG, "File name too long")):
        with pytest.raises(StoreError, match=rf"cannot write .* \({why}\): name a writable folder by out="):
            offline.write_pages("a", [], out, "list.html")
    with pytest.raises(UsageError, match=r"out=x+: File name too long; name a folder"):
        report.main([f"out={LONG}"])
