"""What several processes share that train one fold together (DistributedDataParallel).

DistributedDataParallel averages gradients over processes. So each process returns its share of the joint loss times the
number of processes, with all counts taken over all processes. The result is that of one process with the joint batch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F


def process_count() -> int:
    """Return the number of processes in the group; 1 without a group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_processes(values: torch.Tensor) -> torch.Tensor:
    """Sum a tensor over all processes, without gradient; with one process, return the tensor itself."""
    if process_count() == 1:
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total


def from_rank_zero(value: Any) -> Any:
    """Return in every process the value that rank 0 gives."""
    if process_count() == 1:
        return value
    shared = [value]
    dist.broadcast_object_list(shared, src=0)
    return shared[0]


def gather_samples(
    keys: Sequence[str], geometries: Sequence[Any], values: Mapping[str, torch.Tensor], interest: torch.Tensor
) -> tuple[list[str], list[Any], dict[str, torch.Tensor], torch.Tensor]:
    """Return, in every process, all processes' samples in the order of the joint batch; tensors are (B, …), B equal."""
    if process_count() == 1:
        return list(keys), list(geometries), dict(values), interest
    described: list[Any] = [None] * process_count()
    dist.all_gather_object(described, (list(keys), list(geometries)))
    return (
        [key for part, _ in described for key in part],
        [geometry for _, part in described for geometry in part],
        {name: _gather(value.half()) for name, value in values.items()},
        _gather(interest.to(torch.uint8)) > 0,
    )


def _gather(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach().contiguous()
    parts = [torch.empty_like(tensor) for _ in range(process_count())]
    dist.all_gather(parts, tensor)
    return torch.cat(parts)


class JointCrossEntropy(nn.Module):
    """Cross-entropy with class weights, (classes,), over the joint batch of all processes.

    Torch's own divides by the weights of a process's own voxels; the mean of that over processes is another number.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return this process's share of the mean, from logits (B, classes, …) and class numbers (B, 1, …)."""
        labels = target[:, 0].long() if target.ndim == logits.ndim else target.long()
        total = F.cross_entropy(logits, labels, self.weight, reduction="sum")
        return total * process_count() / sum_over_processes(self.weight[labels].sum())
