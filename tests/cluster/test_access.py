"""Who may reach a Ray that isoflop starts or joins: a token, or loopback alone; never what Ray makes of silence."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dashboards import app
from gpt3core.errors import StoreError, UsageError
from sweeps.cluster import access
from tests.cluster.test_head import LOOPBACK
from tests.test_house import CODE, modules

ELSEWHERE = "192.0.2.7:6379"  # of a network that is for documentation: never this machine's


@pytest.fixture(autouse=True)
def no_token_file(tmp_path, monkeypatch):
    monkeypatch.setattr(access, "FILE", str(tmp_path / "auth_token"))
    return tmp_path / "auth_token"


def test_a_local_ray_has_a_token_unless_told_otherwise(no_token_file):
    silent: dict[str, str] = {}
    access.alone(silent)
    assert silent[access.MODE] == "token"
    assert len(silent[access.TOKEN]) == 32
    assert silent[access.MANY_MACHINES] == "0"
    no_token_file.write_text("of the user")
    own: dict[str, str] = {}
    access.alone(own)
    assert access.TOKEN not in own, "the user's own token is used"
    off = {access.MODE: "disabled"}
    access.alone(off)
    assert off == {access.MODE: "disabled", access.MANY_MACHINES: "0"}


def test_a_local_ray_never_listens_to_others_without_a_token():
    with pytest.raises(StoreError, match="listen to other machines without a token"):
        access.alone({access.MODE: "disabled", access.MANY_MACHINES: "1"})
    access.alone({access.MODE: "token", access.MANY_MACHINES: "1"})


@pytest.mark.parametrize("settle", [access.alone, lambda env: access.joined("127.0.0.1:6379", env)])
def test_an_unknown_mode_is_refused(settle):
    with pytest.raises(StoreError, match="RAY_AUTH_MODE=on: token or disabled"):
        settle({access.MODE: "on"})


def test_a_cluster_elsewhere_is_joined_with_a_token_or_not_in_silence(no_token_file):
    with pytest.raises(StoreError, match=r"no token: .* RAY_AUTH_MODE=token on every node and here, ray get"):
        access.joined(ELSEWHERE, {})
    with pytest.raises(StoreError, match="there is no token to join"):
        access.joined(ELSEWHERE, {access.MODE: "token"})
    told = {access.MODE: "disabled"}
    assert "whoever reaches its ports can run code" in access.joined(ELSEWHERE, told)
    for given in ({access.TOKEN: "x"}, {access.TOKEN: "x", access.MODE: "TOKEN"}):
        assert access.joined(f"ray://{ELSEWHERE}", given) == ""
        assert given[access.MODE] == "token"
    no_token_file.write_text("x")
    found: dict[str, str] = {}
    assert access.joined(ELSEWHERE, found) == ""
    assert found == {access.MODE: "token"}


@pytest.mark.parametrize("address", ["127.0.0.1:6379", "localhost:6379", "[::1]:6379", "auto"])
def test_loopback_needs_no_token(address):
    environment: dict[str, str] = {}
    assert access.joined(address, environment) == ""
    assert environment == {access.MODE: "disabled"}


def test_a_cluster_of_other_machines_too_is_refused_where_nobody_said_that_it_has_no_token(monkeypatch):
    monkeypatch.setenv(access.MODE, "disabled")  # as ``joined`` leaves it
    nodes = ["127.0.0.1", "192.0.2.7", "192.0.2.8"]
    with pytest.raises(StoreError, match=r"other machines \(192.0.2.7, 192.0.2.8\) and no token"):
        access.refuse_strangers("127.0.0.1:6379", nodes, asked=False)
    access.refuse_strangers("127.0.0.1:6379", nodes[:1], asked=False)
    access.refuse_strangers("127.0.0.1:6379", nodes, asked=True)


def test_the_pages_are_for_this_machine_alone():
    with pytest.raises(UsageError, match=r"host=0.0.0.0: the pages are served on 127.0.0.1 alone.* ssh -L"):
        app.main(["host=0.0.0.0"])


def test_ray_is_started_and_joined_where_the_mode_is_settled():
    """Whoever adds another place settles RAY_AUTH_MODE there, and adds it here."""
    starts, joins = set(), set()
    for name, path in modules(CODE).items():
        tree = ast.parse(path.read_text())
        words = {
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        if {"start", "--head"} <= words:
            starts.add(name)
            assert "RAY_AUTH_MODE" in words
        joins |= {
            name for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node) == "ray.init"
        }
    assert (starts, joins) == ({"sweeps.line"}, {"sweeps.cluster.connect"})


LOCAL = """
import json, os, sys
from pathlib import Path
from sweeps.cluster.connect import Connection
from tests.cluster.test_head import listening
from tests.reliability.kill_sweep import descendants
connection = Connection("loopback", cpus=1)
heard = {address for pid in [os.getpid(), *descendants(os.getpid())] for address, _ in listening(pid)}
print(json.dumps(sorted(heard)), flush=True)
connection.close()
"""


@pytest.mark.soak
@pytest.mark.cluster
def test_a_local_ray_without_a_token_listens_on_loopback_alone(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(CODE), "HOME": str(tmp_path), "RAY_AUTH_MODE": "disabled"}
    environment.pop(access.MANY_MACHINES)
    done = subprocess.run([sys.executable, "-c", LOCAL], env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    heard = json.loads(done.stdout.splitlines()[-1])
    assert heard
    assert set(heard) <= LOOPBACK


@pytest.mark.soak
@pytest.mark.cluster
def test_a_wrong_token_is_one_sentence(head, tmp_path):
    words = [sys.executable, str(Path(CODE, "sweeps", "sizes.py")), "recipe=smoke"]
    wrong = {**head, "RAY_AUTH_TOKEN": "f" * 32, "RAY_NUM_REDIS_GET_RETRIES": "1"}
    done = subprocess.run(words, env=wrong, capture_output=True, text=True, timeout=200)
    assert done.returncode == 2
    assert "does not take this token, or wants one: set RAY_AUTH_MODE=token and copy" in done.stderr
    assert "Traceback" not in done.stderr
