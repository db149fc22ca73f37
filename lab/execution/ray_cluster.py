"""Ray: starts a Ray instance on this machine, or joins the cluster at a given address."""

import atexit
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any

os.environ.update(  # before `import ray`, which reads these variables
    RAY_USAGE_STATS_ENABLED="0",  # no telemetry
    RAY_AIR_NEW_OUTPUT="0",  # the sweep displays its own table
    TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
    TUNE_PRINT_ALL_TRIAL_ERRORS="0",  # errors are in the record and in the sweep's output
    TUNE_DISABLE_SIGINT_HANDLER="1",  # the driver handles Ctrl-C: trials first save their state
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    # Keeps Ray on the loopback interface: without this variable, Ray replaces `_node_ip_address`
    # by the host's address and listens on all interfaces.
    RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",
)

import ray

from lab.config.experiment import Resources
from lab.errors import UserError
from lab.execution import interrupts, processes, ray_logs
from lab.storage import temp_dirs
from lab.trials.assignment import NodeResources, count_slots, local_resources

# A Unix socket's path has at most 107 bytes, and Ray appends about 60 to this folder.
_SCRATCH = File("/tmp")  # noqa: S108 - the shortest path available
_STARTS = 3  # attempts to start Ray
_DISCONNECT = 2.0  # seconds for Ray to disconnect, before its processes are killed
_SHUTDOWN = 3.0  # seconds for Ray to notice their end
_OBJECT_STORE = 150 * 2**20  # bytes; trials pass files, not objects
_LOG = logging.getLogger(__name__)
_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL"}


@dataclass(frozen=True, kw_only=True)
class RayCluster:
    """A running Ray instance or cluster.

    Attributes:
        slots: number of trials that it can run at the same time.
        scratch: temporary folder on this machine, deleted when Ray stops; None for a cluster that
            was joined, which may have several machines.
    """

    slots: int
    scratch: str | None


@contextmanager
def open_cluster(resources: Resources, address: str | None) -> Iterator[RayCluster]:
    """Join the Ray cluster at `address`, or start Ray on this machine and stop it on exit.

    Ray that is started here listens on the loopback interface only.

    Args:
        resources: resources of each trial.
        address: address of the cluster; None starts Ray on this machine.

    Raises:
        UserError: no cluster answers at `address`, or it has too few resources for one trial.
    """
    ray_logs.log_messages()
    with _start_ray(resources) if address is None else _join_cluster(resources, address) as cluster:
        _LOG.info("Ray %s: %d slots of %s", address or "on this machine", cluster.slots, resources)
        yield cluster


def check_cluster(resources: Resources, address: str) -> None:
    """Check that a cluster answers at `address` and has the resources for one trial.

    Raises:
        UserError: no cluster answers at `address`, or it has too few resources for one trial.
    """
    with _join_cluster(resources, address):
        pass


@contextmanager
def _start_ray(resources: Resources) -> Iterator[RayCluster]:
    count = count_slots(resources, [local_resources(gpus=resources.gpus_per_worker > 0)])
    os.environ["GLOO_SOCKET_IFNAME"] = "lo" if sys.platform == "linux" else "lo0"  # loopback
    processes.adopt_orphans()
    before = processes.find_descendants()
    with temp_dirs.temporary_folder(_SCRATCH, "lab-") as folder:
        try:
            with interrupts.shield():
                _init_ray(count * resources.workers * resources.cpus_per_worker, folder, before)
            yield RayCluster(slots=count, scratch=str(folder))
        finally:
            with interrupts.shield():
                _stop_ray(before)


def _init_ray(cpus: int, folder: File, others: list[processes.Process]) -> None:
    """Start Ray; try again if a busy machine was too slow for it.

    Args:
        cpus: number of CPUs that Ray may assign.
        folder: temporary folder of Ray.
        others: processes of this one that do not belong to Ray.
    """
    for remaining in reversed(range(_STARTS)):
        try:
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE,
                _node_ip_address="127.0.0.1",
                _temp_dir=str(folder),
                **_QUIET,
            )
        except Exception as error:
            # Ray raises a bare `Exception` if its node has not started within 30 seconds.
            if "timed out during startup" not in str(error) or not remaining:
                raise
            _LOG.warning("Ray has not started in time: it is started again")
            _stop_ray(others)
        else:
            return


def _stop_ray(others: list[processes.Process]) -> None:
    """Disconnect from Ray and end all of its processes.

    Args:
        others: processes of this one that do not belong to Ray.
    """
    started = [each for each in processes.find_descendants() if each not in others]
    # `shutdown` waits a second for each process, since they block SIGTERM, and a minute for a
    # control process that has been killed.
    thread = threading.Thread(target=ray.shutdown, daemon=True)
    thread.start()
    thread.join(_DISCONNECT)
    processes.kill(started)
    thread.join(_SHUTDOWN)
    if thread.is_alive():
        atexit.unregister(ray.shutdown)  # it would wait for the one that hangs
    processes.wait_for_end(started, _SHUTDOWN)


def control_address() -> str:
    """Return host:port of the control process (GCS) of the cluster."""
    return str(ray.get_runtime_context().gcs_address)


def any_node_alive() -> bool:
    """Return whether at least one node of the cluster is alive."""
    return any(node["Alive"] for node in ray.nodes())


@contextmanager
def _join_cluster(resources: Resources, address: str) -> Iterator[RayCluster]:
    try:
        with interrupts.shield():
            ray.init(address=address, **_QUIET)
    except (ConnectionError, ValueError, RuntimeError) as error:
        lines = str(error).strip().splitlines()
        reason = lines[0][:200] if lines else ""
        raise UserError(
            f"--address {address}: no Ray cluster answers there ({reason}); "
            "allowed: auto on a node of the cluster, or host:port of its head node"
        ) from None
    try:
        nodes = [
            NodeResources(node["Resources"].get("CPU", 0), node["Resources"].get("GPU", 0))
            for node in ray.nodes()
            if node["Alive"]
        ]
        count = count_slots(resources, nodes)
        if not count:
            sizes = ", ".join(f"{node.cpus:g} + {node.gpus:g}" for node in nodes)
            raise UserError(
                f"resources: no room for {resources.workers} workers of "
                f"{resources.cpus_per_worker} CPUs and {resources.gpus_per_worker:g} GPUs on "
                f"{len(nodes)} nodes (CPUs + GPUs): {sizes}"
            )
        yield RayCluster(slots=count, scratch=None)
    finally:
        with interrupts.shield():
            ray.shutdown()
