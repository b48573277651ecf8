"""Locks and leases: which is used on which file system, and who holds a lease after a silence."""

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from gpt3core.errors import LostError, UsageError
from gpt3core.store import claims, files, lease, soundness
from gpt3core.store.lease import FolderBoard, Lease
from gpt3core.store.sweepdir import SweepDir, SweepRecord

SILENCE = 0.3  # of who is gone
# lines as Linux writes them: proc(5); the options of nfs from nfs(5)
MOUNTS = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
28 27 0:40 / /shared rw,relatime shared:5 - nfs4 server:/export rw,vers=4.2,hard,local_lock=none
29 27 0:41 / /shared/fast rw,noatime - lustre mgs@tcp:/fast rw,flock,lazystatfs
30 27 0:42 / /shared/slow rw,noatime - lustre mgs@tcp:/slow rw,localflock
31 27 0:43 / /mnt/my\040share rw - cifs //server/share rw,nobrl
32 27 0:44 / /bucket rw,nosuid,nodev - fuse.gcsfuse gcsfuse rw,user_id=0
33 27 0:45 / /ceph rw - ceph 10.0.0.1:6789:/ rw,acl
34 27 0:46 / /over rw - nfs4 server:/other rw
35 27 0:47 / /over rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("path", "kind", "why"),
    [
        ("/home/me/runs", "lock", "ext4"),
        ("/shared/runs", "lease", "nfs4"),
        ("/shared/fast/runs", "lock", "lustre"),
        ("/shared/slow/runs", "lease", "lustre"),
        ("/shared/fastest", "lease", "nfs4"),
        ("/mnt/my share/runs", "lease", "cifs"),
        ("/bucket/runs", "lease", "gcsfuse"),
        ("/ceph/runs", "lock", "ceph"),
        ("/over/runs", "lock", "tmpfs"),
    ],
)
def test_the_file_system_decides_between_lock_and_lease(path, kind, why):
    found = soundness.choose(soundness.Path(path), mounts=MOUNTS)
    assert found.kind == kind
    assert why in found.why


def test_the_type_is_that_which_stat_names(tmp_path):
    """coreutils has its own table of magic numbers, from statfs(2)."""
    named = subprocess.run(["stat", "-f", "-c", "%T", tmp_path], capture_output=True, text=True, check=True).stdout
    kind, _ = soundness.file_system(tmp_path / "not" / "there" / "yet")
    assert {"ext2/ext3": "ext4", "overlayfs": "overlay"}.get(named.strip(), named.strip()) == kind


def test_an_unknown_file_system_gets_a_lease(tmp_path):
    assert soundness.choose(tmp_path, mounts="").kind == "lease"


@pytest.mark.parametrize("broken", ["refused", "given twice"])
def test_locks_that_do_not_work_are_found_out(tmp_path, monkeypatch, broken):
    def flock(*_):
        if broken == "refused":
            raise OSError(38, "Function not implemented")

    monkeypatch.setattr(soundness.fcntl, "flock", flock)
    found = soundness.choose(tmp_path, writes=True)
    assert found.kind == "lease"
    assert "Function not implemented" in found.why or "given twice" in found.why
    assert sorted(path.name for path in tmp_path.iterdir()) == [soundness.MARKER]


def test_who_uses_leases_in_a_store_leaves_word_for_the_others(tmp_path, monkeypatch):
    monkeypatch.setenv(soundness.SETTING, "lease")
    assert str(soundness.choose(tmp_path)) == "leases (by ISOFLOP_LOCKS)"
    assert not list(tmp_path.iterdir()), "a look writes nothing"
    soundness.choose(tmp_path, writes=True)
    monkeypatch.delenv(soundness.SETTING)
    assert soundness.choose(tmp_path).kind == "lease"
    monkeypatch.setenv(soundness.SETTING, "lock")
    with pytest.raises(UsageError, match=r"ISOFLOP_LOCKS=lock, but this store is used with leases.*unset"):
        soundness.choose(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"), [(soundness.SETTING, "flock"), (lease.SETTING, "soon"), (lease.SETTING, "0")]
)
def test_a_setting_that_is_none_is_a_sentence(tmp_path, monkeypatch, name, text):
    monkeypatch.setenv(soundness.SETTING, "lease")
    monkeypatch.setenv(name, text)
    with pytest.raises(UsageError, match=rf"{name}={text}: "), claims.claimed(tmp_path / "lock", tmp_path, "it"):
        pass


def test_a_lock_whose_file_was_deleted_is_lost(tmp_path):
    path = tmp_path / "lock"
    with claims.claimed(path, tmp_path, "the run") as first:
        first.check()
        path.unlink()
        with claims.claimed(path, tmp_path, "the run") as second:
            second.check()
            with pytest.raises(LostError, match="was deleted or replaced while the run was held"):
                first.check()


# ------------------------------------------------------------------------------------------------------------- leases


@pytest.fixture
def board(tmp_path, monkeypatch):
    """Who is there renews often, and may be silent for as long as a busy machine takes."""
    monkeypatch.setenv(lease.SETTING, "30")
    monkeypatch.setattr(lease, "RENEWALS", 1000)
    return FolderBoard(tmp_path / "it.lease")


def elsewhere(term):
    """The same term as another machine sees it, which cannot look whether the process is there."""
    return replace(term, host="elsewhere", process="", silence=SILENCE)


def test_a_holder_that_renews_is_not_taken_over_and_is_named(board):
    held = lease.acquire(board, "it")
    for _ in range(3):
        other = lease.acquire(board, "it")
        assert (other.pid, other.host) == (os.getpid(), os.uname().nodename)
    held.check()
    held.release()
    assert lease.acquire(board, "it").token == 2


def test_the_token_only_grows(board):
    tokens = []
    for _ in range(5):
        held = lease.acquire(board, "it")
        tokens.append(held.token)
        held.release()
    assert tokens == [1, 2, 3, 4, 5]


def test_a_dead_holder_elsewhere_is_given_its_silence_by_the_observers_clock(board):
    past = elsewhere(replace(lease.this_process(), since="1970-01-01 00:00:00 UTC"))
    assert board.create(1, past)
    said, began = [], time.monotonic()
    held = lease.acquire(board, "the run", say=said.append)
    assert time.monotonic() - began >= SILENCE, "however old its record is by any clock"
    assert held.token == 2
    held.release()


def test_a_dead_holder_of_this_machine_is_followed_at_once(board):
    code = (
        "from gpt3core.store import lease; import pathlib, os;"
        f"lease.acquire(lease.FolderBoard(pathlib.Path({str(board.folder)!r})), 'it'); os._exit(9)"
    )
    environment = {**os.environ, lease.SETTING: "3600"}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 9
    began = time.monotonic()
    held = lease.acquire(board, "it")
    assert (held.token, time.monotonic() - began < 60) == (2, True)
    held.release()


def test_of_many_that_take_over_at_once_one_does(board):
    assert board.create(1, elsewhere(lease.this_process()))
    found = []
    threads = [threading.Thread(target=lambda: found.append(lease.acquire(board, "it"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(one, Lease) for one in found) == 1
    next(one for one in found if isinstance(one, Lease)).release()


def test_a_holder_that_was_taken_over_learns_it_and_leaves_the_next_alone(board):
    held = lease.acquire(board, "the run")
    assert board.create(2, elsewhere(lease.this_process()))
    with pytest.raises(LostError, match="the run was taken over by another process \\(elsewhere pid"):
        held.check()
    held.release()
    assert not board.read(2).released
    assert not board.read(1).released


def test_without_links_a_term_is_created_exclusively(board, monkeypatch):
    def link(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", link)
    term = lease.this_process()
    assert [board.create(1, term), board.create(1, term), board.create(2, term)] == [True, False, True]
    assert board.newest() == 2
    assert not list(board.folder.glob(".*"))


def test_a_term_that_nobody_can_read_ends_like_a_silent_one(board, monkeypatch):
    monkeypatch.setattr(lease, "SILENCE_SECONDS", SILENCE)
    files.write_bytes(board.folder / "00000007.json", b"{torn")
    held = lease.acquire(board, "it")
    assert held.token == 8
    held.release()


def test_a_driver_that_lost_its_sweep_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv(soundness.SETTING, "lease")
    sweep = SweepDir(tmp_path, "mine")
    with sweep.owned():
        assert sweep.mechanism == "lease"
        sweep.write_record(SweepRecord(runs=("a",)))
        sweep.event("driver")
        before = {path: path.read_bytes() for path in sweep.path.glob("*.json*")}
        assert FolderBoard(sweep.path / "driver.lease").create(2, elsewhere(lease.this_process()))
        for write in (
            lambda: sweep.write_record(SweepRecord(runs=("b",))),
            lambda: sweep.write_status({"done": 1}),
            lambda: sweep.write_recipe("name: other"),
            lambda: sweep.event("done"),
        ):
            with pytest.raises(LostError, match="the sweep mine was taken over by another process"):
                write()
        assert {path: path.read_bytes() for path in sweep.path.glob("*.json*")} == before
