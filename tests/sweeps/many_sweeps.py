"""Several sweeps on one cluster, second by second: each with a driver's own view of it, late where Ray's is."""

from dataclasses import dataclass, field, replace

from sweeps.driving.sharing import Among
from sweeps.scheduling.fairness import Claim
from sweeps.scheduling.inventory import Node, Resources
from sweeps.scheduling.scheduler import Job, Preempt, Rules, Running, Start, decide

CORE = Resources(cpus=1)
PLAIN = Rules()
LATE = 3  # seconds until a driver sees what others have taken or given back
SEEN = 2  # and until it knows that another is dead


def nodes(n, cores=1, **more):
    return [Node(name=f"n{i:03}", total=Resources(cpus=cores, **more)) for i in range(n)]


def runs(name, n, seconds, *, workers=1, worker=CORE, **more):
    return [Job(run_id=f"{name}-{i:04}", worker=worker, workers=workers, seconds=seconds, **more) for i in range(n)]


def claim(key, wants, held=0, *, cores=1, **more):
    holding = (Running(run_id=key, worker=CORE, allocation={"n000": held}),) if held else ()
    waiting = ((Job(run_id=f"{key}-0", worker=Resources(cpus=cores), seconds=10.0), wants),) if wants else ()
    return Claim(key=key, name=key, held=holding, wants=waiting, **more)


@dataclass
class Sweep:
    """One sweep, its driver and its hands."""

    name: str
    jobs: list
    comes: float = 0.0
    dies: float = 1e9
    stops: float = 1e9  # its driver's process, which nobody ends
    waiting: list = field(default_factory=list)
    live: dict = field(default_factory=dict)  # run -> what it is, and when it really began (None: not yet)
    took: dict = field(default_factory=dict)  # run -> (start, end)
    devices: list = field(default_factory=list)  # held in truth, second by second
    said: list = field(default_factory=list)
    holds: list = field(default_factory=list)

    def running(self):
        return [one for one, _ in self.live.values()]


class World:
    """The cluster, and the word that drivers leave there."""

    def __init__(self, inventory, sweeps, *, share=True, rules=PLAIN):
        self.inventory, self.sweeps, self.now, self.share, self.rules = inventory, sweeps, 0.0, share, rules
        self.texts, self.past = {}, []
        self.amongs = {s.name: Among(_Hands(self, s), s.name, s.name, s.said.append) for s in sweeps}

    def run(self, seconds, until=lambda: False):
        for _ in range(int(seconds)):
            self.second()
            if until():
                return self
        return self

    def second(self):
        for sweep in self.sweeps:
            self._end(sweep)
        for sweep in self.sweeps:
            self._begin(sweep)
        for sweep in self.sweeps:
            if sweep.comes <= self.now < min(sweep.dies, sweep.stops):
                self._drive(sweep)
        for sweep in self.sweeps:
            self._begin(sweep)
        self.past.append({s.name: self._used(s) for s in self.sweeps})
        for sweep in self.sweeps:
            sweep.devices.append(sum(self.past[-1][sweep.name].values()))
        self.now += 1

    def _end(self, sweep):
        for run_id, (_, began) in list(sweep.live.items()):
            if began is not None and self.now >= began + self._length(sweep, run_id):
                del sweep.live[run_id]
                sweep.took[run_id] = began, self.now

    def _length(self, sweep, run_id):
        return next(job.seconds for job in sweep.jobs if job.run_id == run_id)

    def _begin(self, sweep):
        """What was started begins once there really is room, as Ray has it."""
        for run_id, (one, began) in sweep.live.items():
            if began is None and all(self._free(node) >= n * one.worker.cpus for node, n in one.allocation.items()):
                sweep.live[run_id] = one, self.now

    def _free(self, node):
        total = next(n.total.cpus for n in self.inventory if n.name == node)
        return total - sum(self._used(s).get(node, 0.0) for s in self.sweeps)

    def _used(self, sweep):
        found = {}
        for one, began in sweep.live.values():
            for node, n in one.allocation.items() if began is not None else ():
                found[node] = found.get(node, 0.0) + n * one.worker.cpus
        return found

    def _drive(self, sweep):
        if not sweep.took and not sweep.live and not sweep.waiting:
            sweep.waiting = [replace(job, queued=self.now) for job in sweep.jobs]
        others = self._others(sweep)
        if self.share:
            among = self.amongs[sweep.name]
            among.look(self.now, sweep.running())
            held = [*sweep.running(), *among.strangers(others), *among.held]
            decisions = among.decide(self.now, self.inventory, sweep.waiting, held, rules=self.rules)
        else:
            held = [*sweep.running(), *others]
            decisions = decide(self.now, self.inventory, sweep.waiting, held, rules=self.rules)
        known = {job.run_id: job for job in sweep.waiting}
        sweep.holds = [d for d in decisions if not isinstance(d, Start)]
        if self.share:
            among.tell(self.now, decisions, sweep.waiting)
        for d in decisions:
            assert not isinstance(d, Preempt)
            if isinstance(d, Start):
                job = known[d.run_id]
                one = Running(run_id=d.run_id, worker=job.worker, allocation=d.allocation, ends=self.now + job.seconds)
                sweep.live[d.run_id] = one, None
                sweep.waiting.remove(job)

    def _others(self, sweep):
        """What others hold, as it was a little ago."""
        then, found = self.past[-LATE] if len(self.past) >= LATE else {}, {}
        for name, used in then.items():
            for node, cpus in used.items() if name != sweep.name else ():
                found[node] = found.get(node, 0.0) + cpus
        return [
            Running(run_id=f"others on {node}", worker=Resources(cpus=cpus), allocation={node: 1})
            for node, cpus in found.items()
        ]


@dataclass
class _Hands:
    world: World
    sweep: Sweep

    def claims(self):
        living = [s.name for s in self.world.sweeps if s is not self.sweep and self.world.now < s.dies + SEEN]
        return {name: text for name, text in self.world.texts.items() if name in living}

    def claim(self, text, *, alone):
        self.world.texts[self.sweep.name] = text


def mean(sweep, first, last):
    """Cores held, on average over these seconds."""
    part = sweep.devices[int(first) : int(last)]
    return sum(part) / len(part)
