"""A real sweep in an object store: driven, killed with its Ray, ended on another machine, fitted on a third."""

import os
import shutil
import subprocess
import sys
import time

import fsspec
import pytest

from gpt3core.errors import StoreError
from gpt3core.run import run
from gpt3core.store import places
from gpt3core.store.objects import Objects
from gpt3core.store.rundir import RunDir, open_root
from sweeps import line
from tests.conftest import EVALS, write_corpus
from tests.reliability.fake_store import Behaviour, FakeStore, installed
from tests.reliability.kill_sweep import descendants, kill, lingering, outcome, same
from tests.reliability.test_kill_sweep import undisturbed

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
S3 = "s3://bucket/runs"
BAD = Behaviour(errors=0.05, duplicates=0.1, late=2.0, stale=2.0)


@pytest.fixture
def settings(isolated):
    """Two runs of a few seconds, with many checkpoints."""
    text = write_corpus(isolated / "text", documents=1500)
    return [
        *("recipe=smoke", "budgets=[5e9]", f"data.corpus={text}", "data.tokenizer=gpt2:300", "data.max_epochs=1000"),
        *("evals.tasks=[addition_2]", "evals.items=8", "evals.validation_tokens=4096"),
        "placement.checkpoint_seconds=0.2",
    ]


def command(environment, cache, module, *words):
    """A command of isoflop on a machine with this cache."""
    known = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment = {**known, **environment, "ISOFLOP_CACHE": str(cache), "ISOFLOP_LEASE_SECONDS": "5"}
    log = (cache.parent / f"{cache.name}.log").open("ab")
    return subprocess.Popen(
        [sys.executable, *module, *words],
        env=environment,
        cwd=line.CODE,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


def said(cache):
    return (cache.parent / f"{cache.name}.log").read_text()


def killed_and_ended(environment, settings, isolated):
    """Drive a sweep until a run has a checkpoint, kill all of it, and end it from another cache; what it said."""
    first, second = isolated / "first", isolated / "second"
    driver = command(environment, first, ["sweeps/sizes.py"], *settings)
    deadline = time.monotonic() + 300
    while not list(first.glob("stores/*/runs/*/checkpoints/step-*/manifest.json")):
        assert driver.poll() is None, said(first)
        assert time.monotonic() < deadline, said(first)
        time.sleep(0.02)
    rival = command(environment, isolated / "rival", ["sweeps/sizes.py"], *settings)
    assert rival.wait() == 2, said(isolated / "rival")
    assert f"has a driver already ({os.uname().nodename} pid {driver.pid} since" in said(isolated / "rival")
    tree = descendants(driver.pid)
    kill([driver.pid, *tree])
    driver.wait()
    shutil.rmtree(first)
    assert command(environment, second, ["sweeps/sizes.py"], *settings).wait() == 0, said(second)
    assert lingering(tree) == []
    return said(second)


def compared(environment, uri, isolated, monkeypatch):
    """The sweep as a third machine reads it, beside the same runs in a folder; fitted by a fourth."""
    for name, value in {**environment, "ISOFLOP_CACHE": str(isolated / "third")}.items():
        monkeypatch.setenv(name, value)
    try:
        root = open_root(places.local(uri), create=False)
        assert same(outcome(root), undisturbed(root, isolated / "whole"))
    finally:
        places._REMOTES.clear()
    fit = command(environment, isolated / "fourth", ["-m", "analysis.fit"], f"runs={uri}", "figures=false")
    assert fit.wait() == 0, said(isolated / "fourth")
    (document,) = (isolated / "fourth").glob("stores/*/sweeps/smoke/fit/fit.json")
    assert document.stat().st_size > 1000


@pytest.mark.long
def test_a_sweep_on_a_bad_object_store_ends_elsewhere_with_the_same_bits(isolated, settings, monkeypatch):
    fsspec.register_implementation("fake", FakeStore, clobber=True)
    uri = "fake://bucket/runs"
    environment = {**installed(isolated / "elsewhere", BAD), "ISOFLOP_ROOT": uri}
    words = killed_and_ended(environment, settings, isolated)
    assert f"store {uri}, one driver by a lease" in words
    assert "2 of 2 runs done" in words
    compared(environment, uri, isolated, monkeypatch)


@pytest.fixture
def s3(monkeypatch, free_port):
    """Moto's S3 server on loopback with a bucket: pip install 'moto[server]' s3fs. The environment that reaches it."""
    pytest.importorskip("moto")
    pytest.importorskip("s3fs")
    code = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{free_port}'])"
    server = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port}",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "ISOFLOP_ROOT": S3,
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    deadline = time.monotonic() + 60
    while True:
        try:
            fsspec.filesystem("s3", skip_instance_cache=True).mkdir("bucket")
            break
        except Exception:  # it is not up yet
            assert time.monotonic() < deadline
            time.sleep(0.2)
    yield environment
    places._REMOTES.clear()
    server.kill()
    server.wait()


@pytest.mark.long
def test_a_run_by_the_s3_protocol(isolated, tiny_run, s3, monkeypatch):
    objects = Objects(S3)
    assert objects.creates
    objects.put("a/b", b"123")
    assert (objects.get("a/b"), objects.get("a/c"), objects.list("a"), objects.list("c")) == (
        b"123",
        None,
        {"a/b": 3},
        {},
    )
    with pytest.raises(StoreError, match="there is no such bucket"):
        Objects("s3://none/runs").put("a", b"1")
    monkeypatch.setenv("ISOFLOP_CACHE", str(isolated / "first"))
    result = run(tiny_run, EVALS, open_root(places.local(S3), create=True), checkpoint_seconds=0.0)
    monkeypatch.setenv("ISOFLOP_CACHE", str(isolated / "second"))
    found = RunDir(open_root(places.local(S3), create=False), tiny_run.run_id)
    assert found.result() == result
    whole = run(tiny_run, EVALS, isolated / "whole", checkpoint_seconds=0.0)
    assert whole["status"] == result["status"] == "done"
    there = RunDir(isolated / "whole", tiny_run.run_id)
    assert found.curve().equals(there.curve())
    assert found.evaluation(EVALS.eval_id).equals(there.evaluation(EVALS.eval_id))


@pytest.mark.long
def test_a_sweep_by_the_s3_protocol(isolated, settings, s3, monkeypatch):
    assert "2 of 2 runs done" in killed_and_ended(s3, settings, isolated)
    compared(s3, S3, isolated, monkeypatch)
