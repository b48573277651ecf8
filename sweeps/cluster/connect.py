"""The connection to a Ray cluster, or to a local Ray that ends with this process, and what its nodes have."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import time
from typing import Any

from gpt3core.errors import StoreError
from sweeps.cluster import access, scratch
from sweeps.scheduling.inventory import Inventory, Node, Resources

INVENTORY_SECONDS = 2.0
# what Ray on this machine alone does without: a worker a core before there is work, of which none would ever be used,
# for those of a sweep have an environment of their own
UNUSED = {"RAY_prestart_worker_first_driver": "0"}


class Connection:
    """Ray, connected: the module itself, and the nodes as plain data."""

    def __init__(self, namespace: str, address: str | None = None, cpus: int | None = None) -> None:
        """Connect.

        Args:
            namespace: of the detached workers; one sweep's drivers share it.
            address: of a running cluster; None takes RAY_ADDRESS (which ``ray job submit`` sets), or else starts a
                local Ray that ends with this process.
            cpus: cores of a local Ray; by default those of the machine.

        Raises:
            StoreError: when nothing answers at the address, or it may not be joined so (``access``).
        """
        address = address or os.environ.get("RAY_ADDRESS")
        self.local, self.namespace = address is None, namespace
        if address is not None and not _answers(address):
            raise StoreError(
                f"no Ray cluster answers at {address}: start one (ray start --head), or unset RAY_ADDRESS "
                "for a local Ray"
            )
        asked = access.MODE in os.environ
        _settle_environment(address)
        self._temporary = scratch.make() if self.local else None
        import ray

        self.ray: Any = ray
        options: dict[str, Any] = {"namespace": namespace, "log_to_driver": False, "logging_level": "ERROR"}
        if self.local:
            options |= {"num_cpus": cpus or len(os.sched_getaffinity(0)), "include_dashboard": False}
            options |= {"_node_ip_address": "127.0.0.1"}
            options |= {"_temp_dir": self._temporary, "object_store_memory": 100_000_000}
        try:
            ray.init(address or "local", **options)
        except (ConnectionError, ray.exceptions.AuthenticationError) as error:
            if not access.refused(error):
                raise
            raise StoreError(f"the Ray at {address} does not take this token, or wants one: {access.JOIN}") from error
        if address is not None:
            try:
                access.refuse_strangers(address, (n["NodeManagerAddress"] for n in ray.nodes() if n["Alive"]), asked)
            except StoreError:
                ray.shutdown()
                raise
        self._nodes: Inventory = []
        self._unused: dict[str, Resources] = {}
        self.looked = -INVENTORY_SECONDS  # when the nodes were looked at last, of the monotonic clock

    def inventory(self) -> Inventory:
        """The living nodes and all that they have, at most INVENTORY_SECONDS old."""
        if time.monotonic() - self.looked >= INVENTORY_SECONDS:
            # the one public view of what is free on each node: ray.available_resources() adds all nodes up, and
            # ray.nodes() and ray.util.state.list_nodes() tell totals only (ray issue 60134)
            from ray.autoscaler.v2 import sdk

            status = sdk.get_cluster_status(self.ray.get_runtime_context().gcs_address)
            alive = sorted((*status.active_nodes, *status.idle_nodes), key=lambda node: node.node_id)
            self._unused = {n.node_id: _resources(n.available_resources()) for n in alive}
            self._nodes = [
                Node(name=n.node_id, total=_resources(n.total_resources()), labels=n.labels or {}) for n in alive
            ]
            self.looked = time.monotonic()
        return self._nodes

    def head(self) -> str:
        """``host:port`` of the head's GCS."""
        return str(self.ray.get_runtime_context().gcs_address)

    def unused(self, node: Node) -> Resources:
        """What Ray has not given away of a node of the inventory, to anybody."""
        return self._unused.get(node.name, node.total)

    def close(self) -> None:
        """Leave the cluster, or end the local Ray and all that runs in it."""
        self.ray.shutdown()
        if self._temporary:
            shutil.rmtree(self._temporary, ignore_errors=True)


def _resources(amounts: dict[str, float]) -> Resources:
    return Resources(cpus=amounts.get("CPU", 0.0), gpus=amounts.get("GPU", 0.0))


def _settle_environment(address: str | None) -> None:
    """What Ray reads at its import: who may reach it, and GPUs left visible to workers that ask for none."""
    if address is None:
        access.alone()
        for name, value in UNUSED.items():
            os.environ.setdefault(name, value)
    elif warning := access.joined(address):
        print(f"warning: {warning}", file=sys.stderr)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


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
