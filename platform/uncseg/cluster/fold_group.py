"""The fold group: one Ray Train run in which rank r trains fold folds[r], without any process group.

TorchTrainer would set up a process group even for one worker, and nnU-Net takes that to mean DDP: it would average
gradients across folds, and validation cases would leak into training.
"""

from dataclasses import dataclass
from typing import Any

import ray
import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.backend import Backend
from ray.train.torch import TorchConfig, TorchTrainer

from uncseg.cluster.fold_worker import FoldTask, train_fold

MAX_WORKER_DEATHS = 2


@dataclass
class IndependentTorchConfig(TorchConfig):
    """Torch workers that know nothing of each other, each seeing its own GPU."""

    @property
    def backend_cls(self) -> type[Backend]:
        """Ray's plain backend: no process group."""
        return Backend


@dataclass(frozen=True)
class FoldResources:
    """What one fold takes from the cluster."""

    cpus: float
    gpus: float


def _train_my_fold(config: dict[str, Any]) -> None:
    tasks: list[FoldTask] = config["tasks"]
    rank = ray.train.get_context().get_world_rank()
    # Ray's own result keeps rank 0 of checkpointed reports only: the spool is the metric table, this is for its eyes
    train_fold(tasks[rank], lambda metrics: ray.train.report({name: float(v) for name, v in metrics.items()}))


def run_fold_group(tasks: list[FoldTask], resources: FoldResources) -> None:
    """Train the tasks' folds side by side, in step; returns when all have ended.

    How a fold ended is in its spool. Checkpoints lie in the run's folder, and a restarted worker resumes from there;
    Ray keeps no second copy.

    Raises:
        Exception: whatever Ray raises when workers died more often than it tries again.
    """
    folds = "-".join(str(task.fold) for task in tasks)
    run = tasks[0].run
    per_worker = {"CPU": resources.cpus}
    if resources.gpus > 0:
        per_worker["GPU"] = resources.gpus
    TorchTrainer(
        _train_my_fold,
        train_loop_config={"tasks": tasks},
        torch_config=IndependentTorchConfig(),
        scaling_config=ScalingConfig(
            num_workers=len(tasks), use_gpu=resources.gpus > 0, resources_per_worker=per_worker
        ),
        run_config=RunConfig(
            name=f"folds_{folds}",
            storage_path=str(run.root / "ray"),
            failure_config=FailureConfig(max_failures=MAX_WORKER_DEATHS),
        ),
    ).fit()
