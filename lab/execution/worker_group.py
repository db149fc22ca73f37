"""One trial by many workers: Ray Train sets up torch's process group, one process a worker.

Ray Tune never stops such a trial: its workers would be left behind with what they hold. Whoever
wants it stopped asks the first worker, which tells the others.
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

from lab.storage import record
from lab.trials.assignment import RESTARTS, Assignment, StopSignal


def run_in_worker_group(config: dict[str, Any]) -> None:
    """Run one trial from a Tune actor, which only drives its workers."""
    work: Assignment = config["work"]
    resources = work.resources
    gpus = resources.gpus_per_worker
    backend, scratch = "nccl" if gpus else "gloo", config["scratch"]
    meets = TorchConfig(backend) if scratch is None else _OnOneMachine(backend, folder=scratch)
    try:
        TorchTrainer(
            _worker,
            train_loop_config=config,
            torch_config=meets,
            scaling_config=train.ScalingConfig(
                num_workers=resources.workers,
                use_gpu=bool(gpus),
                resources_per_worker={"CPU": resources.cpus_per_worker}
                | ({"GPU": gpus} if gpus else {}),
            ),
            run_config=train.RunConfig(
                name=f"train-{work.folder.name}",
                storage_path=config["storage"],
                callbacks=[TuneReportCallback()],
                failure_config=train.FailureConfig(max_failures=RESTARTS),
            ),
        ).fit()
    except train.TrainingFailedError:
        if record.read_outcome(work.folder) is None:  # else the first worker could say why
            raise


def _worker(config: dict[str, Any]) -> None:
    import torch

    from lab.training.distributed import ProcessGroup
    from lab.trials import run

    workers, device = ProcessGroup(), str(train.torch.get_device())
    asked: Assignment = config["work"]
    work = asked.brought(f"worker-{workers.rank}-{os.getpid()}")
    torch.set_num_threads(work.resources.cpus_per_worker)

    def report(row: dict[str, float]) -> None:
        train.report({"step": row["spent/steps"]})

    try:
        if workers.rank:
            run.follow_trial(work, device=device, workers=workers, report=report)
            return
        wishes = StopSignal(asked, work, config["stop_file"])
        outcome = run.run_trial(work, device=device, workers=workers, report=report, wish=wishes)
        if outcome.state == "failed":  # the others wait for this one
            raise RuntimeError(outcome.reason)
    finally:
        work.mirror.drop(work.folder)


@dataclass
class _OnOneMachine(TorchConfig):
    """torch's process group, met by way of a file: its usual store listens on all addresses.

    Attributes:
        folder: where the file is.
    """

    folder: str = ""

    @property
    def backend_cls(self) -> type[Backend]:
        """Return who sets the group up."""
        return _ByFile


class _ByFile(Backend):
    share_cuda_visible_devices = True  # as Ray's own for torch: GPUs reach each other

    def on_start(self, worker_group: Any, backend_config: _OnOneMachine) -> None:
        """Let all workers meet, in a file of their own each time."""
        file = f"{backend_config.folder}/workers-{uuid.uuid4().hex}"
        count = len(worker_group)
        ray.get(
            [
                worker_group.execute_single_async(
                    rank, _meet, backend_config.backend, file, rank, count
                )
                for rank in range(count)
            ]
        )


def _meet(backend: str, file: str, rank: int, count: int) -> None:
    from torch import distributed

    distributed.init_process_group(
        backend, init_method=f"file://{file}", rank=rank, world_size=count
    )
