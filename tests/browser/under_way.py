"""A simulated sweep in the midst of it: the log and the status that its driver would have written until now."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpt3core import costs
from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from gpt3core.store.sweepdir import SweepDir
from tests.analysis.synthetic import true_loss

NODES, GPUS = ("node-a", "node-b"), 2  # of each
MFU, PRICE, HOURS = 0.36, 3.0, 6.0  # of a run in the middle, USD an hour of a GPU, and how long the sweep takes
STARTS = 60.0  # seconds until a run trains
DONE = 0.5  # of that


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A run on a GPU. Seconds since the sweep began."""

    run_id: str
    node: str
    began: float
    ended: float
    guess: float  # seconds that it should take
    flops_per_second: float
    mfu: float
    loss: float


def put_under_way(root: Path, name: str = "laptop") -> None:
    """Make a sweep whose runs have all ended one of which some go on and others wait."""
    sweep = SweepDir(root, name)
    placed = _placed(root, sweep.record().runs)
    now = DONE * max(run.ended for run in placed)
    began = time.time() - now
    lines = [(0.0, {"event": "driver"}), (0.0, {"event": "cluster", "nodes": 2, "gpus": 4.0, "cores": 64.0})]
    for run in placed:
        lines += _events(run, now)
        _become(RunDir(root, run.run_id), run, now, began)
    told = [json.dumps({"time": began + at, **line}, sort_keys=True) for at, line in sorted(lines, key=lambda e: e[0])]
    files.write_bytes(sweep.path / "events.jsonl", "".join(f"{line}\n" for line in told).encode())
    sweep.write_status(_status(name, placed, now, began))


def _placed(root: Path, run_ids: tuple[str, ...]) -> list[Placed]:
    """The runs, in no order, each on the GPU that is free first."""
    rng, free = np.random.default_rng(20), dict.fromkeys([(node, i) for node in NODES for i in range(GPUS)], 0.0)
    specs = {run_id: RunDir(root, run_id).spec() for run_id in run_ids}
    flops = {run_id: costs.train_flops(spec.model, spec.tokens) for run_id, spec in specs.items()}
    second, found = HOURS * 3600 * len(free) / sum(flops.values()), []  # of a FLOP
    for run_id in rng.permutation(sorted(flops, key=flops.__getitem__)).tolist():  # whatever their ids are
        place, spec = min(free, key=free.__getitem__), specs[run_id]
        faster = 0.8 + 0.4 * len(found) / len(flops)  # the later it is
        began, seconds = free[place] + 20.0, max(4 * STARTS, STARTS + flops[run_id] * second / faster)
        free[place] = began + seconds
        found.append(
            Placed(
                **{"run_id": run_id, "node": place[0], "began": began, "ended": free[place]},
                guess=seconds * rng.lognormal(0, 0.12),
                flops_per_second=flops[run_id] / (seconds - STARTS),
                mfu=MFU * second * flops[run_id] / (seconds - STARTS),
                loss=true_loss(costs.params(spec.model).nonembedding, spec.tokens),
            )
        )
    return found


def _events(run: Placed, now: float) -> list[tuple[float, dict]]:
    """What the log says of a run until now."""
    if run.began > now:
        return []
    of, held = {"run_id": run.run_id}, {"gpus": 1.0, "cores": 8.0, "usd_per_hour": PRICE}
    found = [
        (
            run.began,
            {"event": "start", **of, "allocation": {run.node: 1}, "expected_seconds": run.guess},
        ),
        (run.began + 1e-3, {"event": "took", **of, **held}),
    ]
    if run.ended <= now:
        found += [(run.ended, {"event": "finished", **of, "status": "done", "loss": run.loss})]
        found += [(run.ended + 1e-3, {"event": "freed", **of, **held, "seconds": run.ended - run.began})]
    return found


def _become(folder: RunDir, run: Placed, now: float, began: float) -> None:
    """Done, with its speed; or without a result; or without anything that it has not begun to write."""
    result = folder.path / "result.json"
    if run.began <= now:
        _log(folder, run, now, began + run.began)
    if run.ended <= now:
        known = files.read_object(result)
        files.write_json(result, {**known, "mfu": run.mfu, "flops_per_second": run.flops_per_second, "devices": 1})
        return
    result.unlink()
    if run.began > now:
        for part in (*folder.attempts(), folder.path / "evals"):
            shutil.rmtree(part)


def _log(folder: RunDir, run: Placed, now: float, began: float) -> None:
    """What its worker says of how far it is: it starts for a minute, and is faster for a while."""
    spec, attempt = folder.spec(), folder.attempts()[-1]
    files.append_line(attempt / "events.jsonl", {"event": "start", "time": began + STARTS, "step": 0})
    trains, passed = run.ended - run.began - STARTS, min(now, run.ended) - run.began - STARTS
    if passed <= 0:
        return
    tenths = [*(tenth for tenth in range(1, 11) if trains * tenth / 10 < passed), 10 * passed / trains]
    for tenth in tenths:
        step, seconds = int(tenth * spec.steps / 10), trains * (tenth - 0.2 * (tenth == 5)) / 10
        line = {"phase": "training", "step": step, "tokens_per_second": spec.tokens_at(step) / seconds}
        files.append_line(attempt / "tail.jsonl", line)


def _status(name: str, placed: list[Placed], now: float, began: float) -> dict:
    going = [run for run in placed if run.began <= now < run.ended]
    waiting = [run for run in placed if run.began > now]
    left = sum(run.ended - max(now, run.began) for run in placed if run.ended > now) / 3600
    taken = sum(min(now, run.ended) - run.began for run in placed if run.began <= now) / 3600
    live = {
        run.run_id: {
            **{"phase": "training", "steps": 1000, "step": int(1000 * (now - run.began) / (run.ended - run.began))},
            **{"loss": run.loss + 0.2, "tokens_per_second": 4e5},
        }
        for run in going
    }
    beside = {
        run.run_id: {
            **{"since": began + run.began, "ends": began + run.ended, "devices": 1, "stopping": False, "resumed": None},
            **{"flops_per_second": run.flops_per_second, "mfu": run.mfu},
        }
        for run in going
    }
    group = {
        **{"reason": "all GPUs are held by runs before it", "count": len(waiting)},
        **{"runs": [run.run_id for run in waiting[:20]], "starts": [began + run.began for run in waiting[:20]]},
        **{"ends": [began + run.ended for run in waiting[:20]]},
    }
    counts = {"running": len(going), "waiting": len(waiting), "failed": 0, "held": 0, "pruned": 0}
    return {
        **{"sweep": name, "state": "driving", "time": began + now, "host": os.uname().nodename, "pid": os.getpid()},
        **{"nodes": 2, "asked": len(placed), "done": len(placed) - len(going) - len(waiting), "counts": counts},
        **{"running": live, "under_way": beside, "waiting": [group] if waiting else [], "damage": []},
        **{"eta_seconds": max(run.ended for run in placed) - now, "unit": "GPU", "limit": {"hours": 60.0}},
        **{"taken": {"hours": taken, "usd": PRICE * taken}, "to_come": {"hours": left, "usd": PRICE * left}},
        **{"estimates": {"runs": 9, "first": 1.3, "first_error": 0.3, "error": 0.12}},
    }
