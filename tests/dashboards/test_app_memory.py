"""An app that is left open holds what it shows, and gives back what it needed for a moment."""

import ctypes
import resource
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from analysis.settings import StudySettings
from dashboards import live, memory
from tests.test_house import CODE

GLIBC = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="not glibc")
PROCESS = """
import ctypes, threading
from dashboards import memory

memory.settle()
import pyarrow
print(pyarrow.default_memory_pool().backend_name, flush=True)
everyone = threading.Barrier(9)
for _ in range(8):
    threading.Thread(target=lambda: (bytes(100_000), everyone.wait())).start()
everyone.wait()
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
libc.malloc_info(0, ctypes.c_void_p(libc.fdopen(1, b"w")))
libc.fflush(None)
"""


def held():
    """MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def in_pieces():
    """MB that are held after some were freed, and what is in their way."""
    pieces = [100_000 * b"x" for _ in range(2000)]  # below what glibc maps by itself
    del pieces[:-1]
    return held(), pieces


@GLIBC
def test_threads_and_arrow_share_a_heap():
    told = subprocess.check_output([sys.executable, "-c", PROCESS], cwd=CODE, text=True)
    assert told.count("<heap ") == 1, "else nine"
    assert told.startswith("system")


@GLIBC
def test_memory_that_is_free_in_pieces_is_given_back():
    before, _last = in_pieces()
    memory.give_back()
    assert held() < before - 100


@GLIBC
def test_what_answers_took_for_a_moment_is_given_back_where_nothing_is_fitted(monkeypatch, tmp_path):
    following = live.Live(StudySettings(runs=str(tmp_path)))
    monkeypatch.setattr(live, "_token", lambda root: None)  # as it was
    before, _last = in_pieces()
    following.look()
    assert held() < before - 100


def test_a_study_that_nobody_shows_any_more_is_gone_though_it_be_a_cycle():
    class Part:
        whole = None

    part = Part()
    part.whole, left = part, weakref.ref(part)
    del part
    assert left() is not None
    memory.give_back()
    assert left() is None
