"""The whole line: what it refuses before anything is started."""

import contextlib
import http.server
import subprocess
import threading
import time

import pytest

from gpt3core.errors import StoreError, UsageError
from sweeps import line


def test_what_cannot_run_is_refused_before_a_head_is_started(known_text, monkeypatch):
    def started():
        raise AssertionError("a head was started")

    monkeypatch.setattr(line, "head", started)
    for words in (["budgets=[-1]"], ["recipe=gpt3"], ["recipe=smoke", "data.max_epochs=0.001"]):
        with pytest.raises((UsageError, ValueError)):
            line.main(words)


def test_who_interrupts_it_is_told_how_it_goes_on(known_text, monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(line, "head", interrupted)
    with pytest.raises(KeyboardInterrupt):
        line.main(["recipe=smoke"])
    assert "the same command goes on" in capsys.readouterr().err


@contextlib.contextmanager
def answering(asked, name, after=0):
    """The address of a server that has an error for the first that ask, and notes who is asked."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(name)
            self.send_response(200 if asked.count(name) > after else 503)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture
def child():
    with subprocess.Popen(["sleep", "300"]) as process:
        yield process
        process.kill()


def test_a_job_is_handed_in_when_the_agent_that_starts_it_answers_too(child, tmp_path):
    asked = []
    with answering(asked, "dashboard", after=1) as dashboard, answering(asked, "agent", after=2) as agent:
        line._wait_for([dashboard, agent], "token", child, tmp_path / "log")
    assert asked == ["dashboard"] * 2 + ["agent"] * 3


@pytest.mark.parametrize("ended", [False, True])
def test_a_head_without_an_agent_is_an_error_with_its_last_words(child, tmp_path, monkeypatch, ended):
    monkeypatch.setattr(line, "START_SECONDS", 60 if ended else 0.5)
    (tmp_path / "log").write_text("starting\nno port left\n")
    if ended:
        child.kill()
    began = time.monotonic()
    with answering([], "dashboard") as dashboard, pytest.raises(StoreError, match=r"did not start \(no port left\)"):
        line._wait_for([dashboard, "http://127.0.0.1:9/"], "token", child, tmp_path / "log")
    assert time.monotonic() - began < 30


PRETTY = """\x1b[37mJob submission server address\x1b[39m: \x1b[1mhttp://127.0.0.1:35815\x1b[22m

\x1b[32m-------------------------------------------------------\x1b[39m
\x1b[32mJob 'raysubmit_FU1NWJCtuY1UJe8P' submitted successfully\x1b[39m
\x1b[36mNext steps\x1b[39m
  Query the logs of the job:
    \x1b[1mray job logs raysubmit_FU1NWJCtuY1UJe8P\x1b[22m

Tailing logs until the job exits (disable with --no-wait):
sweep smoke: 4 runs, store /s, one driver by a lock
done    d8-119589fe921f    N 1.76k
next: python -m analysis.fit runs=/s sweep=smoke

\x1b[32m------------------------------------------\x1b[39m
\x1b[32mJob 'raysubmit_FU1NWJCtuY1UJe8P' succeeded\x1b[39m
\x1b[32m------------------------------------------\x1b[39m
"""
RECORDS = """2026-11-29 09:51:15,529\tINFO cli.py:42 -- \x1b[37mJob submission server address\x1b[39m: \x1b[1mhttp://1:3\x1b[22m
2026-11-29 09:51:17,334\tSUCC cli.py:67 -- \x1b[32mJob 'raysubmit_JfSv2MseCLqRfn7y' submitted successfully\x1b[39m
2026-11-29 09:51:17,346\tINFO cli.py:351 -- Tailing logs until the job exits (disable with --no-wait):
2026-11-29 09:51:17,128\tINFO job_manager.py:581 -- Runtime env is setting up.
Running entrypoint for job raysubmit_JfSv2MseCLqRfn7y: sweeps/sizes.py recipe=smoke
sweep smoke: 4 runs, store /s, one driver by a lock
done    d8-119589fe921f    N 1.76k
next: python -m analysis.fit runs=/s sweep=smoke
2026-11-29 09:52:12,497\tINFO sdk.py:520 -- WebSocket closed for job raysubmit_JfSv2MseCLqRfn7y with close code 1000
2026-11-29 09:52:12,509\tSUCC cli.py:67 -- \x1b[32mJob 'raysubmit_JfSv2MseCLqRfn7y' succeeded\x1b[39m
"""
SAID = ["sweep smoke: 4 runs, store /s, one driver by a lock", "done    d8-119589fe921f    N 1.76k"]
SAID += ["next: python -m analysis.fit runs=/s sweep=smoke"]


@pytest.mark.parametrize("printed", [PRETTY, RECORDS])
def test_a_job_that_does_well_says_what_the_sweep_says(printed):
    assert "".join(line._told(printed.splitlines(keepends=True))).splitlines() == SAID


def test_a_job_that_fails_or_never_begins_hides_nothing():
    refused = ["\x1b[31mjob could not be submitted\x1b[39m\n", "because\n"]
    assert list(line._told(refused)) == refused
    failed = PRETTY.replace("succeeded", "failed")
    assert any("' failed" in said for said in line._told(failed.splitlines(keepends=True)))


def test_a_head_that_does_not_answer_and_a_job_at_work_are_heard_at_once():
    def lines():
        yield "Waiting for the head: it does not answer yet\n"
        raise AssertionError("the next line was asked for before the first was passed on")

    assert next(line._told(lines())).startswith("Waiting")


def test_rules_of_the_job_itself_are_passed_on():
    own = ["sweep smoke\n", "-----\n", "\n", "loss  4.2\n", "----\n"]
    printed = PRETTY.splitlines(keepends=True)
    at = printed.index("done    d8-119589fe921f    N 1.76k\n")
    said = "".join(line._told([*printed[:at], *own, *printed[at:]]))
    assert "".join(own) in said
    assert "raysubmit" not in said
