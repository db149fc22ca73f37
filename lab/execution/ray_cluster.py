"""Ray: started here by itself, or joined where an address is given."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any

os.environ.update(  # before the import, which reads them
    RAY_USAGE_STATS_ENABLED="0",  # no telemetry
    RAY_AIR_NEW_OUTPUT="0",  # the sweep has a table of its own
    TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
    TUNE_PRINT_ALL_TRIAL_ERRORS="0",  # the record and the sweep's lines say what went wrong
    TUNE_DISABLE_SIGINT_HANDLER="1",  # the driver's asks trials to save their state first
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    # Nothing listens beyond loopback: without this Ray turns the address below into the host's,
    # and serves on all of them.
    RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",
)

import ray

from lab.config.experiment import Resources
from lab.errors import UserError
from lab.storage import temp_dirs
from lab.trials.assignment import NodeResources, count_slots, local_resources

# A socket's path is at most 107 bytes, and Ray puts 60 of its own behind this.
_SCRATCH = File("/tmp")  # noqa: S108 - the shortest path there is
_OBJECT_STORE = 150 * 2**20  # bytes; trials pass files, not objects
_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL"}


@dataclass(frozen=True, kw_only=True)
class RayCluster:
    """Ray, running.

    Attributes:
        slots: trials that it serves at once.
        scratch: folder of this machine that goes when Ray does; None where Ray was there before
            and may have many machines.
    """

    slots: int
    scratch: str | None


@contextmanager
def open_cluster(resources: Resources, address: str | None) -> Iterator[RayCluster]:
    """Join the cluster at `address`, or start Ray here, on loopback alone, and stop it after.

    Raises:
        UserError: no cluster answers there, or it cannot serve one trial.
    """
    with _here(resources) if address is None else _joined(resources, address) as cluster:
        yield cluster


def check_cluster(resources: Resources, address: str) -> None:
    """Refuse a cluster that cannot serve one trial, before anything is written.

    Raises:
        UserError: as `open_cluster`.
    """
    with _joined(resources, address):
        pass


@contextmanager
def _here(resources: Resources) -> Iterator[RayCluster]:
    count = count_slots(resources, [local_resources(gpus=resources.gpus_per_worker > 0)])
    os.environ["GLOO_SOCKET_IFNAME"] = "lo" if sys.platform == "linux" else "lo0"  # loopback
    with temp_dirs.temporary_folder(_SCRATCH, "lab-") as folder:
        try:
            ray.init(
                address="local",
                num_cpus=count * resources.workers * resources.cpus_per_worker,
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE,
                _node_ip_address="127.0.0.1",
                _temp_dir=str(folder),
                **_QUIET,
            )
            yield RayCluster(slots=count, scratch=str(folder))
        finally:
            ray.shutdown()


def any_node_alive() -> bool:
    """Return whether any machine of it answers."""
    return any(node["Alive"] for node in ray.nodes())


@contextmanager
def _joined(resources: Resources, address: str) -> Iterator[RayCluster]:
    try:
        ray.init(address=address, **_QUIET)
    except (ConnectionError, ValueError, RuntimeError) as error:
        said = str(error).strip().splitlines()
        raise UserError(
            f"--address {address}: no Ray cluster answers there ({said[0][:200] if said else ''}); "
            "write auto on a node of it, or the head's host:port"
        ) from None
    try:
        nodes = [
            NodeResources(node["Resources"].get("CPU", 0), node["Resources"].get("GPU", 0))
            for node in ray.nodes()
            if node["Alive"]
        ]
        count = count_slots(resources, nodes)
        if not count:
            raise UserError(
                f"resources: no room for {resources.workers} workers of "
                f"{resources.cpus_per_worker} CPUs and {resources.gpus_per_worker:g} GPUs on "
                f"{len(nodes)} nodes: {', '.join(f'{n.cpus:g} + {n.gpus:g}' for n in nodes)}"
            )
        yield RayCluster(slots=count, scratch=None)
    finally:
        ray.shutdown()
