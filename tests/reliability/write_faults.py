"""Every system call by which a run writes fails in turn, or kills its process; what is left is read, and gone on with.

  python -m tests.reliability.write_faults                     every call, each of three ways; about 10 minutes
  python -m tests.reliability.write_faults --every 10          every tenth call

A worker's own body trains a small run that writes checkpoints one after another, its loss curve, a result and an
evaluation. Its n-th call below the run's folder fails with EIO once, or with ENOSPC and so does all that follows, or is
the process's last (SIGKILL); n goes over all of them. After each: the process ended by itself, with a sentence; every
checkpoint that has a name is whole by its own checksums, no earlier one is gone that no later one replaces; a result
and an evaluation are whole or absent. Then the same run is started again without faults, and must end with the bits of
the undisturbed one.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt3core.store.rundir import RunDir, open_root
from tests.benchmarks.target import target
from tests.conftest import EVALS, make_run, write_corpus

STEPS = 20
PATIENCE = 120.0  # for one run
WAYS = {"ENOSPC": (errno.ENOSPC, 1), "EIO": (errno.EIO, 0), "KILL": (0, 0)}
SOURCE = Path(__file__).with_name("faults.c")
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # no disk is waited for: the faults are made


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a process ended: by its worker's report, or by a signal."""

    state: str
    error: str
    calls: int  # that wrote below the run's folder


def build(folder: Path) -> Path:
    """Compile the library that makes calls fail."""
    library = folder / "faults.so"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"], check=True)
    return library


def preloaded(library: Path, words: Sequence[str]) -> int:
    """This module again, in a process that has the library."""
    environment = {**os.environ, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.reliability.write_faults", "--preloaded", *words]
    return subprocess.run(command, env=environment, check=False).returncode


def forked(work: Callable[[], Any]) -> Any:
    """What a function returns in a process of its own, or None where that was killed."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        try:
            said = json.dumps(work()).encode()
        except BaseException:
            said = json.dumps({"state": "broken", "error": traceback.format_exc(), "calls": 0}).encode()
        os.write(writer, said)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return json.loads(said) if said else None


def train(root: Path, text: Path, *, nth: int = 0, way: str = "EIO") -> dict[str, Any]:
    """Train and evaluate by a worker's body, with the nth writing call failing; 0: none.

    Returns:
        The state and the error of the worker's report, and how many calls there were.
    """
    from gpt3core.train import interval
    from sweeps.cluster import worker
    from sweeps.cluster.job import Assignment, Job
    from sweeps.scheduling.inventory import Resources

    interval.seconds_between = lambda *_, **__: 0.0  # saves one after another, whatever they cost
    faults, spec = ctypes.CDLL(None), make_run(text, steps=STEPS)
    job = Job(spec=spec, evals=EVALS, root=root, device="cpu", checkpoint_seconds=0.0)
    entry = "sweeps.cluster.worker:train"
    assignment = Assignment(entry=entry, run_id=spec.run_id, job=job, node="here", shape=Resources(cpus=1))
    error, lasting = WAYS[way]
    faults.faults_arm(str(root / "runs").encode(), ctypes.c_long(nth), error, lasting)
    report = worker.perform(assignment, lambda live: None, lambda: False)
    calls = faults.faults_count()
    faults.faults_arm(b"", ctypes.c_long(0), 0, 0)
    return {"state": report.state, "error": report.error, "calls": calls}


def apart(root: Path, text: Path, **fault: Any) -> Ended:
    """The same in a process of its own."""
    began = time.monotonic()
    said = forked(lambda: train(root, text, **fault))
    assert time.monotonic() - began < PATIENCE, "a write that failed was waited for"
    return Ended(**said) if said else Ended(state="killed", error="", calls=0)


def left(root: Path, run_id: str) -> list[str]:
    """What is wrong with what a process left."""
    folder, wrong = RunDir(root, run_id), []
    for step in folder.checkpoint_steps():
        path = folder.checkpoint(step)
        for name, expected in json.loads((path / "manifest.json").read_text()).items():
            if hashlib.sha256((path / name).read_bytes()).hexdigest() != expected:
                wrong.append(f"{path / name} is not what its manifest says")
    try:
        result = folder.sound_result()
        folder.evaluation(EVALS.eval_id)  # whole, or not there
    except Exception as error:  # whatever reading says
        return [*wrong, f"{type(error).__name__}: {error}"]
    if result is not None and STEPS not in folder.checkpoint_steps():
        wrong.append("a result without its checkpoint")
    return wrong


def bits(root: Path, run_id: str) -> dict[str, str]:
    """All that must not depend on faults, by name: the last checkpoint, the curve, the evaluation, the result."""
    folder = RunDir(root, run_id)
    last = folder.checkpoint(STEPS)
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(last.glob("*.safetensors"))}
    found["curve"] = folder.curve().drop(columns="attempt").to_csv()
    table = folder.evaluation(EVALS.eval_id)
    assert table is not None
    found["evaluation"] = table.to_csv()
    found["status"] = str((folder.sound_result() or {})["status"])
    return found


def points(total: int, every: int) -> Iterator[int]:
    """The calls that fail, one a run."""
    yield from range(1, total + 1, every)


def torment(folder: Path, *, every: int, ways: Sequence[str]) -> tuple[Counter[str], list[str], int]:
    """Fail so many calls: how runs ended, what was wrong, and how many calls a run makes."""
    text = write_corpus(folder / "text")
    os.environ["ISOFLOP_CACHE"] = str(folder / "cache")
    run_id = make_run(text, steps=STEPS).run_id

    def fresh(name: str) -> Path:
        root = folder / name
        open_root(root, create=True)
        RunDir(root, run_id).create(make_run(text, steps=STEPS))
        return root

    assert train(fresh("warm"), text)["state"] == "done"  # what a process does once, before the forks
    whole = fresh("whole")
    undisturbed = apart(whole, text)
    assert undisturbed.state == "done", undisturbed.error
    expected, ended, wrong = bits(whole, run_id), Counter[str](), list[str]()
    for way in ways:
        for nth in points(undisturbed.calls, every):
            root, where = fresh("root"), f"{way} at call {nth}"
            first = apart(root, text, nth=nth, way=way)
            ended[f"{way} {first.state}"] += 1
            if first.state == "broken" or (first.state == "failed" and "\n" in first.error.strip()):
                wrong.append(f"{where}: {first.error}")
            wrong += [f"{where}: {sentence}" for sentence in left(root, run_id)]
            again = apart(root, text)
            if again.state != "done":
                wrong.append(f"{where}: started again, it {again.state}: {again.error}")
            elif (found := bits(root, run_id)) != expected:
                wrong.append(f"{where}: other bits in {', '.join(k for k in expected if found.get(k) != expected[k])}")
            elif damaged := RunDir(root, run_id).damage():
                wrong.append(f"{where}: called damaged: {damaged}")
            shutil.rmtree(root)
    return ended, wrong, undisturbed.calls


def main(words: Sequence[str]) -> int:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="every so many calls")
    parser.add_argument("--ways", nargs="+", choices=tuple(WAYS), default=list(WAYS))
    parser.add_argument("--preloaded", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="isoflop-faults-", dir=MEMORY) as folder:
        if not given.preloaded:
            return preloaded(build(Path(folder)), words)
        ended, wrong, calls = torment(Path(folder), every=given.every, ways=given.ways)
    for sentence in wrong:
        print(f"WRONG {sentence}")
    print(f"{calls} writing calls a run; how the disturbed ones ended: {dict(ended)}")
    met = [
        target("write_faults", sum(ended.values()) - ended["KILL killed"], ">=", 2 * calls),
        target("worker_kills", ended["KILL killed"], ">=", 200),
        target("write_faults_wrong", len(wrong), "==", 0),
    ]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
