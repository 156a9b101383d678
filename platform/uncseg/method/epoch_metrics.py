"""Sums over an epoch's steps, kept on the device until the epoch ends.

Reading a value to the host makes it wait for the device; here that happens once an epoch.
"""

from collections.abc import Mapping

import torch


class EpochMeans:
    """Weighted means of named values over an epoch."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}

    def add(self, values: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Add (sum, weight) pairs of 0-dimensional tensors; a mean over nothing stays nothing."""
        for name, (total, weight) in values.items():
            pair = torch.stack((total.detach().double(), weight.detach().double()))
            self._sums[name] = self._sums[name] + pair if name in self._sums else pair

    def add_values(self, values: Mapping[str, torch.Tensor]) -> None:
        """Add single values, each of weight 1."""
        self.add({name: (value, torch.ones_like(value)) for name, value in values.items()})

    def means(self) -> dict[str, float]:
        """The means so far; NaN where no weight was added."""
        if not self._sums:
            return {}
        pairs = torch.stack(list(self._sums.values())).cpu()
        return dict(zip(self._sums, (pairs[:, 0] / pairs[:, 1]).tolist(), strict=True))
