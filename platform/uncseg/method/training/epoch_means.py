"""Sums over an epoch's steps, kept on the device until the epoch ends.

Reading a value makes the host wait for the device; here it happens once per epoch.
"""

import torch

from uncseg.method.distributed_fold import sum_over_processes

Sums = dict[str, tuple[torch.Tensor, torch.Tensor]]
"""A (sum, weight) pair of 0-dimensional tensors for each metric."""


class EpochMeans:
    """Weighted means of named values over an epoch; names that are added together once are so in every step."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], torch.Tensor] = {}

    def add(self, values: Sums) -> None:
        """Add (sum, weight) pairs. One that is not finite comes from an unusable batch and is left out."""
        numbers = torch.stack([number.detach().double() for pair in values.values() for number in pair])
        pairs = numbers.reshape(-1, 2)
        pairs = torch.where(torch.isfinite(pairs).all(1, keepdim=True), pairs, 0)
        names = tuple(values)
        self._sums[names] = self._sums[names] + pairs if names in self._sums else pairs

    def means(self) -> dict[str, float]:
        """Return the means so far over all processes of the fold; NaN where no weight was added."""
        if not self._sums:
            return {}
        names = [name for group in self._sums for name in group]
        pairs = sum_over_processes(torch.cat(list(self._sums.values()))).cpu()
        return dict(zip(names, (pairs[:, 0] / pairs[:, 1]).tolist(), strict=True))
