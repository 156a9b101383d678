"""What a fold takes, and how many folds fit side by side: from the experiment, or found."""

import math
from dataclasses import dataclass

import ray

from uncseg.cluster.fold_group import FoldResources
from uncseg.config import Resources
from uncseg.errors import Problem, ProblemsFound

MOST_CPUS_PER_GPU = 12  # nnU-Net's loaders feed a GPU well with 8 to 12


@dataclass(frozen=True)
class Slots:
    """Folds side by side, and what each takes."""

    count: int
    each: FoldResources

    @property
    def cpus(self) -> int:
        """Whole CPU cores of one process of a fold, at least 1."""
        return max(1, math.floor(self.each.cpus / self.each.processes))


def plan_slots(wanted: Resources, folds: int, cluster: dict[str, float] | None = None) -> Slots:
    """Fill in what the experiment leaves open from what the cluster has.

    GPUs are used if there are any, one a fold; otherwise the CPUs are shared out among as many folds as there are.

    Args:
        wanted: the experiment's section.
        folds: folds to train.
        cluster: total resources by name; None: those of the connected Ray.

    Raises:
        ProblemsFound: where a fold asks for more than the whole cluster has, since Ray would wait for ever.
    """
    total = ray.cluster_resources() if cluster is None else cluster
    all_gpus, all_cpus = total.get("GPU", 0.0), total.get("CPU", 0.0)
    gpus = (1.0 if all_gpus > 0 else 0.0) if wanted.gpus_per_fold is None else wanted.gpus_per_fold
    at_once = folds if wanted.folds_at_once is None else min(folds, wanted.folds_at_once)
    if gpus > 0:
        at_once = min(at_once, max(1, math.floor(all_gpus / gpus)))
    cpus = wanted.cpus_per_fold
    if cpus is None:
        at_once = min(at_once, max(1, math.floor(all_cpus)))
        share = max(1, math.floor(all_cpus / at_once))
        cpus = float(min(share, MOST_CPUS_PER_GPU * math.ceil(gpus)) if gpus > 0 else share)
    else:
        at_once = min(at_once, max(1, math.floor(all_cpus / cpus)))
    _check_possible(gpus, cpus, all_gpus, all_cpus)
    return Slots(at_once, FoldResources(cpus=cpus, gpus=gpus))


def _check_possible(gpus: float, cpus: float, all_gpus: float, all_cpus: float) -> None:
    problems = []
    for field, asked, has, what in (
        ("resources.gpus_per_fold", gpus, all_gpus, "GPU"),
        ("resources.cpus_per_fold", cpus, all_cpus, "CPU"),
    ):
        if asked > has:
            problems.append(
                Problem(
                    field,
                    f"{asked:g} {what}s a fold",
                    f"at most the {has:g} that the cluster has in all",
                    f"write {has:g} or less, or remove the field to use what is found",
                )
            )
    if gpus > 1 and gpus != int(gpus):
        problems.append(
            Problem(
                "resources.gpus_per_fold",
                f"{gpus:g} GPUs a fold",
                "a whole number, or a share of one",
                f"write {math.floor(gpus)} or {math.ceil(gpus)}",
            )
        )
    if problems:
        raise ProblemsFound("The folds cannot be placed on this cluster.", problems)
