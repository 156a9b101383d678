"""Averages of one case, kept in blocks of 8³ voxels of its preprocessed grid, in host memory.

A block is made where there is something to remember (the mask of a visit, or a failure); a block made late starts from
the number of visits that saw it whole without a failure, or its average would forget them.
"""

import math
from dataclasses import dataclass

import torch

from uncseg.method.memory.patch_geometry import Box

BLOCK = 8
VOXELS = BLOCK**3


@dataclass(frozen=True)
class BlockBox:
    """The blocks that a box of voxels touches, and where the box lies within them."""

    blocks: Box
    inner: Box

    @classmethod
    def around(cls, box: Box) -> "BlockBox":
        """The blocks around a box that lies within its case and is not empty."""
        d, h, w = (slice(s.start // BLOCK, -(-s.stop // BLOCK)) for s in box)
        blocks = (d, h, w)
        i, j, k = (slice(s.start - b.start * BLOCK, s.stop - b.start * BLOCK) for s, b in zip(box, blocks, strict=True))
        return cls(blocks, (i, j, k))

    @property
    def grid(self) -> tuple[int, int, int]:
        """Blocks along each axis."""
        a, b, c = (s.stop - s.start for s in self.blocks)
        return a, b, c

    def to_blocks(self, dense: torch.Tensor) -> torch.Tensor:
        """(C, d, h, w) of the box → (blocks, C, 512); 0 where a block reaches beyond the box."""
        a, b, c = self.grid
        channels = len(dense)
        whole = dense.new_zeros((channels, a * BLOCK, b * BLOCK, c * BLOCK))
        whole[(slice(None), *self.inner)] = dense
        parts = whole.reshape(channels, a, BLOCK, b, BLOCK, c, BLOCK).permute(1, 3, 5, 0, 2, 4, 6)
        return parts.reshape(a * b * c, channels, VOXELS)

    def from_blocks(self, parts: torch.Tensor) -> torch.Tensor:
        """The way back of :meth:`to_blocks`."""
        a, b, c = self.grid
        channels = parts.shape[1]
        whole = parts.reshape(a, b, c, channels, BLOCK, BLOCK, BLOCK).permute(3, 0, 4, 1, 5, 2, 6)
        return whole.reshape(channels, a * BLOCK, b * BLOCK, c * BLOCK)[(slice(None), *self.inner)]


class CaseMemory:
    """Averages of one case.

    Args:
        shape: voxels of the case, (D, H, W).
        averages: how many are kept per voxel.
        alpha: smallest step of the averages.
    """

    def __init__(self, shape: tuple[int, int, int], averages: int, alpha: float) -> None:
        self.shape = shape
        self.alpha = alpha
        most = math.ceil(1 / alpha)
        # visits beyond 1/alpha no longer change the step
        self._count_type = torch.uint8 if most <= 255 else torch.int32
        self._most = min(most, torch.iinfo(self._count_type).max)
        grid = [math.ceil(n / BLOCK) for n in shape]
        self.row = torch.full(grid, -1, dtype=torch.int32)
        self.whole_visits = torch.zeros(grid, dtype=self._count_type)
        self.visits = torch.zeros((0, VOXELS), dtype=self._count_type)
        self.values = torch.zeros((0, averages, VOXELS), dtype=torch.float16)

    @property
    def nbytes(self) -> int:
        """Bytes held for this case."""
        tensors = (self.row, self.whole_visits, self.visits, self.values)
        return sum(t.numel() * t.element_size() for t in tensors)

    def gather(self, box: BlockBox) -> tuple[torch.Tensor, torch.Tensor]:
        """What is held of some blocks.

        Returns:
            index (k,) int64, which of the box's blocks are held, and (k, averages + 1, 512) float16: their averages,
            0 where not visited, and 1 where visited.
        """
        rows = self.row[box.blocks].flatten()
        index = (rows >= 0).nonzero()[:, 0]
        held = rows[index].long()
        visited = (self.visits[held] > 0).half()[:, None]
        return index, torch.cat((self.values[held] * visited, visited), dim=1)

    def update(self, box: BlockBox, parts: torch.Tensor, seen: torch.Tensor, wanted: torch.Tensor) -> None:
        """One more visit.

        Args:
            box: where.
            parts: (blocks, averages + 1, 512) float16: new values in [0, 1], and 1 where the visit showed the voxel.
            seen: (blocks,) voxels shown per block.
            wanted: (blocks,) bool, blocks with a voxel worth remembering.
        """
        rows = self.row[box.blocks].flatten()
        # beyond the case's border there are no voxels to see
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
        step = torch.clamp(1 / visits.clamp(min=1), min=self.alpha) * shown
        self.visits[held] = visits.clamp(max=self._most).to(self._count_type)
        old = self.values[held].float()
        self.values[held] = (old + step[:, None] * (new[:, :-1] - old)).half()

    def _make(self, box: BlockBox, rows: torch.Tensor, fresh: torch.Tensor) -> torch.Tensor:
        held, count = len(self.visits), int(fresh.sum())
        rows = rows.clone()
        rows[fresh] = torch.arange(held, held + count, dtype=torch.int32)
        self.row[box.blocks] = rows.reshape(box.grid)
        start = self.whole_visits[box.blocks].flatten()[fresh, None].expand(-1, VOXELS)
        self.visits = torch.cat((self.visits, start))
        self.values = torch.cat((self.values, self.values.new_zeros((count, *self.values.shape[1:]))))
        return rows

    def _voxels_inside(self, box: BlockBox) -> torch.Tensor:
        axes = [
            (n - torch.arange(s.start, s.stop) * BLOCK).clamp(max=BLOCK)
            for s, n in zip(box.blocks, self.shape, strict=True)
        ]
        return (axes[0][:, None, None] * axes[1][None, :, None] * axes[2][None, None, :]).flatten()

    def state(self) -> dict:
        """Plain tensors, loadable without unpickling code."""
        return {
            "shape": list(self.shape),
            "row": self.row,
            "whole_visits": self.whole_visits,
            "visits": self.visits,
            "values": self.values,
        }

    @classmethod
    def from_state(cls, state: dict, alpha: float) -> "CaseMemory":
        """The way back of :meth:`state`."""
        d, h, w = state["shape"]
        memory = cls((d, h, w), state["values"].shape[1], alpha)
        memory.row, memory.whole_visits = state["row"], state["whole_visits"]
        memory.visits, memory.values = state["visits"], state["values"]
        return memory
