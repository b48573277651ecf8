"""The command of data preparation, killed or interrupted at any time with its workers, goes on to the same bytes."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpt3core.data.prepare import task
from gpt3core.data.prepare.__main__ import main
from tests.gpt3core import corpora

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]
# parts of 30 kB, so that there are some dozen tasks; it does not end before it may
COMMAND = """
import os, signal, sys, time
from pathlib import Path
from gpt3core import cli
from gpt3core.data.prepare import __main__, folder, parts
here = Path(os.environ["MARK"])
def finish(*words, finish=folder.finish):
    (here / "end").touch()
    while not (here / "may end").exists():
        time.sleep(0.05)
    return finish(*words)
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background commands ignore it
    parts.PART_BYTES, folder.finish = 30_000, finish
    cli.run(__main__.main)
"""


def living(mark):
    """Processes in whose environment a mark is."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            found += [path.parent.name] if mark.encode() in path.read_bytes() else []
    return found


def left(work):
    """The files that stages have left; they may vanish meanwhile."""
    return sum(len(names) for _, _, names in os.walk(work))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_command_that_is_ended_goes_on(tmp_path, how):
    path = corpora.write(tmp_path / "text")
    main([f"recipe={path}", f"out={tmp_path / 'one'}"], spread=lambda _: task.one_by_one)
    (tmp_path / "command.py").write_text(COMMAND)
    words = [sys.executable, str(tmp_path / "command.py"), f"recipe={path}", f"out={tmp_path / 'out'}", "workers=2"]
    marked, end = {**os.environ, "MARK": str(tmp_path)}, tmp_path / "end"
    for ends in (True, True, False):
        end.unlink(missing_ok=True)
        command = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=marked)
        if ends:
            begun = left(tmp_path / "out" / ".work")
            while command.poll() is None and not end.exists() and left(tmp_path / "out" / ".work") < begun + 12:
                time.sleep(0.05)
            command.send_signal(how)  # to it alone, which is harder than to the group of a terminal
        else:
            (tmp_path / "may end").touch()
        _, said = command.communicate()
        deadline = time.monotonic() + 60
        while living(str(tmp_path)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not living(str(tmp_path)), "its workers ended with it"
        assert command.returncode == (0 if not ends else -how if how == signal.SIGKILL else 130), said
        # nobody is left to end a worker that is being born when its command is killed, and it finds its queue gone
        assert how == signal.SIGKILL or "Traceback" not in said, said
    assert corpora.shards(tmp_path / "out") == corpora.shards(tmp_path / "one")
    assert not (tmp_path / "out" / ".work").exists()


STUCK = """
import sys, threading
from types import SimpleNamespace
from gpt3core.data.prepare import task
task.STUCK_SECONDS = 0.2
task._shut(SimpleNamespace(shutdown=threading.Event().wait), eval(sys.argv[1]))
"""


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [("KeyboardInterrupt()", 130, "interrupted\n"), ("ValueError('no room')", 2, "error: no room\n")],
)
def test_a_pool_that_never_ends_is_left(error, code, sentence):
    done = subprocess.run([sys.executable, "-c", STUCK, error], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (code, sentence)


BORN = """
import os, signal, sys, time
from multiprocessing import popen_forkserver
from pathlib import Path
from gpt3core.data.prepare import task

def slow(out):
    time.sleep(60)

def interrupted(popen, process, launch=popen_forkserver.Popen._launch):
    launch(popen, process)  # it is there, and the command does not know it yet
    os.kill(os.getpid(), signal.SIGINT)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    popen_forkserver.Popen._launch = interrupted
    work = [task.Task(out=Path(sys.argv[1], name), work=slow, given={}) for name in "ab"]
    try:
        list(task.in_processes(2)(work))
    except KeyboardInterrupt:
        print("interrupted")
"""


def test_a_worker_that_is_being_born_when_the_command_is_interrupted_ends_without_a_word(tmp_path):
    (tmp_path / "born.py").write_text(BORN)
    marked = {**os.environ, "MARK": str(tmp_path)}
    words = [sys.executable, str(tmp_path / "born.py"), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, env=marked)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")
    assert not living(str(tmp_path))


LATE = """
import os, signal, sys, threading, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import set_forkserver_preload
from pathlib import Path
from gpt3core import cli
from gpt3core.data.prepare import task
mark = Path(os.environ["MARK"])

def quick(out):
    out.touch()

def late():
    try:
        (mark / "first").touch(exist_ok=False)
    except FileExistsError:
        while not (mark / "over").exists():
            time.sleep(0.05)

def shut(pool, *words, shutdown=ProcessPoolExecutor.shutdown, **more):
    if not (mark / "asked").exists():
        (mark / "asked").touch()
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    shutdown(pool, *words, **more)

def main(argv):
    work = [task.Task(out=mark / name, work=quick, given={}) for name in "ab"]
    return len(list(task.in_processes(2)(work)))

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ProcessPoolExecutor.shutdown = shut
    set_forkserver_preload([])  # each worker imports this file
    cli.run(main)
else:  # all workers but one are born when the command is over
    late()
"""


def test_a_worker_that_is_born_after_an_interrupt_at_a_stages_end_says_nothing(tmp_path):
    (tmp_path / "late.py").write_text(LATE)
    marked = {**os.environ, "MARK": str(tmp_path)}
    with (tmp_path / "said").open("w") as said:
        command = subprocess.run([sys.executable, str(tmp_path / "late.py")], stderr=said, timeout=100, env=marked)
    (tmp_path / "over").touch()
    while living(str(tmp_path)):
        time.sleep(0.05)
    assert (command.returncode, (tmp_path / "said").read_text()) == (130, "interrupted\n")
