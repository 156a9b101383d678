"""The error memory of one case: blocks of 8³ voxels of its preprocessed grid, held on the host.

A block is made where there is something to remember: the mask of a visit, or a failure. A block that is made late
starts from the number of visits that saw all of it without a failure; otherwise its average would forget them.
"""

import math
from dataclasses import dataclass

import torch

from uncseg.method.memory.patch_geometry import Box

BLOCK = 8
VOXELS = BLOCK**3
ALL = 2**31 - 1
"""Visits that are counted where each changes the step."""
TENSORS = ("row", "whole_visits", "visits", "values")
"""What is held of a case: each block's row (−1: none), visits of blocks not yet made, visits and averages per voxel."""


@dataclass(frozen=True)
class BlockBox:
    """The blocks that a box of voxels touches, and where the box lies in them."""

    blocks: Box
    inner: Box

    @classmethod
    def around(cls, box: Box) -> "BlockBox":
        """Find the blocks around a box that lies within its case and is not empty."""
        d, h, w = (slice(s.start // BLOCK, -(-s.stop // BLOCK)) for s in box)
        blocks = (d, h, w)
        i, j, k = (slice(s.start - b.start * BLOCK, s.stop - b.start * BLOCK) for s, b in zip(box, blocks, strict=True))
        return cls(blocks, (i, j, k))

    @property
    def grid(self) -> tuple[int, int, int]:
        """Number of blocks along each axis."""
        a, b, c = (s.stop - s.start for s in self.blocks)
        return a, b, c

    def to_blocks(self, dense: torch.Tensor) -> torch.Tensor:
        """Cut the box's (C, d, h, w) into (blocks, C, 512), with 0 where a block reaches beyond the box."""
        a, b, c = self.grid
        channels = len(dense)
        whole = dense.new_zeros((channels, a * BLOCK, b * BLOCK, c * BLOCK))
        whole[(slice(None), *self.inner)] = dense
        parts = whole.reshape(channels, a, BLOCK, b, BLOCK, c, BLOCK).permute(1, 3, 5, 0, 2, 4, 6)
        return parts.reshape(a * b * c, channels, VOXELS)

    def from_blocks(self, parts: torch.Tensor) -> torch.Tensor:
        """Inverse of :meth:`to_blocks`."""
        a, b, c = self.grid
        channels = parts.shape[1]
        whole = parts.reshape(a, b, c, channels, BLOCK, BLOCK, BLOCK).permute(3, 0, 4, 1, 5, 2, 6)
        return whole.reshape(channels, a * BLOCK, b * BLOCK, c * BLOCK)[(slice(None), *self.inner)]


class CaseMemory:
    """Averages per voxel of one case of ``shape`` (D, H, W); ``alpha`` is the smallest step of an average.

    With ``smaller_step`` it is the largest one after the first visit, as ``memory.published`` says.
    """

    def __init__(self, shape: tuple[int, int, int], averages: int, alpha: float, smaller_step: bool = False) -> None:
        self.shape = shape
        self.alpha = alpha
        self.smaller_step = smaller_step
        # visits beyond 1/alpha no longer change the step, unless it gets smaller still
        most = ALL if smaller_step else math.ceil(1 / alpha)
        self._count_type = torch.uint8 if most <= 255 else torch.int32
        self._most = min(most, torch.iinfo(self._count_type).max)
        grid = [math.ceil(n / BLOCK) for n in shape]
        self.row = torch.full(grid, -1, dtype=torch.int32)
        self.whole_visits = torch.zeros(grid, dtype=self._count_type)
        self.visits = torch.zeros((0, VOXELS), dtype=self._count_type)
        # half precision would round steps of 1/n away, and always on the same side
        self.values = torch.zeros((0, averages, VOXELS), dtype=torch.float32 if smaller_step else torch.float16)

    @property
    def nbytes(self) -> int:
        """Number of bytes held for this case."""
        return sum(getattr(self, name).nbytes for name in TENSORS)

    def gather(self, box: BlockBox) -> tuple[torch.Tensor, torch.Tensor]:
        """Return which of a box's blocks are held, (k,) int64, and what they hold, (k, averages + 1, 512).

        They hold the averages, 0 where not visited, and last 1 where visited.
        """
        rows = self.row[box.blocks].flatten()
        index = (rows >= 0).nonzero()[:, 0]
        held = rows[index].long()
        visited = (self.visits[held] > 0).to(self.values.dtype)[:, None]
        return index, torch.cat((self.values[held] * visited, visited), dim=1)

    def update(self, box: BlockBox, parts: torch.Tensor, seen: torch.Tensor, wanted: torch.Tensor) -> None:
        """Take in one more visit.

        Args:
            box: where it took place.
            parts: (blocks, averages + 1, 512) float16: new values in [0, 1], and last 1 where the visit saw the voxel.
            seen: (blocks,) number of voxels seen per block.
            wanted: (blocks,) bool, blocks with a voxel worth remembering.
        """
        rows = self.row[box.blocks].flatten()
        # there are no voxels to see beyond the case's border
        whole = (seen == self._voxels_inside(box)) & (rows < 0)
        fresh = wanted & (rows < 0)
        if fresh.any():
            rows = self._make(box, rows, fresh)
            whole &= ~fresh
        counted = self.whole_visits[box.blocks].flatten().int() + whole
        self.whole_visits[box.blocks] = counted.clamp(max=self._most).to(self._count_type).reshape(box.grid)
        known = (rows >= 0).nonzero()[:, 0]
        held, new = rows[known].long(), parts[known].float()
        shown = new[:, -1]
        visits = self.visits[held].float() + shown
        mean = 1 / visits.clamp(min=1)
        step = mean.clamp(min=self.alpha) * shown
        if self.smaller_step:
            step = torch.where(visits > 1, mean.clamp(max=self.alpha), 1.0) * shown
        self.visits[held] = visits.clamp(max=self._most).to(self._count_type)
        old = self.values[held].float()
        self.values[held] = (old + step[:, None] * (new[:, :-1] - old)).to(self.values.dtype)

    def _make(self, box: BlockBox, rows: torch.Tensor, fresh: torch.Tensor) -> torch.Tensor:
        """Make the fresh blocks; return the box's rows with theirs filled in."""
        held, count = len(self.visits), int(fresh.sum())
        rows = rows.clone()
        rows[fresh] = torch.arange(held, held + count, dtype=torch.int32)
        self.row[box.blocks] = rows.reshape(box.grid)
        start = self.whole_visits[box.blocks].flatten()[fresh, None].expand(-1, VOXELS)
        self.visits = torch.cat((self.visits, start))
        self.values = torch.cat((self.values, self.values.new_zeros((count, *self.values.shape[1:]))))
        return rows

    def _voxels_inside(self, box: BlockBox) -> torch.Tensor:
        axes = zip(box.blocks, self.shape, strict=True)
        d, h, w = ((n - torch.arange(s.start, s.stop) * BLOCK).clamp(max=BLOCK) for s, n in axes)
        return (d[:, None, None] * h[:, None] * w).flatten()

    def state(self) -> dict:
        """Return plain tensors, which load without unpickling code."""
        return {"shape": list(self.shape)} | {name: getattr(self, name) for name in TENSORS}

    @classmethod
    def from_state(cls, state: dict, alpha: float, smaller_step: bool = False) -> "CaseMemory":
        """Inverse of :meth:`state`."""
        d, h, w = state["shape"]
        memory = cls((d, h, w), state["values"].shape[1], alpha, smaller_step)
        for name in TENSORS:
            setattr(memory, name, state[name])
        return memory
