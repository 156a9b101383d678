"""Monte Carlo dropout: predictions of a network with random channels left out (Gal and Ghahramani 2016)."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from uncseg.estimators.several_passes import Passes

CHILD = "channel_dropout"


class ChannelDropout(nn.Module):
    """Drops whole channels: at random in training, by a mask that is kept in a sample, and not at all else.

    Args:
        p: share of the channels that are dropped, in [0, 1).
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self._generator: torch.Generator | None = None
        self._mask: torch.Tensor | None = None

    def hold(self, generator: torch.Generator | None) -> None:
        """Draw one mask at the next pass and keep it for all that follow; None: end the sample."""
        self._generator, self._mask = generator, None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, …) with channels at 0, the others divided by 1 − p."""
        if self._generator is not None:
            if self._mask is None:
                # on the CPU: a sample is then the same on every device
                kept = torch.rand(x.shape[1], generator=self._generator) >= self.p
                self._mask = (kept / (1 - self.p)).reshape(1, -1, *[1] * (x.ndim - 2))
            return x * self._mask.to(x)
        if not self.training or self.p == 0:
            return x
        kept = torch.rand(x.shape[:2], device=x.device) >= self.p
        return x * (kept / (1 - self.p)).reshape(*x.shape[:2], *[1] * (x.ndim - 2)).to(x)


def add_dropout(blocks: Iterable[nn.Module], p: float) -> None:
    """Drop channels of what the blocks give; names of their weights stay as they are."""
    for block in blocks:
        while isinstance(block, nn.Sequential):
            block = block[-1]  # a Sequential would run the new child as one of its own
        block.add_module(CHILD, ChannelDropout(p))
        block.register_forward_hook(_drop)


def _drop(block: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
    # by name and not by a closure, which a copy of the network would share with it
    dropped = getattr(block, CHILD)(output)
    assert isinstance(dropped, torch.Tensor)
    return dropped


@contextmanager
def one_sample(network: nn.Module, seed: int, sample: int) -> Iterator[None]:
    """Within the block the network is one of the dropped-out ones, the same for every tile and every mirrored copy."""
    generator = torch.Generator().manual_seed((seed << 20) + sample)
    layers = [layer for layer in network.modules() if isinstance(layer, ChannelDropout)]
    for layer in layers:
        layer.hold(generator)
    try:
        yield
    finally:
        for layer in layers:
            layer.hold(None)


def sample_dropout(passes: Passes) -> Iterator[torch.Tensor]:
    """Yield the probabilities of several passes, (C, …), each with one mask for the whole volume."""
    for sample in range(passes.settings.samples):
        with one_sample(passes.networks[0].module, passes.settings.seed, sample):
            probabilities = passes.probabilities()
        yield probabilities
