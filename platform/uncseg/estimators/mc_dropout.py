"""Monte Carlo dropout: a case is predicted with random channels left out (Gal and Ghahramani 2016)."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from uncseg.estimators.several_passes import Passes

CHILD = "channel_dropout"


class ChannelDropout(nn.Module):
    """Drop a share p of whole channels: at random in training, by one mask in all passes of a sample, else never."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self._generator: torch.Generator | None = None
        self._mask: torch.Tensor | None = None

    def hold(self, generator: torch.Generator | None) -> None:
        """Begin a sample, whose mask the next pass draws and all following ones keep; None: end the sample."""
        self._generator, self._mask = generator, None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x, (B, C, …), with some channels set to 0 and the others divided by 1 − p."""
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
    """Drop channels of the blocks' outputs; the names of their weights stay the same."""
    for block in blocks:
        while isinstance(block, nn.Sequential):
            block = block[-1]  # a Sequential would run the new child as one of its own
        block.add_module(CHILD, ChannelDropout(p))
        block.register_forward_hook(_drop)


def _drop(block: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
    # found by name: a closure over the layer would be shared with copies of the network
    return getattr(block, CHILD)(output)


@contextmanager
def one_sample(network: nn.Module, seed: int, sample: int) -> Iterator[None]:
    """Keep one mask of dropped channels within the ``with`` block, for every tile and every mirrored copy."""
    generator = torch.Generator().manual_seed((seed << 20) + sample)
    layers = [layer for layer in network.modules() if isinstance(layer, ChannelDropout)]
    for layer in layers:
        layer.hold(generator)
    try:
        yield
    finally:
        for layer in layers:
            layer.hold(None)


def sample(passes: Passes) -> Iterator[torch.Tensor]:
    """Yield the probabilities of passes that each have one mask for the whole volume, (C, …)."""
    for sample in range(passes.settings.samples):
        with one_sample(passes.networks[0].module, passes.settings.seed, sample):
            probabilities = passes.probabilities()
        yield probabilities
