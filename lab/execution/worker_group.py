"""Runs one trial with several workers: Ray Train starts one process per worker in a process group.

Ray Tune must not stop such a trial, because its workers would go on and keep their resources. The
worker of rank 0 reads the requests to stop instead (`StopSignal`), and passes them to the others.
"""

import os
import uuid
from dataclasses import dataclass
from typing import Any

import ray
from ray import train
from ray.train.backend import Backend
from ray.train.torch import TorchConfig, TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

from lab.execution.runner import WORKERS_ENDED
from lab.storage import record
from lab.trials.assignment import RESTARTS, Assignment, StopSignal


def run_in_worker_group(config: dict[str, Any]) -> None:
    """Run one trial from a Tune actor, which only starts the workers and waits for them.

    Args:
        config: `work`, the assignment; `stop_file`, the file that requests the sweep's end;
            `scratch`, a temporary folder of this machine, None on a cluster that was joined;
            `storage`, a folder or URI for the files of Ray.
    """
    work: Assignment = config["work"]
    resources = work.resources
    gpus = resources.gpus_per_worker
    backend, scratch = "nccl" if gpus else "gloo", config["scratch"]
    torch_config = (
        TorchConfig(backend) if scratch is None else _FileRendezvousConfig(backend, folder=scratch)
    )
    try:
        TorchTrainer(
            _run_worker,
            train_loop_config=config,
            torch_config=torch_config,
            scaling_config=train.ScalingConfig(
                num_workers=resources.workers,
                use_gpu=bool(gpus),
                resources_per_worker={"CPU": resources.cpus_per_worker}
                | ({"GPU": gpus} if gpus else {}),
            ),
            run_config=train.RunConfig(
                name=f"train-{work.folder.name}",
                storage_path=config["storage"],
                callbacks=[_TuneReports()],
                failure_config=train.FailureConfig(max_failures=RESTARTS),
            ),
        ).fit()
    except train.TrainingFailedError:
        if record.read_outcome(work.folder) is None:  # else rank 0 has recorded the reason
            raise


def _run_worker(config: dict[str, Any]) -> None:
    import torch

    from lab.training.distributed import ProcessGroup
    from lab.trials import process_log, run

    workers, device = ProcessGroup(), str(train.torch.get_device())
    assignment: Assignment = config["work"]
    work = assignment.localize(f"worker-{workers.rank}-{os.getpid()}")
    torch.set_num_threads(work.resources.cpus_per_worker)

    def report(row: dict[str, float]) -> None:
        train.report({"step": row["spent/steps"]})

    try:
        if workers.rank:
            run.follow_trial(work, device=device, workers=workers, report=report)
            return
        stop_signal = StopSignal(assignment, work, config["stop_file"])
        with process_log.log_to_record(work.folder):
            outcome = run.run_trial(
                work, device=device, workers=workers, report=report, requested_state=stop_signal
            )
        if outcome.state == "failed":  # ends the other workers, which wait for this one
            raise RuntimeError(outcome.reason)
    finally:
        work.mirror.delete_local(work.folder)


class _TuneReports(TuneReportCallback):
    """Reports the workers' evaluations, and the errors that end the workers, to Tune.

    Ray Train starts the workers again without telling Tune.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ends = 0

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Report the errors of the workers, after at least one of them has ended with an error."""
        self._ends += 1
        again = self._ends <= RESTARTS
        next_step = f"retry {self._ends} of {RESTARTS}" if again else "not started again"
        errors = "".join(f"\nrank {rank}: {e}" for rank, e in sorted(worker_exceptions.items()))
        report = {WORKERS_ENDED: f"its workers ended; {next_step}{errors}"}
        self.after_report(run_context, [report], None)


@dataclass
class _FileRendezvousConfig(TorchConfig):
    """Process group of the workers of one machine, set up through a file (`file://`).

    torch's default TCP store is not used, because it listens on all network interfaces.

    Attributes:
        folder: folder of the file.
    """

    folder: str = ""

    @property
    def backend_cls(self) -> type[Backend]:
        """Return the class that sets up the process group."""
        return _FileRendezvousBackend


class _FileRendezvousBackend(Backend):
    share_cuda_visible_devices = True  # as in Ray's own backend for torch: GPUs access each other

    def on_start(self, worker_group: Any, backend_config: _FileRendezvousConfig) -> None:
        """Set up the process group of all workers, with a new file each time."""
        file = f"{backend_config.folder}/workers-{uuid.uuid4().hex}"
        count = len(worker_group)
        ray.get(
            [
                worker_group.execute_single_async(
                    rank, _init_process_group, backend_config.backend, file, rank, count
                )
                for rank in range(count)
            ]
        )


def _init_process_group(backend: str, file: str, rank: int, count: int) -> None:
    from torch import distributed

    distributed.init_process_group(
        backend, init_method=f"file://{file}", rank=rank, world_size=count
    )
