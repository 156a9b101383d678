"""Sums over an epoch's steps, kept on the device until the epoch ends.

Reading a value to the host makes it wait for the device; here that happens once an epoch.
"""

from collections.abc import Mapping

import torch

from uncseg.method.distributed_fold import sum_over_processes


class EpochMeans:
    """Weighted means of named values over an epoch; names that are added together are always added together."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], torch.Tensor] = {}

    def add(self, values: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Add (sum, weight) pairs of 0-dimensional tensors; a mean over nothing stays nothing.

        A pair that is not finite comes from a batch that could not be used: it is left out.
        """
        numbers = torch.stack([number.detach().double() for pair in values.values() for number in pair])
        pairs = numbers.reshape(-1, 2)
        pairs = torch.where(torch.isfinite(pairs).all(1, keepdim=True), pairs, 0)
        names = tuple(values)
        self._sums[names] = self._sums[names] + pairs if names in self._sums else pairs

    def add_values(self, values: Mapping[str, torch.Tensor]) -> None:
        """Add single values, each of weight 1."""
        self.add({name: (value, torch.ones_like(value)) for name, value in values.items()})

    def means(self) -> dict[str, float]:
        """The means so far over all processes of the fold; NaN where no weight was added."""
        if not self._sums:
            return {}
        names = [name for group in self._sums for name in group]
        pairs = sum_over_processes(torch.cat(list(self._sums.values()))).cpu()
        return dict(zip(names, (pairs[:, 0] / pairs[:, 1]).tolist(), strict=True))
