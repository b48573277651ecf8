"""What no page sends is refused in a sentence, a defect is a line and a warning, and nobody holds a thread for ever."""

import http.client
import itertools
import json
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import pytest

from analysis.settings import StudySettings
from dashboards import app, curve_export, faults, live, server
from dashboards.faults import CALLBACK
from dashboards.pages import shell
from dashboards.security import Door
from gpt3core.errors import StoreError
from sweeps.watching.run_table import RunsView, RunTable

VALUES = (None, 5, -1.5, True, "x", "\ud800", [], [1, 2, 3], [[1], {}, "x"], {"points": [1]})


@pytest.fixture(scope="module")
def made():
    """The app over a store that is not there."""
    return app.build(live.Live(StudySettings(runs="nowhere")), Door())


@pytest.fixture
def browser(made, monkeypatch):
    monkeypatch.setattr(faults, "_told", {True: set(), False: set()})
    return made.server.test_client()


@pytest.fixture(scope="module")
def served():
    """A real server, whose port is given."""
    started = app.serve(live.Live(StudySettings(runs="nowhere")), app.listening(Door(), 0), Door())
    threading.Thread(target=started.serve_forever, daemon=True).start()
    yield started.port
    started.shutdown()


def requests(browser):
    """A right request of each callback, whose values are none."""
    for known in browser.get("/_dash-dependencies").json:
        if known["clientside_function"] is None:
            named = known["output"][2:-2].split("...") if known["output"].startswith("..") else [known["output"]]
            outputs = [part(*name.rsplit(".", 1)) for name in named]
            yield {
                "output": known["output"],
                "outputs": outputs if known["output"].startswith("..") else outputs[0],
                "inputs": [part(one["id"], one["property"]) for one in known["inputs"]],
                "state": [part(one["id"], one["property"]) for one in known["state"]],
                "changedPropIds": [],
            }


def part(name, what):
    return {"id": json.loads(name) if name.startswith("{") else name, "property": what, "value": None}


def of_frame(browser):
    """The request of the first page."""
    right = next(one for one in requests(browser) if part("page", "children") in one["outputs"])
    right["inputs"][0]["value"] = ["/", ""]
    return right


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"null", b"7", b'"x"', b"{}", b"[" * 200_000, b'{"a":"\xff"}', b'{"output":"x.y"}'),
        *(b'{"output":[1]}', b'{"output":' + b"1" * 6000 + b"}"),
    ],
    ids=lambda body: f"{body[:12]!r} {len(body)}",
)
def test_what_is_no_request_of_a_page_is_refused_in_a_sentence(browser, capfd, body):
    answer = browser.post(CALLBACK, data=body, content_type="application/json")
    assert answer.status_code == 400
    assert answer.text.startswith("no page sends this: ")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None])
def test_so_is_one_of_another_type(browser, kind):
    assert browser.post(CALLBACK, data=json.dumps(of_frame(browser)), content_type=kind).status_code == 400


def test_so_is_one_for_other_inputs_or_outputs(browser):
    right, odd = of_frame(browser), [part("zz", "children")]
    for changed in (
        *({"inputs": given} for given in ("x", [], odd, [7], [{"id": 7, "property": "x"}], None)),
        *({"outputs": given} for given in (7, odd, [], [{}] * 4)),
        *({"state": odd}, {"changedPropIds": ["zz.children"]}, {"changedPropIds": 7}, {"changedPropIds": [[]]}),
    ):
        assert browser.post(CALLBACK, json={**right, **changed}).status_code == 400, changed
    assert browser.post(CALLBACK, json=right).status_code == 200


def test_no_type_of_any_input_of_any_callback_makes_an_error_of_ours(browser, capfd):
    for right, value in itertools.product(list(requests(browser)), VALUES):
        for group in ("inputs", "state"):
            given = [{**one, "value": value} for one in right[group]]
            answer = browser.post(CALLBACK, json={**right, group: given})
            assert answer.status_code in (200, 204, 400), (right["output"], value)
    assert capfd.readouterr().err == ""


def test_every_value_of_every_callback_has_its_kind(made):
    for name, known in made.callback_map.items():
        if "callback" in known:
            count = len(known["inputs"]) + len(known["state"])
            kinds = faults.kinds_of(known["callback"].__wrapped__, count)
            assert len(kinds) == count, name
            assert Any not in kinds, name


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        (int, [0, -3, 10**400], [1.0, True, "1", None]),
        (float, [1, -2.5], [True, float("nan"), float("inf"), 10**400, "1"]),
        (str, ["", "ü"], ["\ud800", 1, None]),
        (str | None, [None, "x"], [1, []]),
        (list[str], [[], ["a"]], [["a", 1], "a", {}]),
        (dict[str, str], [{}, {"a": "b"}], [{"a": 1}, []]),
        (Annotated[list[Any], (int, str)], [[1, "a"]], [[1], [1, "a", 2], ["a", 1], {}]),
    ],
)
def test_what_fits_an_annotation(kind, right, wrong):
    assert all(faults.fits(value, kind) for value in right)
    assert not any(faults.fits(value, kind) for value in wrong)


def test_a_body_that_no_page_sends_is_not_read(browser, monkeypatch):
    monkeypatch.setitem(browser.application.config, "MAX_CONTENT_LENGTH", 1000)
    assert browser.post(CALLBACK, json={"output": "x" * 2000}).status_code == 413
    assert faults.MOST_BYTES < 100e6


def test_a_defect_is_one_line_on_the_terminal_and_a_warning_on_the_page(browser, monkeypatch, capfd):
    right = of_frame(browser)

    def broken(*_):
        raise ZeroDivisionError("by\x1b[2J\nnothing")

    monkeypatch.setattr(shell, "taken", broken)
    for _ in range(2):
        answer = browser.post(CALLBACK, json=right)
        assert answer.status_code == 200
        assert faults.FAILED in answer.headers
        warning = answer.json["sideUpdate"][faults.PLACE]["children"]
        assert warning.startswith("A part of this page stays as it was: ZeroDivisionError: by")
    said = capfd.readouterr().err
    assert said.startswith("error: ZeroDivisionError: by [2J nothing (dashboards/pages/shell.py:")
    assert said.count("\n") == 1, "once, and no traceback"


def test_no_page_asks_only_to_take_a_warning_away(made):
    """The clock there does, by a header of the answer that warned."""
    assert not [key for key in made.callback_map if f"{faults.PLACE}.children" in key]
    assert faults.FAILED in (Path(shell.__file__).parents[1] / "assets" / "clock.js").read_text()


def test_what_no_terminal_takes_is_said_on_the_page_all_the_same(browser, monkeypatch):
    def closed(_):
        raise BrokenPipeError

    monkeypatch.setattr("sys.stderr", SimpleNamespace(write=closed))
    monkeypatch.setattr(shell, "taken", lambda *_: 1 / 0)
    answer = browser.post(CALLBACK, json=of_frame(browser))
    assert "division by zero" in answer.json["sideUpdate"][faults.PLACE]["children"]


def test_of_a_store_that_fails_the_sentence_alone_is_told(browser, monkeypatch, capfd):
    right = of_frame(browser)

    def away(*_):
        raise StoreError("the store is away")

    monkeypatch.setattr(shell, "taken", away)
    assert browser.post(CALLBACK, json=right).json["sideUpdate"][faults.PLACE]["children"].endswith("the store is away")
    assert capfd.readouterr().err == "error: the store is away\n"


def test_a_defect_is_told_once_whatever_it_says_and_after_any_number_of_others(monkeypatch, capfd):
    monkeypatch.setattr(faults, "_told", {True: set(), False: set()})

    def met(error):
        try:
            raise error
        except Exception as raised:
            return faults.tell(raised)

    for number in range(3 * faults.MOST_TOLD):
        assert f"run {number}" in met(KeyError(f"run {number}"))
        assert met(StoreError(f"{number} is away")) == f"{number} is away"
    met(ZeroDivisionError("a new one"))
    lines = capfd.readouterr().err.splitlines()
    assert len([line for line in lines if "KeyError" in line]) == 1
    assert len([line for line in lines if line.endswith("is away")]) == faults.MOST_TOLD
    assert len([line for line in lines if "others are told on the pages alone" in line]) == 1
    assert "ZeroDivisionError: a new one" in lines[-1]


def test_a_file_that_cannot_be_made_is_an_error_in_a_line(browser, monkeypatch, capfd):
    monkeypatch.setattr(exports_of(browser), "get", lambda _: 1 / 0)
    answer = browser.get("/export/x.csv")
    assert (answer.status_code, answer.mimetype) == (500, "text/plain")
    assert answer.text.startswith("ZeroDivisionError: division by zero (")
    assert capfd.readouterr().err.count("\n") == 1


def exports_of(browser):
    """The shelf that the route of exports asks."""
    view = browser.application.view_functions["export"]
    return next(cell.cell_contents for cell in view.__closure__ if hasattr(cell.cell_contents, "put"))


def test_of_a_file_that_breaks_off_the_reader_knows(served, monkeypatch, capfd):
    def broken(*_):
        yield b"a" * 10
        raise StoreError("the disk of the curves is away")

    with_curves(monkeypatch, broken)
    with pytest.raises(http.client.IncompleteRead):
        fetched(served).read()
    eventually(lambda: "the disk of the curves is away" in capfd.readouterr().err)


def test_who_leaves_amid_a_file_leaves_no_thread_and_no_line(served, monkeypatch, capfd):
    ended = threading.Event()

    def endless(*_):
        try:
            while True:
                yield b"a" * 65_536
        finally:
            ended.set()

    with_curves(monkeypatch, endless)
    before = threading.active_count()
    for _ in range(3):
        ended.clear()
        answer = fetched(served)
        answer.read(10)
        answer.close()
        assert ended.wait(60)
    eventually(lambda: threading.active_count() <= before)  # of what was there some may have ended
    assert capfd.readouterr().err == ""


def with_curves(monkeypatch, pieces):
    monkeypatch.setattr(curve_export, "by_a_process", pieces)
    monkeypatch.setattr(RunTable, "whole", lambda _: RunsView())


def eventually(holds):
    """Wait until something holds, for a minute at most."""
    ends = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.01)


def fetched(port, path="/runs/curves.csv"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", path)
    return connection.getresponse()


@pytest.mark.parametrize(
    "sent",
    [
        *(b"\x16\x03\x01\x02\x00\x01\xfc\n\n", b"GET http://[/ HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        *(b"GET / HTTP/9.9\r\n\r\n", b"GET /%s HTTP/1.1\r\n\r\n" % (b"a" * 70_000)),
        f"POST {CALLBACK} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode()
        + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=lambda sent: f"{sent[:12]!r}",
)
def test_what_is_no_http_is_refused_without_a_word_on_the_terminal(served, capfd, sent):
    with socket.create_connection(("127.0.0.1", served), timeout=20) as connection:
        connection.sendall(sent)
        said = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert b" 400 " in said or b" 414 " in said or b" 505 " in said or b"Error code: 400" in said
    assert capfd.readouterr().err == ""


def test_who_says_nothing_is_given_up_and_the_others_are_answered(served, monkeypatch):
    monkeypatch.setattr(server.Handler, "timeout", 0.3)
    before = threading.active_count()
    silent = [socket.create_connection(("127.0.0.1", served)) for _ in range(50)]
    silent[0].sendall(b"GET / HT")
    assert fetched(served, "/_dash-dependencies").status == 200
    eventually(lambda: threading.active_count() <= before)  # of what was there some may have ended
    for connection in silent:
        connection.close()


def test_no_folder_of_the_one_who_starts_it_is_handed_out(tmp_path, monkeypatch):
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "notes.txt").write_text("a secret")
    monkeypatch.chdir(tmp_path)
    browser = app.build(live.Live(StudySettings(runs="nowhere")), Door()).server.test_client()
    assert b"a secret" not in browser.get("/static/notes.txt").data


def test_a_defect_of_another_process_is_told_as_it_was_there(browser, capfd):
    try:
        raise KeyError("x")
    except KeyError as error:
        elsewhere = faults.DefectError(*faults.defect(error))
        assert faults.tell(elsewhere) == faults.tell(error)
    assert capfd.readouterr().err.count("\n") == 1, "it is one defect"
