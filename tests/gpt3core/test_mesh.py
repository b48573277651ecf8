"""What ranks tell one another, with real processes on gloo: data, failures, and that one of them is gone."""

import contextlib
import math
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from gpt3core import pulse
from gpt3core.errors import PeerError, StoppedError, StoreError
from gpt3core.parallel import interface, mesh
from gpt3core.parallel.layout import Layout
from tests.gpt3core import ranks

pytestmark = pytest.mark.xdist_group("ranks")  # one fork server serves them all


def _mesh(rank, size, address):
    with mesh.joined(rank, size, address, "cpu") as here:
        values = torch.tensor([float(rank), 1.0])
        here.mean_([values])
        failures = []
        for kind, failing in ((StoreError, 1), (StoppedError, 0), (KeyError, 1)):

            def work(kind=kind, failing=failing):
                if rank == failing:
                    raise kind("because")

            try:
                here.together(work)
            except Exception as error:
                failures.append((type(error).__name__, str(error)))
        return {
            "place": (here.rank, here.world_size, here.data_rank, here.data_size),
            "rows": here.rows(np.arange(6)).tolist(),
            "mean": values.tolist(),
            "agree": [here.agree(rank == 1), here.agree(False)],
            "broadcast": here.broadcast({"from": rank}),
            "gather": here.gather([rank, "é" * rank, math.inf]),
            "first": here.first(lambda: [rank]),
            "failures": failures,
        }


def test_what_ranks_tell_one_another():
    one, two = ranks.run(_mesh, 2)
    assert (one["place"], two["place"]) == ((0, 2, 0, 2), (1, 2, 1, 2))
    assert (one["rows"], two["rows"]) == ([0, 2, 4], [1, 3, 5])
    for found in (one, two):
        assert found["mean"] == [0.5, 1.0]
        assert found["agree"] == [True, False]
        assert found["broadcast"] == {"from": 0}
        assert found["gather"] == [[0, "", math.inf], [1, "é", math.inf]]
        assert found["first"] == [0]
    store, stopped, unknown = zip(one["failures"], two["failures"], strict=True)
    assert store == (("StoreError", "rank 1: because"), ("StoreError", "because"))
    assert stopped == (("StoppedError", "because"), ("StoppedError", "rank 0: because"))
    assert unknown == (("PeerError", "rank 1: 'because'"), ("KeyError", "'because'"))


def test_a_broken_collective_inside_a_stage_is_told_by_its_own_cause_on_one_line():
    stage = RuntimeError("\n    [Stage 0] failed to run forward:\n    args: ('Tensor(torch.Size([2, 32]))',)\n")
    gone = RuntimeError("[pair.cc:553] Connection closed by peer\n [127.0.0.1]:7556")
    with pytest.raises(PeerError) as caught, mesh.passing():
        raise stage from gone
    assert str(caught.value).endswith("stops too ([pair.cc:553] Connection closed by peer [127.0.0.1]:7556)")


def _fails(rank, size, address, error):
    """How often the groups are aborted where the block ends so, and whether any is left."""
    abort, aborted = mesh.abort_groups, []
    mesh.abort_groups = lambda: (aborted.append(None), abort())
    with contextlib.suppress(type(error)), mesh.joined(rank, size, address, "cpu") as here:
        here.agree(False)
        raise error
    return len(aborted), dist.is_initialized()


def test_a_rank_that_fails_does_not_wait_for_what_the_others_never_come_to():
    """Destroying NCCL's groups waits for all that a GPU was given, aborting them does not; gloo takes both."""
    assert ranks.run(_fails, 2, MemoryError("on the GPU")) == [(1, False)] * 2
    assert ranks.run(_fails, 2, StoppedError()) == [(0, False)] * 2


def test_groups_that_cannot_be_left_do_not_hide_why_a_rank_failed(monkeypatch):
    def refuse():
        raise RuntimeError("ncclCommAbort")

    monkeypatch.setattr(mesh, "abort_groups", refuse)
    monkeypatch.setattr(mesh.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(mesh.dist, "destroy_process_group", lambda: pytest.fail("it would wait"))
    with pytest.raises(MemoryError, match="on the GPU"), mesh._groups():
        raise MemoryError("on the GPU")


def _silent(rank, size, address, told):
    """Rank 1 stays away, its connections open, until rank 0 has told that it waits no longer."""
    with mesh.joined(rank, size, address, "cpu", seconds=2) as here:
        try:
            while rank == 1 and not told.exists():
                time.sleep(0.05)
            return here.agree(False)
        finally:
            told.touch()


def test_a_rank_that_does_not_come_is_not_waited_for_for_ever(isolated):
    kind, sentence = ranks.run(_silent, 2, isolated / "told")[0]
    assert kind == "PeerError"
    assert "stopped answering" in sentence


def _reached_at(rank, size, address, host):
    """Where this process is reached, and what of it is left after."""
    with mesh.joined(rank, size, f"{host}:{address.rpartition(':')[2]}", "cpu") as here:
        here.agree(True)
        sockets = {str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ours = [line for line in lines if f"socket:[{line[9]}]" in sockets and line[3] == LISTENS]
    places = {socket.inet_ntoa(int(line[1].partition(":")[0], 16).to_bytes(4, "little")) for line in ours}
    return sorted(places), os.environ.get(interface.SETTING)


LISTENS = "0A"


def _own_address():
    """An address of this host by which others reach it; none where it has no network."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing
        return probe.getsockname()[0]
    return None


@pytest.mark.skipif(_own_address() is None, reason="no network")
def test_ranks_are_reached_at_the_address_that_they_meet_by_whatever_the_hosts_name_stands_for():
    own = _own_address()
    for places, left in ranks.run(_reached_at, 2, own):
        assert own in places
        assert left is None


def test_a_users_own_interface_stays(monkeypatch):
    monkeypatch.setenv(interface.SETTING, "lo")
    with interface.towards("192.0.2.1"):
        assert os.environ[interface.SETTING] == "lo"
    assert os.environ[interface.SETTING] == "lo"
    monkeypatch.delenv(interface.SETTING)
    with interface.towards("no host"):
        assert interface.SETTING not in os.environ


NETWORK = "ip link set lo up; ip addr add 10.9.9.9/32 dev lo; ip addr add 10.9.9.8/32 dev lo label lo:7; "
NETWORK += "ip addr add fd99::9/64 dev lo; exec"
HOSTS = {"10.9.9.9": "lo", "10.9.9.8": "lo:7", "fd99::9": "lo", "[fd99::9]": "lo", "[::1]": "lo"}


def test_every_address_of_a_host_of_either_version_has_its_interface():
    """In a network of its own, where an interface has several addresses."""
    asked = f"from gpt3core.parallel import interface; print([interface._interface(h) for h in {list(HOSTS)}])"
    words = [sys.executable, "-c", asked]
    done = subprocess.run(
        ["unshare", "-rn", "sh", "-ec", f'{NETWORK} "$@"', "sh", *words], capture_output=True, text=True
    )
    if done.returncode and "gpt3core" not in done.stderr:
        pytest.skip(f"no network of one's own here: {done.stderr}")
    assert done.stdout.strip() == str(list(HOSTS.values())), done.stderr


@pytest.mark.skipif(not interface.IPV6.exists(), reason="no IPv6")
def test_ranks_meet_at_an_address_of_version_6():
    assert [left for _, left in ranks.run(_reached_at, 2, "[::1]")] == [None, None]


def _spread(rank, size, address, layout, count, costs, asks):
    """What came of pieces of work that replicas share, and which of them this rank did."""
    done = []
    with mesh.joined(rank, size, address, "cpu", layout=layout) as here:

        def work(number):
            with pulse.at_gate():  # of a replica's own ranks
                pass
            return done.append(number) or [number, math.nan if number == 2 else 1 / 3]

        found = here.spread(count, work, costs=costs, asks=asks)
        failed = ""
        try:
            here.spread(count, lambda number: 1 // (number - 1))
        except (ZeroDivisionError, PeerError) as error:
            failed = str(error)
    return found, done, failed, pulse.HERE.gates


@pytest.mark.parametrize(
    ("layout", "count", "costs", "asks", "numbers"),
    [
        (Layout(data=3), 5, None, None, [[0, 3], [1, 4], [2]]),
        (Layout(data=2, shard=2), 3, None, None, [[0, 2], [1]]),
        (Layout(data=2, tensor=2), 4, None, "a model", [[0, 2], [0, 2], [1, 3], [1, 3]]),
        (Layout(data=2, tensor=2), 4, None, None, [[0, 2], [], [1, 3], []]),
        (Layout(tensor=2), 2, None, "a model", [[0, 1], [0, 1]]),
        (Layout(data=3), 6, [1, 1, 1, 3, 2, 1], None, [[0, 1, 2], [3], [4, 5]]),
        (Layout(data=3), 2, [1, 9], None, [[0], [1], []]),
    ],
)
def test_replicas_share_work_out_and_all_have_all_results_in_order(layout, count, costs, asks, numbers):
    told = ranks.run(_spread, layout.world_size, layout, count, costs, asks)
    for found, _, failed, gates in told:
        assert [number for number, _ in found] == list(range(count))
        assert [value for _, value in found] == pytest.approx(
            [math.nan if n == 2 else 1 / 3 for n in range(count)], nan_ok=True
        )
        assert "division" in failed
        assert gates == told[0][3], "ranks have entered as many collectives, whoever did what"
    assert [done for _, done, *_ in told] == numbers
