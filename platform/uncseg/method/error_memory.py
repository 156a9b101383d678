"""The error memory: per case, an average of the model's own errors, kept in the case's preprocessed voxel grid.

E += a_n (f − E), a_n = max(1/n, alpha), n = visits of that voxel: a running mean first, an exponential one after.
f is the failure of one visit, 0 or 1 (in between where a rotated patch is resampled). Read, then write: what a step
compares with is E as it was before its own visit.

A case is stored in blocks of 8³ voxels, half precision, made where there is something to remember (the mask of a
visit, or a failure); a block made late starts from the number of visits that saw it whole without a failure, or its
average would forget them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F

from uncseg.files import whole_file
from uncseg.method.patch_geometry import Box, PatchGeometry, inverse_sampling_grid, sampling_grid

BLOCK = 8
MOSTLY_VISITED = 0.5


@dataclass
class Reading:
    """What a memory knows about the voxels of a batch's patches, float32, (B, 1, …).

    Args:
        values: one tensor per average (error, and variance where it is kept), in [0, 1]; 0 where not visited.
        visited: 1.0 where n > 0, else 0.0.
    """

    values: dict[str, torch.Tensor]
    visited: torch.Tensor


class CaseMemory:
    """Averages of one case, in blocks.

    Args:
        shape: voxels of the case, (D, H, W).
        names: the averages kept.
        alpha: smallest step of the average.
    """

    def __init__(self, shape: tuple[int, int, int], names: tuple[str, ...], alpha: float) -> None:
        self.shape = shape
        self.alpha = alpha
        most = math.ceil(1 / alpha)
        self._count_type = torch.uint8 if most <= 255 else torch.int32
        self._most = min(most, torch.iinfo(self._count_type).max)
        grid = [math.ceil(n / BLOCK) for n in shape]
        self.row = torch.full(grid, -1, dtype=torch.int32)
        self.whole_visits = torch.zeros(grid, dtype=self._count_type)
        empty = (0, BLOCK, BLOCK, BLOCK)
        self.visits = torch.zeros(empty, dtype=self._count_type)
        self.values = {name: torch.zeros(empty, dtype=torch.float16) for name in names}

    @property
    def nbytes(self) -> int:
        """Bytes held for this case."""
        tensors = [self.row, self.whole_visits, self.visits, *self.values.values()]
        return sum(t.numel() * t.element_size() for t in tensors)

    def read(self, box: Box) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Averages and visits in a box of the case, each (d, h, w) float32; 0 where nothing is remembered."""
        blocks, inner = _blocks_around(box)
        rows = self.row[blocks]
        known = rows >= 0
        index = rows.clamp(min=0).long()

        def dense(stored: torch.Tensor) -> torch.Tensor:
            if stored.shape[0] == 0:
                return torch.zeros([s.stop - s.start for s in box])
            taken = stored[index].float() * known[..., None, None, None]
            return _from_blocks(taken)[inner]

        return {name: dense(stored) for name, stored in self.values.items()}, dense(self.visits)

    def write(
        self, box: Box, values: Mapping[str, torch.Tensor], visited: torch.Tensor, interest: torch.Tensor
    ) -> None:
        """One more visit of the voxels in a box.

        Args:
            box: part of the case.
            values: new value of each average, (d, h, w) in [0, 1].
            visited: (d, h, w) bool, voxels that the patch showed.
            interest: (d, h, w) bool, voxels worth a block.
        """
        blocks, inner = _blocks_around(box)
        shape = [(s.stop - s.start) * BLOCK for s in blocks]

        def blocked(part: torch.Tensor) -> torch.Tensor:
            whole = torch.zeros(shape, dtype=part.dtype)
            whole[inner] = part
            return _to_blocks(whole)

        seen = blocked(visited)
        wanted = blocked(interest & visited).flatten(3).any(3)
        self._make_blocks(blocks, wanted)
        rows = self.row[blocks]
        known = rows >= 0
        index, seen_known = rows[known].long(), seen[known]
        visits = self.visits[index].to(torch.int32) + seen_known
        step = torch.clamp(1 / visits.clamp(min=1).float(), min=self.alpha) * seen_known
        self.visits[index] = visits.clamp(max=self._most).to(self._count_type)
        for name, stored in self.values.items():
            old = stored[index].float()
            stored[index] = (old + step * (blocked(values[name].float())[known] - old)).half()
        # beyond the case's border there are no voxels to see
        whole = (seen | ~self._inside(blocks)).flatten(3).all(3) & ~known
        self.whole_visits[blocks] = (
            (self.whole_visits[blocks].to(torch.int32) + whole).clamp(max=self._most).to(self._count_type)
        )

    def _inside(self, blocks: Box) -> torch.Tensor:
        axes = [torch.arange(s.start * BLOCK, s.stop * BLOCK) < n for s, n in zip(blocks, self.shape, strict=True)]
        return _to_blocks(axes[0][:, None, None] & axes[1][None, :, None] & axes[2][None, None, :])

    def _make_blocks(self, blocks: Box, wanted: torch.Tensor) -> None:
        rows = self.row[blocks]
        new = wanted & (rows < 0)
        count = int(new.sum())
        if count == 0:
            return
        held = self.visits.shape[0]
        rows[new] = torch.arange(held, held + count, dtype=torch.int32)  # rows is a view: this fills self.row
        start = self.whole_visits[blocks][new][:, None, None, None].expand(-1, BLOCK, BLOCK, BLOCK)
        self.visits = torch.cat((self.visits, start))
        for name, stored in self.values.items():
            fresh = torch.zeros((count, BLOCK, BLOCK, BLOCK), dtype=stored.dtype)
            self.values[name] = torch.cat((stored, fresh))

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
        memory = cls((d, h, w), tuple(state["values"]), alpha)
        memory.row, memory.whole_visits = state["row"], state["whole_visits"]
        memory.visits, memory.values = state["visits"], state["values"]
        return memory


class ErrorMemory:
    """The memories of all cases of one side (training or validation) of a fold; lives in host memory.

    Args:
        names: averages kept, ``error`` first.
        alpha: smallest step of the averages.
    """

    def __init__(self, names: tuple[str, ...], alpha: float) -> None:
        self.names = names
        self.alpha = alpha
        self.cases: dict[str, CaseMemory] = {}

    def read(self, keys: list[str], geometries: list[PatchGeometry]) -> Reading:
        """Averages on the patches' grids, (B, 1, *patch) on the host: case grid → patch grid."""
        patches = [self._read_one(key, geometry) for key, geometry in zip(keys, geometries, strict=True)]
        stacked = torch.stack(patches)[:, :, None]
        return Reading({n: stacked[:, i] for i, n in enumerate(self.names)}, stacked[:, -1])

    def write(
        self,
        keys: list[str],
        geometries: list[PatchGeometry],
        values: Mapping[str, torch.Tensor],
        interest: torch.Tensor,
    ) -> None:
        """One more visit of every patch's voxels: patch grid → case grid.

        Args:
            values: for each average, (B, 1, …) in [0, 1], on any device.
            interest: (B, 1, …) bool, voxels worth remembering beside those that failed.
        """
        worth = (interest | (values[self.names[0]] > 0)).float()
        stacked = torch.stack([*(values[n].detach().float() for n in self.names), worth], dim=1).cpu()
        for patch, key, geometry in zip(stacked, keys, geometries, strict=True):
            if key not in self.cases:
                self.cases[key] = CaseMemory(geometry.case_shape, self.names, self.alpha)
            self._write_one(self.cases[key], patch.reshape(len(stacked[0]), *geometry.shape), geometry)

    def _read_one(self, key: str, geometry: PatchGeometry) -> torch.Tensor:
        """(names + visited, *patch) of one patch; 2D patches without their first axis are the caller's."""
        channels = len(self.names) + 1
        box = geometry.bounding_box()
        if key not in self.cases or _empty(box):
            return torch.zeros((channels, *geometry.shape))
        values, visits = self.cases[key].read(box)
        visited = (visits > 0).float()
        dense = torch.stack([*(values[n] * visited for n in self.names), visited])
        if geometry.exact:
            return _place_crop(dense, geometry, box)
        grid = sampling_grid(geometry, box)
        patch = F.grid_sample(dense[None], grid[None], align_corners=True, padding_mode="zeros")[0]
        weight = patch[-1]
        known = weight > MOSTLY_VISITED
        # unvisited neighbours count as unknown, not as 0: divide by the share that is known
        patch = torch.where(known, patch / weight.clamp(min=MOSTLY_VISITED), torch.zeros_like(patch))
        patch[-1] = known.float()
        return patch

    def _write_one(self, memory: CaseMemory, patch: torch.Tensor, geometry: PatchGeometry) -> None:
        box = geometry.bounding_box()
        if _empty(box):
            return
        if geometry.exact:
            in_box = _take_crop(patch, geometry, box)
            visited = torch.ones(in_box.shape[1:], dtype=torch.bool)
        else:
            grid = inverse_sampling_grid(geometry, box)
            in_box = F.grid_sample(patch[None], grid[None], align_corners=True, padding_mode="zeros")[0]
            visited = (grid.abs() <= 1 + 1e-5).all(-1)
        values = {name: in_box[i] for i, name in enumerate(self.names)}
        memory.write(box, values, visited, in_box[-1] > 0)

    @property
    def bytes_per_case(self) -> float:
        """Mean bytes held per case visited so far; 0 before the first."""
        return sum(m.nbytes for m in self.cases.values()) / max(len(self.cases), 1)

    def state(self) -> dict:
        """Plain tensors of all cases."""
        return {"names": list(self.names), "cases": {key: case.state() for key, case in self.cases.items()}}

    def load_state(self, state: dict) -> None:
        """The way back of :meth:`state`."""
        self.cases = {key: CaseMemory.from_state(case, self.alpha) for key, case in state["cases"].items()}


def save_memories(path: Path, memories: Mapping[str, ErrorMemory], epoch: int) -> None:
    """Write memories and the epoch they belong to, whole or not at all."""
    with whole_file(path) as temporary:
        torch.save({"epoch": epoch, **{name: memory.state() for name, memory in memories.items()}}, temporary)


def load_memory_file(path: Path) -> dict:
    """Content of a memory file, read without unpickling code: ``epoch`` and a state per memory."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    assert isinstance(content, dict)
    return content


def _empty(box: Box) -> bool:
    return any(s.stop <= s.start for s in box)


def _blocks_around(box: Box) -> tuple[Box, Box]:
    """The blocks that a box touches, and where the box lies within them."""
    d, h, w = (slice(s.start // BLOCK, -(-s.stop // BLOCK)) for s in box)
    blocks = (d, h, w)
    i, j, k = (slice(s.start - b.start * BLOCK, s.stop - b.start * BLOCK) for s, b in zip(box, blocks, strict=True))
    return blocks, (i, j, k)


def _to_blocks(dense: torch.Tensor) -> torch.Tensor:
    """(8a, 8b, 8c) → (a, b, c, 8, 8, 8)."""
    a, b, c = (n // BLOCK for n in dense.shape)
    return dense.reshape(a, BLOCK, b, BLOCK, c, BLOCK).permute(0, 2, 4, 1, 3, 5)


def _from_blocks(blocks: torch.Tensor) -> torch.Tensor:
    """(a, b, c, 8, 8, 8) → (8a, 8b, 8c)."""
    a, b, c = blocks.shape[:3]
    return blocks.permute(0, 3, 1, 4, 2, 5).reshape(a * BLOCK, b * BLOCK, c * BLOCK)


def _patch_slices(geometry: PatchGeometry, box: Box) -> tuple[Box, list[int]]:
    """Where a box lies in an exact patch after undoing its mirrors, and the mirrored axes."""
    mirrored = [axis for axis in range(3) if geometry.matrix[axis, axis] < 0]
    places = []
    for axis, s in enumerate(box):
        size, offset = geometry.shape[axis], round(float(geometry.offset[axis]))
        first = offset - (size - 1) if axis in mirrored else offset
        places.append(slice(s.start - first, s.stop - first))
    d, h, w = places
    return (d, h, w), mirrored


def _place_crop(dense: torch.Tensor, geometry: PatchGeometry, box: Box) -> torch.Tensor:
    places, mirrored = _patch_slices(geometry, box)
    patch = torch.zeros((dense.shape[0], *geometry.shape))
    patch[(slice(None), *places)] = dense
    return patch.flip([axis + 1 for axis in mirrored]) if mirrored else patch


def _take_crop(patch: torch.Tensor, geometry: PatchGeometry, box: Box) -> torch.Tensor:
    places, mirrored = _patch_slices(geometry, box)
    if mirrored:
        patch = patch.flip([axis + 1 for axis in mirrored])
    return patch[(slice(None), *places)]
