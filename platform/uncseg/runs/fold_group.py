"""The processes that train folds together under Ray Train: a fold group, or one distributed fold.

In a fold group rank r trains fold folds[r], without a process group. TorchTrainer would set one up even for a single
worker, and nnU-Net takes that to mean DDP: it would average gradients across folds, and validation cases would leak
into training. A distributed fold is the exception: its workers, one per GPU, train the same fold in a process group.
"""

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
import ray.util
from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.backend import Backend
from ray.train.collective import barrier, broadcast_from_rank_zero
from ray.train.torch import TorchConfig, TorchTrainer

from uncseg.cluster.resources import FoldResources
from uncseg.runs.fold_request import FoldRequest
from uncseg.runs.fold_worker import train_fold
from uncseg.tracking.spool import read_history

MAX_WORKER_DEATHS = 5


@dataclass
class IndependentTorchConfig(TorchConfig):
    """Torch workers that know nothing of each other, each seeing its own GPU."""

    @property
    def backend_cls(self) -> type[Backend]:
        """Ray's plain backend, which sets up no process group."""
        return Backend


def _train_on_worker(config: dict[str, Any]) -> None:
    requests: list[FoldRequest] = config["requests"]
    rank = ray.train.get_context().get_world_rank()

    # Ray keeps only what rank 0 reports with checkpoints; the spool is the metric table
    def report(metrics: dict[str, float]) -> None:
        ray.train.report({name: float(value) for name, value in metrics.items()})

    if len(requests) > 1:
        _train_in_step(requests, rank, report)
    elif requests[0].processes == 1:
        train_fold(requests[0], report)
    else:
        with _process_group(rank, requests[0].processes):
            train_fold(requests[0], report, rank)


def _train_in_step(requests: list[FoldRequest], rank: int, report: Callable[[dict[str, float]], None]) -> None:
    """Train one fold of a group whose reports meet: Ray waits at each report until all ranks have sent theirs."""

    def first_common_epoch(_first: int) -> int:
        # after a kill one fold may be a checkpoint ahead: it would report its epoch 8 beside the others' epoch 4
        barrier()
        histories = [read_history(request.run.spool, request.fold) for request in requests]
        return max(history.first_epochs[history.attempt] for history in histories)

    request = requests[rank]
    train_fold(request, report, report_from=first_common_epoch)
    history = read_history(request.run.spool, request.fold)
    # raise, or the others would wait for its reports forever, also if a full disk kept it from recording how it ended;
    # a fold that was stopped is about to be killed with them
    if history.state not in ("finished", "stopped"):
        raise RuntimeError(f"fold {request.fold}: {history.message or 'it ended without a message'}")


@contextmanager
def _process_group(rank: int, processes: int) -> Iterator[None]:
    """Set up the process group of a distributed fold. Each worker sees the GPU that Ray gave it as its first."""
    import torch
    import torch.distributed as dist

    address = None
    if rank == 0:
        with socket.socket() as free:
            free.bind(("", 0))
            address = f"tcp://{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, init_method=broadcast_from_rank_zero(address), rank=rank, world_size=processes)
    try:
        yield
    finally:
        dist.destroy_process_group()


def run_fold_group(
    requests: list[FoldRequest],
    resources: FoldResources,
    callbacks: Sequence[UserCallback] = (),
    max_deaths: int = MAX_WORKER_DEATHS,
) -> None:
    """Train a fold group in step, or one fold, distributed if it takes several GPUs; return when all have ended.

    The spool tells how a fold ended. Checkpoints are written to the run's folder, from which a restarted worker
    resumes; Ray keeps no second copy.

    Args:
        requests: folds of one run, each of which takes ``resources``.
        callbacks: Ray Train's, called with one report per fold, all of the same epoch.
        max_deaths: how often the workers are restarted after one has died.

    Raises:
        Exception: whatever Ray raises if workers died more often; for a fold group also if a fold has failed.
    """
    assert len(requests) == 1 or resources.processes == 1, "folds of a group have at most one GPU each"
    folds = "-".join(str(request.fold) for request in requests)
    worker = resources.worker
    per_worker = {"CPU": worker.cpus} | ({"GPU": worker.gpus} if worker.gpus else {})
    TorchTrainer(
        _train_on_worker,
        train_loop_config={"requests": requests},
        torch_config=IndependentTorchConfig(),
        scaling_config=ScalingConfig(
            num_workers=len(requests) * resources.processes, use_gpu=resources.gpus > 0, resources_per_worker=per_worker
        ),
        run_config=RunConfig(
            name=f"folds_{folds}",
            storage_path=str(requests[0].run.root / "ray"),
            failure_config=FailureConfig(max_failures=max_deaths),
            callbacks=list(callbacks),
        ),
    ).fit()
