"""A cluster that finishes runs without training them, a display and a clock, and a driver on them."""

from gpt3core.evals.spec import HELD_OUT
from gpt3core.store.rundir import RunDir
from gpt3core.store.sweepdir import SweepDir
from sweeps.cluster import worker
from sweeps.cluster.job import Assignment, Progress, Update
from sweeps.driving import driver, taking
from sweeps.planning import grid
from sweeps.scheduling.inventory import Node, Resources
from sweeps.scheduling.scheduler import Running


class FakeCluster:
    """Finishes every run at the next poll, as ``behaviour(run_id, how often it was started)`` says."""

    def __init__(self, root, behaviour=lambda run_id, n: "done", cpus=2.0):
        self.root, self.behaviour, self.cpus = root, behaviour, cpus
        self.started, self.stopped, self._running, self.polls = [], [], {}, 0
        self.ended = []

    def inventory(self):
        return [Node(name="n", total=Resources(cpus=self.cpus))]

    def running(self):
        return list(self._running.values())

    def others(self):
        return []

    def claims(self):
        return {}

    def claim(self, text, *, alone):
        pass

    def start(self, run_id, allocation, shape, entry, job):
        self.started.append(run_id)
        self.evals = job.evals
        self._running[run_id] = Running(run_id=run_id, worker=shape, allocation=allocation)

    def end(self, run_id):
        self.ended.append(run_id)
        self._running.pop(run_id, None)

    def leaving(self):
        return {}

    def stop(self, run_id=None):
        self.stopped += [i for i in self._running if run_id in (None, i)]

    def finish(self, run_id):
        run = RunDir(self.root, run_id)
        run.write_evaluation(self.evals.eval_id, {"task": [HELD_OUT], "loss": [4.0], "loss_se": [0.01]})
        run.finish({"status": "done"})

    def wait(self, seconds):
        driver.time.sleep(seconds)

    def poll(self):
        self.polls += 1
        updates = []
        for run_id in list(self._running):
            state = "stopped" if run_id in self.stopped else self.behaviour(run_id, self.started.count(run_id))
            step = 0
            if isinstance(state, tuple):
                state, step = state
            if state == "running":
                live = Progress(phase="training", step=step, steps=100)
                updates.append(Update(run_id=run_id, state=state, progress=live))
                continue
            del self._running[run_id]
            if state == "done":
                self.finish(run_id)
            fatal = state == "fatal"
            state = {"fatal": "failed", "vanished": "done"}.get(state, state)
            updates.append(Update(run_id=run_id, state=state, error="because", fatal=fatal, result={}))
        return updates


class Working(FakeCluster):
    """Runs the workers' own job bodies in this process."""

    def __init__(self, root, stop=lambda: False):
        super().__init__(root)
        self.jobs, self.stopping = {}, stop

    def start(self, run_id, allocation, shape, entry, job):
        super().start(run_id, allocation, shape, entry, job)
        self.jobs[run_id] = Assignment(entry=entry, run_id=run_id, job=job, node="n", shape=shape)

    def poll(self):
        told = []
        for run_id in list(self._running):
            del self._running[run_id]
            report = worker.perform(self.jobs[run_id], lambda live: None, self.stopping)
            told.append(
                Update(run_id=run_id, state=report.state, error=report.error, fatal=report.fatal, result=report.result)
            )
        return told


class Silent:
    def __init__(self):
        self.lines, self.snapshots = [], []

    def say(self, line):
        self.lines.append(line)

    def show(self, snapshot):
        self.snapshots.append(snapshot)

    def close(self):
        pass


class Clock:
    """Stands in for ``time``: sleeping is what moves the monotonic clock, the wall clock does as it likes."""

    def __init__(self):
        self.now, self.wall = 1000.0, 1e9

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += max(seconds, 0.25)

    def time(self):
        return self.wall


def ids(smoke):
    return [run.run_id for run in smoke[1].runs]


def some(smoke, count):
    """The sweep asked with its first few runs only."""
    chosen, cells, root = smoke
    return chosen, grid.Grid(runs=cells.runs[:count], left=[], evals=cells.evals), root


def drive(smoke, cluster, display=None):
    chosen, cells, root = smoke
    sweep = SweepDir(root, chosen.name)
    with sweep.owned():
        taken = taking.take(chosen, cells, sweep)
        return driver.Driver(chosen, taken, cluster, display or Silent(), entry="fake:fake").drive()
