"""Several processes that train one fold together (DistributedDataParallel): what they have to share.

DDP averages gradients over processes. A process therefore returns its own share of the joint loss times the number of
processes, with every count taken over all of them: the result is that of one process with the joint batch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F


def processes() -> int:
    """Number of processes in the group, 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_processes(values: torch.Tensor) -> torch.Tensor:
    """Sum of a tensor over all processes, without gradient; the tensor itself where there is one process."""
    if processes() == 1:
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total


def from_rank_zero(value: Any) -> Any:
    """What rank 0 gives, in every process; the value itself where there is one process."""
    if processes() == 1:
        return value
    shared = [value]
    dist.broadcast_object_list(shared, src=0)
    return shared[0]


def gather_samples(
    keys: Sequence[str],
    geometries: Sequence[Any],
    values: Mapping[str, torch.Tensor],
    interest: torch.Tensor,
) -> tuple[list[str], list[Any], dict[str, torch.Tensor], torch.Tensor]:
    """The samples of all processes in the order of the joint batch; every process gets them all.

    Args:
        keys, geometries: of this process's samples.
        values, interest: (B, …) with as many samples in each process.
    """
    if processes() == 1:
        return list(keys), list(geometries), dict(values), interest
    described: list[Any] = [None] * processes()
    dist.all_gather_object(described, (list(keys), list(geometries)))
    joint = {name: _all_of(value.half()) for name, value in values.items()}
    return (
        [key for part, _ in described for key in part],
        [geometry for _, part in described for geometry in part],
        joint,
        _all_of(interest.to(torch.uint8)) > 0,
    )


def _all_of(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach().contiguous()
    parts = [torch.empty_like(tensor) for _ in range(processes())]
    dist.all_gather(parts, tensor)
    return torch.cat(parts)


class JointCrossEntropy(nn.Module):
    """Cross-entropy with class weights over the joint batch of all processes.

    Torch's own divides by the weights of the process's own voxels, whose mean over processes is another number.

    Args:
        weight: one per class.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """This process's share of the mean.

        Args:
            logits: (B, classes, …).
            target: (B, 1, …) class numbers, as nnU-Net gives them.
        """
        labels = target[:, 0].long() if target.ndim == logits.ndim else target.long()
        total = F.cross_entropy(logits, labels, self.weight, reduction="sum")
        return total * processes() / sum_over_processes(self.weight[labels].sum())
