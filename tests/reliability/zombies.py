"""Workers that are stopped for longer than their lease and go on afterwards: nothing that they write counts.

  python -m tests.reliability.zombies --trials 500

A trial is a process that writes a run (curve, checkpoints, an evaluation, the result) under a lease and is stopped by
SIGSTOP at a random moment, or at the worst one: after its last look at the lease, before the rename that commits.
Another process takes the run over and ends it. Then the first one goes on: it must learn that it lost the run, and
every file outside its own attempt must be what the second one left.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gpt3core.errors import LostError
from gpt3core.spec import RunSpec
from gpt3core.store import files, lease, soundness
from gpt3core.store.rundir import RunDir
from tests.benchmarks.target import target
from tests.conftest import make_run, write_corpus

SILENCE_SECONDS = 0.3
STEPS = 8
MOMENTS = ("random", "checkpoint", "evaluation", "result", "curve")
PATIENCE = 60.0


def stop_before(moment: str) -> None:
    """Have this process stop itself once, when all but the commit of a kind of file is done."""
    kinds = {"checkpoint": "/step-", "evaluation": "/evals/", "result": "/result.json", "curve": "/part-"}
    armed = [moment in kinds]

    def pausing(commit: Callable[..., None]) -> Callable[..., None]:
        def paused(begun: Any, final: Any, **words: Any) -> None:
            if armed[0] and kinds[moment] in str(final) and not Path(str(final)).name.startswith("."):
                armed[0] = False
                os.kill(os.getpid(), signal.SIGSTOP)
            commit(begun, final, **words)

        return paused

    for name in ("rename", "replace", "link"):
        setattr(os, name, pausing(getattr(os, name)))


def write_run(root: str, spec: RunSpec, moment: str, pipe: Any, step_seconds: float) -> None:
    """Write a run to its end as its worker would, without training it; says how that went."""
    os.environ[soundness.SETTING], os.environ[lease.SETTING] = "lease", str(SILENCE_SECONDS)
    stop_before(moment)
    run = RunDir(Path(root), spec.run_id)
    try:
        with run.claimed(spec):
            attempt = run.new_attempt()
            begin = max(run.checkpoint_steps(), default=0)
            pipe.send(attempt.name)
            for step in range(begin + 1, STEPS + 1):
                time.sleep(step_seconds)
                run.write_metrics(attempt, {"step": [step], "loss": [float(os.getpid())]})
                begun, content = run.begin_checkpoint(step, attempt.name), f"{os.getpid()} {step}".encode()
                files.write_bytes(begun / "model.safetensors", content)
                checksums = {"model.safetensors": hashlib.sha256(content).hexdigest()}
                run.commit_checkpoint(step, begun, {"by": os.getpid()}, checksums)
            if not run.evaluated("e"):
                run.write_evaluation("e", {"by": [os.getpid()]})
            run.finish({"by": os.getpid(), "status": "done"})
        pipe.send("done")
    except LostError:
        pipe.send("lost")
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")


def what_counts(run: RunDir, but: str) -> dict[str, str]:
    """The content of every file of a run outside an attempt's own folder and the lease."""
    found = {}
    for path in sorted(run.path.rglob("*")):
        place = path.relative_to(run.path)
        if path.is_file() and place.parts[0] not in (but, "lock.lease") and ".tmp" not in str(place):
            found[str(place)] = files.sha256_file(path)
    return found


def _begin(work: Callable[..., None], *words: Any) -> tuple[Any, Any]:
    context = multiprocessing.get_context("spawn")
    pipe, end = context.Pipe()
    process = context.Process(target=work, args=(*words[:3], end, *words[3:]), daemon=True)
    process.start()
    end.close()
    return process, pipe


def _hear(pipe: Any) -> Any:
    assert pipe.poll(PATIENCE), "a worker says nothing"
    return pipe.recv()


def _stopped(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"
    return False


def trial(
    root: Path,
    spec: RunSpec,
    moment: str,
    wait: float,
    work: Callable[..., None] = write_run,
    step_seconds: float = 0.02,
) -> str:
    """One stopped worker and its successor; "sound", or what was not.

    Args:
        wait: seconds until it is stopped, at a random moment.
        work: the body of both processes; a test puts real training here.
    """
    first, heard = _begin(work, str(root), spec, moment, step_seconds)
    run, attempt = RunDir(root, spec.run_id), _hear(heard)
    try:
        if moment == "random":
            time.sleep(wait)
            with contextlib.suppress(ProcessLookupError):
                os.kill(first.pid, signal.SIGSTOP)
        deadline = time.monotonic() + PATIENCE
        while not _stopped(first.pid):
            if heard.poll(0.01):
                return "sound" if _hear(heard) == "done" and moment == "random" else "it was not stopped"
            assert time.monotonic() < deadline, "it does not stop"
        second, others = _begin(work, str(root), spec, "none", 0.0)
        if (ended := _next_word(others)) != "done":
            return f"its successor: {ended}"
        second.join()
        before, curve = what_counts(run, attempt), run.curve().to_csv()
        os.kill(first.pid, signal.SIGCONT)
        word = _hear(heard)
        first.join(PATIENCE)
        if word not in ("lost", "done"):
            return f"it ended otherwise: {word}"
        if what_counts(run, attempt) != before or run.curve().to_csv() != curve:
            return "it wrote what counts"
        # stopped after all that counts was committed, it has nothing to lose
        return "sound" if word == "lost" or moment == "random" else f"it does not know: {word}"
    finally:
        first.kill()
        first.join()


def _next_word(pipe: Any) -> str:
    """How a worker ended, after the name of its attempt if it got that far."""
    word = _hear(pipe)
    return str(_hear(pipe) if word.startswith("attempt") else word)


def main() -> int:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng, outcomes = random.Random(given.seed), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="isoflop-zombies-") as folder:
        spec = make_run(write_corpus(Path(folder) / "text", documents=20))
        asked = [(MOMENTS[i % len(MOMENTS)], rng.uniform(0, 0.25)) for i in range(given.trials)]
        with ThreadPoolExecutor(4) as pool:  # a trial waits, most of its time
            words = pool.map(lambda i: trial(Path(folder) / f"t{i}", spec, *asked[i]), range(given.trials))
            for (moment, _), word in zip(asked, words, strict=True):
                outcomes[f"{moment}: {word}"] += 1
    for outcome, count in sorted(outcomes.items()):
        print(f"  {count:4d} stopped at {outcome}")
    bad = sum(count for outcome, count in outcomes.items() if not outcome.endswith(": sound"))
    target("zombies_stale_writes_or_unclear_ends", bad, "<=", 0)
    return 0 if bad == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
