"""What a worker runs in the cluster tests instead of training: it holds its place until told to go on."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from gpt3core import spec as specs
from gpt3core.store import files
from gpt3core.store.rundir import RunDir


def hold(job: dict[str, Any], report: Any, stop: Any) -> dict[str, Any]:
    """Note where and with whom it runs, wait for the file ``release``, and leave a result (rank 0)."""
    payload = job["payload"]
    root = Path(payload["root"])
    place = {
        "node": job["node"],
        "pid": os.getpid(),
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        "start": time.time(),
    }
    files.make_folder(root / "started")
    (root / "started" / f"{job['run_id']}-{job['rank']}").touch()
    report({"phase": "training", "step": 0, "steps": 1, "loss": None, "tokens_per_second": 0.0})
    deadline = time.monotonic() + 120
    while not (root / "release").exists() and not (root / f"release-{job['run_id']}").exists():
        if stop() or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    place["end"] = time.time()
    files.make_folder(root / "places")
    files.write_json(root / "places" / f"{job['run_id']}-{job['rank']}.json", {**place, "size": job["size"]})
    if job["rank"] == 0 and "spec" in payload:
        run = RunDir(root, specs.from_json(payload["spec"]).run_id)
        run.finish({"status": "done"})
    return {}


def crash(job: dict[str, Any], report: Any, stop: Any) -> dict[str, Any]:
    """Die the first time, as a worker does whose node is lost; succeed the second time."""
    marker = Path(job["payload"]["root"]) / f"crashed-{job['run_id']}"
    if not marker.exists():
        marker.touch()
        os._exit(1)
    return hold(job, report, stop)
