"""A fake cluster on which runs take the time that the truth says, by a clock that the driver's sleeps move."""

import os
from types import SimpleNamespace

from gpt3core import costs
from gpt3core.evals.spec import HELD_OUT
from gpt3core.spec import RunSpec
from gpt3core.store import files
from gpt3core.store.rundir import RunDir
from gpt3core.store.sweepdir import SweepDir
from sweeps.cluster.job import Progress, Update
from sweeps.driving import driver, spending, status, taking
from sweeps.scheduling.inventory import Node, Resources
from sweeps.scheduling.scheduler import Running
from tests.sweeps.fake_cluster import Silent

STOPPING = 1.0  # seconds of a checkpoint


class World:
    """One clock for everything that asks for the time: monotonic and wall, a second apart from nothing."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        for module in (driver, spending, status, taking, files):
            monkeypatch.setattr(module, "time", self)
        monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # minutes of a sweep pass in a second

    def monotonic(self):
        return self.now

    def time(self):
        return 1.8e9 + self.now

    def sleep(self, seconds):
        self.now += max(seconds, 0.5)

    def thread_time(self):
        return 0.0


class Timed:
    """Runs end after ``seconds(run)`` of training and ``rest`` of what comes beside it."""

    def __init__(self, world, root, seconds, *, slots=2, nodes=1, gpus=0, rest=2.0, loss=None):
        self.world, self.root, self.seconds, self.rest, self.loss = world, root, seconds, rest, loss
        cores = Resources(cpus=slots if not gpus else 16, gpus=gpus)
        self.nodes = [Node(name=f"n{i}", total=cores) for i in range(nodes)]
        self.live: dict[str, SimpleNamespace] = {}
        self.saved: dict[str, float] = {}  # share of each run that its checkpoint has
        self.started, self.stopped, self.most, self.held = [], [], 0.0, 0.0

    def inventory(self):
        return self.nodes

    def others(self):
        return []

    def claims(self):
        return {}

    def claim(self, text, *, alone):
        pass

    def running(self):
        return [live.running for live in self.live.values()]

    def start(self, run_id, allocation, shape, entry, job):
        self.started.append(run_id)
        running = Running(run_id=run_id, worker=shape, allocation=allocation)
        done = max(self.saved.get(run_id, 0.0), job.prefix.step / job.spec.steps if job.prefix else 0.0)
        RunDir(self.root, run_id).new_attempt()
        self.live[run_id] = SimpleNamespace(
            running=running, job=job, began=self.world.now, done=done, stop=None, at=allocation
        )
        in_use = sum(sum(r.at.values()) * (r.running.worker.gpus or r.running.worker.cpus) for r in self.live.values())
        self.most = max(self.most, in_use)

    def wait(self, seconds):
        self.world.sleep(seconds)

    def leaving(self):
        return {}

    def end(self, run_id):
        self.held += self.world.now - self.live.pop(run_id).began

    def stop(self, run_id=None):
        for name, live in self.live.items():
            if run_id in (None, name) and live.stop is None:
                self.stopped.append(name)
                live.stop = self.world.now

    def poll(self):
        return [self._update(name, live) for name, live in list(self.live.items())]

    def _update(self, run_id, live):
        spec: RunSpec = live.job.spec
        whole, now = self.seconds(spec), self.world.now
        share = min(1.0, live.done + (min(now, live.stop or now) - live.began) / whole)
        ended = now - live.began >= (1 - live.done) * whole + self.rest
        if ended or (live.stop is not None and now >= live.stop + STOPPING):
            self.held += now - live.began
            del self.live[run_id]
            self.saved[run_id] = share
            if not ended:
                return Update(run_id=run_id, state="stopped")
            self._finish(spec, live.job)
            return Update(run_id=run_id, state="done", result={})
        phase = "training" if share < 1 else "evaluating"
        speed = spec.tokens / whole if share > live.done else 0.0
        live_words = Progress(phase=phase, step=int(share * spec.steps), steps=spec.steps, tokens_per_second=speed)
        return Update(run_id=run_id, state="running", progress=live_words)

    def _finish(self, spec, job):
        folder, seconds = RunDir(self.root, spec.run_id), self.seconds(spec)
        loss = self.loss(spec) if self.loss else 4.0
        folder.write_evaluation(job.evals.eval_id, {"task": [HELD_OUT], "loss": [loss], "loss_se": [0.01]})
        flops = costs.train_flops(spec.model, spec.tokens) / seconds
        folder.finish(
            {
                "status": "done",
                "train_seconds": seconds,
                "flops_per_second": flops,
                "tokens_per_second": spec.tokens / seconds,
                "devices": 1,
                "attempts": len(folder.attempts()),
                "epochs": 0.1,
            }
        )
        os.utime(folder.path / "result.json", (self.world.time(), self.world.time()))


def driven(chosen, cells, root, cluster, display=None, watch=None):
    """A driver of a sweep to its end, and how that was; ``watch`` is called with the driver at every tick."""
    sweep = SweepDir(root, chosen.name)
    with sweep.owned():
        taken = taking.take(chosen, cells, sweep)
        display = display or Silent()
        found = driver.Driver(chosen, taken, cluster, display, entry="fake:fake")
        if watch is not None:
            show, display.show = display.show, lambda snapshot: (show(snapshot), watch(found))
        return found.drive(), found
