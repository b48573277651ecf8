"""The hands of the scheduler: workers and gangs on a Ray cluster. This file and worker.py are the only ones to import
ray.

A run of one worker goes to a warm worker of its shape on its node, or to a new one. A gang gets a placement group,
asked for only when the scheduler says that it fits, pinned to the scheduler's nodes, all or nothing. Everything is
detached and named in the sweep's namespace, so that a new driver adopts what a dead one left running.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt3core.errors import StoreError
from sweeps.cluster import scratch
from sweeps.scheduling.inventory import Allocation, Inventory, Node, Resources
from sweeps.scheduling.scheduler import Running

# one arena for all threads: every run has a new thread, and an arena each would keep memory; large pages: 3-8% faster
MALLOC = {"GLIBC_TUNABLES": "glibc.malloc.arena_max=1:glibc.malloc.hugetlb=1"}
CODE = Path(__file__).resolve().parent.parent.parent
GANG_SECONDS = 30.0  # a group that fits now is created in milliseconds; a second try can take one more second
INVENTORY_SECONDS = 2.0
POLL_SECONDS = 2.0
RELEASE_SECONDS = 0.3  # the cluster's view of free resources is that old


@dataclass(frozen=True, kw_only=True)
class Update:
    """What became of a run: state is running, done, stopped, busy, failed (fatal or not), or lost (its worker died)."""

    run_id: str
    state: str
    progress: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] | None = None
    error: str = ""
    traceback: str = ""
    fatal: bool = False


@dataclass(kw_only=True)
class _Member:
    actor: Any
    name: str
    node: str
    shape: Resources
    state: Mapping[str, Any] = field(default_factory=lambda: {"state": "running"})
    asked: Any = None  # the answer to a poll that is under way


@dataclass(kw_only=True)
class _Team:
    """The workers of a run, and the placement group of a gang."""

    run_id: str
    members: list[_Member]
    group: Any = None


class Launcher:
    """Starts runs on a Ray cluster and tells what became of them."""

    def __init__(self, namespace: str, address: str | None = None, cpus: int | None = None) -> None:
        """Connect.

        Args:
            namespace: of the detached workers; one sweep's drivers share it.
            address: of a running cluster; None takes RAY_ADDRESS (which ``ray job submit`` sets), or else starts a
            local
                Ray that ends with this process.
            cpus: cores of a local Ray; by default those of the machine.
        """
        address = address or os.environ.get("RAY_ADDRESS")
        self.local = address is None
        self._temporary: str | None = None
        if self.local:
            os.environ.setdefault("RAY_AUTH_MODE", "token")
            if os.environ["RAY_AUTH_MODE"] == "token" and not Path("~/.ray/auth_token").expanduser().exists():
                os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(16))
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        self._ray = ray
        options: dict[str, Any] = {"namespace": namespace, "log_to_driver": False, "logging_level": "ERROR"}
        if self.local:
            self._temporary = scratch.make()
            options |= {"num_cpus": cpus or len(os.sched_getaffinity(0)), "include_dashboard": False}
            options |= {"_temp_dir": self._temporary, "object_store_memory": 100_000_000}
        if address is not None and not _answers(address):
            raise StoreError(
                f"no Ray cluster answers at {address}: start one (ray start --head), or unset RAY_ADDRESS "
                "for a local Ray"
            )
        ray.init(address or "local", **options)
        self._namespace = namespace
        self._available: dict[str, Resources] = {}
        self._idle: list[_Member] = []
        self._teams: dict[str, _Team] = {}
        self._freed = 0.0
        self._nodes: Inventory = []
        self._looked = -INVENTORY_SECONDS
        self._adopt()

    # ---------------------------------------------------------------------------------------------- what there is

    def inventory(self) -> Inventory:
        """The living nodes and all that they have, at most INVENTORY_SECONDS old."""
        if time.monotonic() - self._looked < INVENTORY_SECONDS:
            return self._nodes
        nodes = []
        available = self._ray._private.state.available_resources_per_node()
        for node in self._ray.nodes():
            if node["Alive"]:
                have = node["Resources"]
                total = Resources(cpus=have.get("CPU", 0.0), gpus=have.get("GPU", 0.0))
                free = available.get(node["NodeID"], have)
                self._available[node["NodeID"]] = Resources(cpus=free.get("CPU", 0.0), gpus=free.get("GPU", 0.0))
                nodes.append(Node(name=node["NodeID"], total=total, labels=node.get("Labels", {})))
        self._nodes, self._looked = sorted(nodes, key=lambda n: n.name), time.monotonic()
        return self._nodes

    def running(self) -> list[Running]:
        """The runs that hold resources."""
        found = []
        for team in self._teams.values():
            allocation: dict[str, int] = {}
            for member in team.members:
                allocation[member.node] = allocation.get(member.node, 0) + 1
            found.append(Running(run_id=team.run_id, worker=team.members[0].shape, allocation=allocation))
        return found

    def others(self) -> list[Running]:
        """What somebody else holds: used on a node, and not by this sweep's workers."""
        ours: dict[str, Resources] = {}
        for member in [*self._idle, *(m for team in self._teams.values() for m in team.members)]:
            ours[member.node] = ours.get(member.node, Resources()).plus(member.shape)
        found = []
        for node in self.inventory():
            free = self._available.get(node.name, node.total)
            used = node.total.minus(free).minus(ours.get(node.name, Resources()))
            rest = Resources(cpus=max(0.0, used.cpus), gpus=max(0.0, used.gpus))
            if rest != Resources():
                found.append(Running(run_id=f"others on {node.name}", worker=rest, allocation={node.name: 1}))
        return found

    def poll(self) -> list[Update]:
        """The state of every running run; finished ones are released. A worker that does not answer yet is starting."""
        members = [*self._idle, *(m for team in self._teams.values() for m in team.members)]
        for member in members:
            member.asked = member.asked or member.actor.poll.remote()
        asked = [member.asked for member in members]
        self._ray.wait(asked, num_returns=len(asked), timeout=POLL_SECONDS) if asked else None
        for member in members:
            self._hear(member)
        self._idle = [member for member in self._idle if member.state["state"] != "lost"]
        updates = []
        for team in list(self._teams.values()):
            update = _combine(team.run_id, [member.state for member in team.members])
            updates.append(update)
            if update.state != "running":
                self._release(team, update)
        return updates

    def _hear(self, member: _Member) -> None:
        """Take a worker's answer, if it has come."""
        ready, _ = self._ray.wait([member.asked], timeout=0)
        if not ready:
            return
        try:
            member.state = self._ray.get(member.asked)
        except self._ray.exceptions.RayError as error:
            member.state = {"state": "lost", "error": f"its worker died ({type(error).__name__})"}
        member.asked = None

    # -------------------------------------------------------------------------------------------------- what to do

    def start(self, run_id: str, allocation: Allocation, shape: Resources, entry: str, payload: dict[str, Any]) -> None:
        """Start a run where the scheduler said: on one warm or new worker, or on a gang.

        Raises:
            RuntimeError: when the gang's placement group is not there in time; nothing is left behind.
        """
        size = sum(allocation.values())
        team = _Team(run_id=run_id, members=[])
        try:
            if size == 1:
                (node,) = allocation
                team.members = [self._single(node, shape)]
            else:
                self._gang(team, allocation, shape)
            leader = team.members[0].actor
            address = self._ray.get(leader.address.remote(), timeout=GANG_SECONDS) if size > 1 else ""
        except (self._ray.exceptions.RayError, ValueError, TimeoutError) as error:
            self._dissolve(team)
            raise RuntimeError(f"{run_id} could not start where it was planned ({error})") from error
        self._teams[run_id] = team
        for rank, member in enumerate(team.members):
            job = {"entry": entry, "run_id": run_id, "rank": rank, "size": size, "address": address, "payload": payload}
            member.state, member.asked = {"state": "running"}, None
            member.actor.start.remote({**job, "node": member.node, "shape": [shape.cpus, shape.gpus]})

    def stop(self) -> None:
        """Ask every running run to write a checkpoint and end; ``poll`` then says "stopped"."""
        for team in self._teams.values():
            for member in team.members:
                member.actor.stop.remote()

    def close(self) -> None:
        """End all workers of this sweep, and the local Ray if there is one."""
        for team in list(self._teams.values()):
            self._dissolve(team)
        for member in self._idle:
            self._ray.kill(member.actor)
        self._idle.clear()
        self._ray.shutdown()
        if self._temporary:
            shutil.rmtree(self._temporary, ignore_errors=True)

    # ------------------------------------------------------------------------------------------------ one worker

    def _single(self, node: str, shape: Resources) -> _Member:
        for member in self._idle:
            if member.node == node and member.shape == shape:
                self._idle.remove(member)
                return member
        self._make_room(node)
        strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
        return self._member(node, shape, strategy)

    def _make_room(self, *nodes: str) -> None:
        """End idle workers of other shapes on these nodes: the scheduler counts them as free."""
        for member in [m for m in self._idle if m.node in nodes]:
            self._idle.remove(member)
            self._ray.kill(member.actor)
            self._freed = time.monotonic()
        time.sleep(max(0.0, self._freed + RELEASE_SECONDS - time.monotonic()) if self._freed else 0.0)

    def _member(self, node: str, shape: Resources, strategy: Any) -> _Member:
        from sweeps.cluster.worker import Worker

        name = f"worker-{uuid.uuid4().hex[:12]}"
        variables = {"OMP_NUM_THREADS": str(max(1, int(shape.cpus))), "PYTHONPATH": _python_path(), **MALLOC}
        actor = (
            self._ray.remote(Worker)
            .options(
                name=name,
                lifetime="detached",
                max_restarts=0,
                num_cpus=shape.cpus,
                num_gpus=shape.gpus,
                scheduling_strategy=strategy,
                runtime_env={"env_vars": variables},
            )
            .remote()
        )
        return _Member(actor=actor, name=name, node=node, shape=shape)

    # --------------------------------------------------------------------------------------------------- a gang

    def _gang(self, team: _Team, allocation: Allocation, shape: Resources) -> None:
        util = self._ray.util
        self._make_room(*allocation)
        nodes = list(allocation)
        team.group = util.placement_group(
            [_bundle(shape.times(allocation[node])) for node in nodes],
            strategy="STRICT_SPREAD" if len(nodes) > 1 else "STRICT_PACK",
            name=self._group_name(team.run_id),
            lifetime="detached",
            bundle_label_selector=[{"ray.io/node-id": node} for node in nodes],
        )
        if not team.group.wait(GANG_SECONDS):
            raise TimeoutError(f"no placement group within {GANG_SECONDS:g} s")
        for index, node in enumerate(nodes):
            strategy = util.scheduling_strategies.PlacementGroupSchedulingStrategy(
                team.group, placement_group_bundle_index=index
            )
            team.members += [self._member(node, shape, strategy) for _ in range(allocation[node])]

    def _group_name(self, run_id: str) -> str:
        return f"gang-{self._namespace}-{run_id}"

    def _release(self, team: _Team, update: Update) -> None:
        """A sound single worker stays warm; gangs and workers after an error end."""
        if team.group is None and update.state in ("done", "stopped", "busy"):
            team.members[0].actor.clear.remote()
            self._idle.append(team.members[0])
            del self._teams[team.run_id]
        else:
            self._dissolve(team)

    def _dissolve(self, team: _Team) -> None:
        for member in team.members:
            self._ray.kill(member.actor)
        if team.group is not None:
            self._ray.util.remove_placement_group(team.group)
        self._teams.pop(team.run_id, None)
        self._freed = time.monotonic()

    # ---------------------------------------------------------------------------------------------------- adoption

    def _adopt(self) -> None:
        """Take over the workers that an earlier driver of this sweep left; end what cannot be put together again."""
        teams: dict[str, list[tuple[int, int, _Member]]] = {}
        for name in self._ray.util.list_named_actors():
            if not name.startswith("worker-"):
                continue
            try:
                actor = self._ray.get_actor(name)
            except ValueError:  # it ended meanwhile
                continue
            try:
                state = self._ray.get(actor.poll.remote(), timeout=10)
            except (self._ray.exceptions.RayError, TimeoutError):
                self._ray.kill(actor)
                continue
            job = state.get("job")
            if job is None:
                self._ray.kill(actor)
                continue
            shape = Resources(cpus=job["shape"][0], gpus=job["shape"][1])
            member = _Member(actor=actor, name=name, node=job["node"], shape=shape)
            teams.setdefault(job["run_id"], []).append((job["rank"], job["size"], member))
        groups = self._groups()
        for run_id, found in teams.items():
            found.sort(key=lambda item: item[0])
            group = groups.pop(self._group_name(run_id), None)
            team = _Team(run_id=run_id, members=[member for _, _, member in found], group=group)
            if len(found) == found[0][1]:
                self._teams[run_id] = team
            else:
                self._dissolve(team)
        for group in groups.values():  # of gangs that ended, or never began, while no driver was there
            self._ray.util.remove_placement_group(group)

    def _groups(self) -> dict[str, Any]:
        """This sweep's placement groups by name."""
        found = {}
        for entry in self._ray.util.placement_group_table().values():
            name = entry["name"]
            if name.startswith(self._group_name("")) and entry["state"] != "REMOVED":
                with contextlib.suppress(ValueError):
                    found[name] = self._ray.util.get_placement_group(name)
        return found


def _answers(address: str) -> bool:
    """Whether something listens at ``host:port``; Ray itself would wait for minutes. Other forms are left to Ray."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or "/" in host:
        return True
    try:
        with socket.create_connection((host, int(port)), timeout=5):
            return True
    except OSError:
        return False


def _bundle(resources: Resources) -> dict[str, float]:
    bundle = {"CPU": resources.cpus, "GPU": resources.gpus}
    return {name: amount for name, amount in bundle.items() if amount > 0}


def _python_path() -> str:
    """Workers import the code that the driver runs, wherever it came from."""
    inherited = os.environ.get("PYTHONPATH", "")
    return f"{CODE}:{inherited}" if inherited else str(CODE)


def _combine(run_id: str, states: list[Mapping[str, Any]]) -> Update:
    """What a gang's workers say together: rank 0 has the progress and the result; a run that is done, or another's,
    has not failed because its other ranks missed rank 0.
    """
    lead, kinds = states[0], {state["state"] for state in states}
    finished = kinds == {"done"} or (lead["state"] == "done" and lead.get("result") is not None)
    if "running" in kinds and (finished or kinds <= {"running", "done"}):
        return Update(run_id=run_id, state="running", progress=lead.get("progress", {}))
    if finished:
        return Update(run_id=run_id, state="done", result=lead.get("result"))
    worst = next(kind for kind in ("busy", "lost", "failed", "stopped") if kind in kinds)
    state = next(state for state in states if state["state"] == worst)
    said = {name: state.get(name, "") for name in ("error", "traceback")}
    return Update(run_id=run_id, state=worst, fatal=bool(state.get("fatal")), **said)
