"""Programs that a model wrote: what passes, and what is stopped."""

import fcntl
import json
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from gpt3core import pulse
from gpt3core.data import tokenizer
from gpt3core.evals import metrics, programs, prompts, runner, scoring, tasks
from gpt3core.evals.programs import Limits, passes
from gpt3core.evals.spec import EvalSpec
from gpt3core.numerics import Numerics

LIMITS = Limits(cpu_seconds=1, seconds=60, memory=1 << 28, file=1 << 16)
TEST = "\ndef check(f):\n    assert f(2, 3) == 5\n    assert f(-1, 1) == 0\n\ncheck(add)\n"


def test_the_tests_of_a_program_decide():
    assert passes("def add(a, b):\n    return a + b\n" + TEST, LIMITS)
    assert passes("def add(a, b):\n    print('é' * 10**6)\n    return sum((a, b))\n" + TEST, LIMITS)
    assert not passes("def add(a, b):\n    return a - b\n" + TEST, LIMITS)
    assert not passes("def add(a, b):\n    return (a" + TEST, LIMITS)
    assert not passes("def add(a: List[int], b):\n    return a + b\n" + TEST, LIMITS), "List is imported nowhere"


@pytest.mark.parametrize(
    "leaves",
    [
        "raise SystemExit(0)",
        "import os; os._exit(0)",
        "import sys; sys.exit()",
        "print('passed'); quit()",
        "import os; os.write(3, bytes(16)); os._exit(0)",
    ],
)
def test_a_program_that_leaves_before_its_tests_has_not_passed(leaves):
    assert not passes(f"{leaves}\n{TEST}", LIMITS)


def test_a_program_that_hangs_is_stopped():
    assert not passes("while True: pass", LIMITS)
    started = time.monotonic()
    assert not passes("import time; time.sleep(3600)", replace(LIMITS, seconds=1))
    assert time.monotonic() - started < 30


def test_a_program_that_takes_memory_is_stopped():
    assert not passes("x = bytearray(1 << 29)", LIMITS)
    assert passes("x = bytearray(1 << 20)", LIMITS)


@pytest.mark.parametrize(
    "starts",
    [
        "import os\nwhile True: os.fork()",
        "import subprocess; subprocess.run(['sleep', '3600'])",
        "import os; os.system('sleep 3600')",
        "import multiprocessing; multiprocessing.get_context('fork').Process(target=print).start()",
        "import os, signal; os.kill(os.getppid(), signal.SIGTERM)",
        "import socket; socket.create_connection(('127.0.0.1', 80))",
        "import ctypes; ctypes.CDLL(None).fork()",
    ],
)
def test_a_program_reaches_no_other(starts):
    assert not passes(f"{starts}\n", LIMITS)


def test_what_got_past_the_interpreter_is_killed_with_it(tmp_path, monkeypatch):
    """A child that the hook did not see, as a program that means harm may start one."""
    source = Path(programs.__file__).read_text()
    for guard in ("event.startswith(REFUSED)", "flags & WRITING", '("RLIMIT_NPROC", 0),'):
        assert guard in source
        source = source.replace(guard, "" if "(" == guard[0] else "False")
    unguarded, left = tmp_path / "unguarded.py", tmp_path / "left"
    unguarded.write_text(source)
    monkeypatch.setattr(programs, "__file__", str(unguarded))
    program = (
        f"import fcntl, os, time\nfile = open({str(left)!r}, 'w')\nfcntl.flock(file, 2)\nos.fork() or time.sleep(99)\n"
    )
    left.touch()
    assert not passes(program, replace(LIMITS, seconds=1))
    with left.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # which the last of them has let go


def test_files_stay_small_and_in_a_folder_that_goes(tmp_path):
    written = tmp_path / "written"
    assert not passes(f"open({str(written)!r}, 'w').write('x')", LIMITS)
    assert not passes(f"import os; os.open({str(written)!r}, os.O_CREAT)", LIMITS)
    assert not written.exists()
    assert not passes(f"import sqlite3; sqlite3.connect({str(written)!r}).execute('create table x (y)')", LIMITS)
    assert not written.exists()
    kept = tmp_path / "kept"
    kept.write_text("x")
    for changes in ("os.remove({})", "os.truncate({}, 0)", "os.rename({}, 'x')", "os.chmod({}, 0)"):
        assert not passes(f"import os; {changes.format(repr(str(kept)))}", LIMITS)
    assert kept.read_text() == "x"
    assert passes("open('own', 'w').write('x')\nassert open('own').read() == 'x'", LIMITS)
    assert not passes("for n in range(10**6): open(f'{n}', 'w').close()", LIMITS)
    assert not passes("file = open('own', 'wb')\nwhile True: file.write(bytes(1 << 14))", LIMITS)


def test_a_program_sees_no_environment_and_an_empty_folder(monkeypatch):
    monkeypatch.setenv("SECRET", "1")
    assert passes(
        "import os\nassert 'SECRET' not in os.environ and not os.listdir() and os.path.isdir(os.environ['HOME'])"
    )
    assert not passes("import gpt3core", LIMITS)


# ------------------------------------------------------------------------------------------------------------- pass@1


def items(folder, **changed):
    """A file of three functions to write."""
    path = folder / "humaneval.jsonl"
    records = [
        {
            "task_id": f"T/{n}",
            "prompt": f'def plus{n}(a):\n    """Add {n}."""\n',
            "canonical_solution": f"    return a + {n}\n",
            "test": f"def check(candidate):\n    assert candidate(1) == {n + 1}\n",
            "entry_point": f"plus{n}",
        }
        | changed
        for n in range(3)
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def cases(path):
    task, encoding = tasks.named("humaneval_pass"), tokenizer.load("gpt2:300")
    split = tasks.items("humaneval_pass", 3, paths=(path,))
    found = prompts.asked("humaneval_pass", task, split, 1, encoding.encode_ordinary, 2048)
    return task, [scoring.case(task, prompt, encoding) for prompt in found], encoding


def score(monkeypatch, task, asked, encoding, texts):
    reading = scoring.Reading(logprobs=(0.0,) * 999, likeliest=())
    monkeypatch.setattr(scoring.engine, "read", lambda *_, **__: [[reading]] * 3)
    monkeypatch.setattr(scoring.answers, "write", lambda *_, **how: texts if "\nclass" in how["stops"] else None)
    return scoring.score(None, task, asked, encoding, Numerics(precision="fp32", kernel="softmax"))


def test_pass_at_1_is_the_share_of_programs_that_pass_their_own_tests(tmp_path, monkeypatch):
    task, asked, encoding = cases(items(tmp_path))
    right = [one.rights[0] for one in asked]
    row = score(monkeypatch, task, asked, encoding, [right[0], "\n    return a - 1", right[2]])
    assert (row["metric"], row["accuracy"]) == ("passes", pytest.approx(2 / 3))
    assert row["accuracy_se"] == metrics.share([1.0, 0.0, 1.0])[1]


def test_who_runs_a_program_says_so_as_long_as_it_takes(tmp_path, monkeypatch):
    doing = []
    monkeypatch.setattr(programs, "passes", lambda _: doing.append(pulse.HERE.doing) or True)
    score(monkeypatch, *cases(items(tmp_path)), [""] * 3)
    assert doing == ["running a program that was written"] * 4


def test_a_reference_that_fails_is_said(tmp_path, monkeypatch):
    task, asked, encoding = cases(items(tmp_path, canonical_solution="    return None\n"))
    with pytest.raises(ValueError, match=r"the reference solution after .* fails its own test"):
        score(monkeypatch, task, asked, encoding, [""] * 3)


@pytest.mark.parametrize("ask", [runner.check, lambda *asked: runner.evaluate(None, *asked, numerics=None)])
def test_no_program_is_run_without_leave(ask, monkeypatch):
    monkeypatch.setattr(runner.held_out, "windows", lambda *_: None)
    monkeypatch.setattr(runner.held_out, "measure", lambda *_, **__: {})
    run = SimpleNamespace(model=SimpleNamespace(n_ctx=64), labelled=None)
    with pytest.raises(ValueError, match=r"in no sandbox .*: allow it with run_programs=true"):
        ask(run, EvalSpec(tasks=("humaneval_pass",)), None)


def test_leave_is_no_part_of_what_was_asked():
    asked = EvalSpec(tasks=("humaneval_pass",))
    allowed = EvalSpec(tasks=("humaneval_pass",), run_programs=True)
    assert asked.eval_id == allowed.eval_id
