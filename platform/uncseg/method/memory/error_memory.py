"""The error memory: per case, an average of the model's own errors, kept in the case's preprocessed voxel grid.

E += a_n (f − E), a_n = max(1/n, alpha), n = visits of that voxel: a running mean first, an exponential one after.
f is the failure of one visit, 0 or 1 (in between where a rotated patch is resampled). Read, then write: what a step
compares with is E as it was before its own visit.

The averages live in host memory (``case_memory.py``); resampling between case and patch grid is done on the device
that trains. A write only starts there: :meth:`ErrorMemory.settle` takes it in, and waits for the device no longer than
until the visit's own values are there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from uncseg.method.memory.case_memory import BlockBox, CaseMemory
from uncseg.method.memory.patch_geometry import Box, PatchGeometry, case_to_patch, patch_to_case

MOSTLY_VISITED = 0.5
BORDER_TOLERANCE = 1e-5
CPU = torch.device("cpu")


@dataclass
class Reading:
    """What a memory knows about the voxels of a batch's patches, float32, (B, 1, …).

    Args:
        values: one tensor per average (error, and variance where it is kept), in [0, 1]; 0 where not visited.
        visited: 1.0 where n > 0, else 0.0.
    """

    values: dict[str, torch.Tensor]
    visited: torch.Tensor

    def part(self, samples: slice) -> "Reading":
        """The same of some of the samples."""
        return Reading({name: value[samples] for name, value in self.values.items()}, self.visited[samples])


@dataclass(frozen=True)
class _Visit:
    """One patch's visit on its way to the host."""

    key: str
    case_shape: tuple[int, int, int]
    box: BlockBox
    parts: torch.Tensor
    seen: torch.Tensor
    wanted: torch.Tensor


class ErrorMemory:
    """The memories of all cases of one side (training or validation) of a fold.

    Args:
        names: averages kept, ``error`` first.
        alpha: smallest step of the averages.
        device: where patches are resampled.
    """

    def __init__(self, names: tuple[str, ...], alpha: float, device: torch.device = CPU) -> None:
        self.names = names
        self.alpha = alpha
        self.device = device
        self.cases: dict[str, CaseMemory] = {}
        self._visits: list[_Visit] = []
        self._arrived: torch.cuda.Event | None = None

    def read(self, keys: Sequence[str], geometries: Sequence[PatchGeometry]) -> Reading:
        """Averages on the patches' grids, (B, 1, *patch): case grid → patch grid."""
        self.settle()
        patches = [self._read_one(key, geometry) for key, geometry in zip(keys, geometries, strict=True)]
        stacked = torch.stack(patches)[:, :, None]
        return Reading({n: stacked[:, i] for i, n in enumerate(self.names)}, stacked[:, -1])

    def read_box(self, key: str, box: Box) -> Reading:
        """Averages in a box of a case, (1, 1, d, h, w); all 0 where the case was never visited."""
        shape = tuple(s.stop - s.start for s in box)
        first = [s.start for s in box]
        return self.read([key], [PatchGeometry.of_crop(first, shape, [s.stop for s in box])])

    def write(
        self,
        keys: Sequence[str],
        geometries: Sequence[PatchGeometry],
        values: Mapping[str, torch.Tensor],
        interest: torch.Tensor,
    ) -> None:
        """Start one more visit of every patch's voxels, patch grid → case grid; :meth:`settle` ends it.

        Args:
            values: for each average, (B, 1, …) in [0, 1]; a patch with a value that is not finite is no visit.
            interest: (B, 1, …) bool, voxels worth remembering beside those that failed.
        """
        worth = (interest | (values[self.names[0]] > 0)).float()
        stacked = torch.stack([*(values[n].detach().float() for n in self.names), worth], dim=1)
        finite = torch.isfinite(stacked.flatten(1)).all(1)
        stacked = torch.nan_to_num(stacked)
        for i, (key, geometry) in enumerate(zip(keys, geometries, strict=True)):
            box = geometry.bounding_box()
            if not _empty(box):
                patch = stacked[i].reshape(stacked.shape[1], *geometry.shape)
                self._visits.append(self._start_visit(key, patch, finite[i], geometry, box))
        if self.device.type == "cuda":
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def settle(self) -> None:
        """Take in the visits that were started."""
        if self._arrived is not None:
            self._arrived.synchronize()
            self._arrived = None
        visits, self._visits = self._visits, []
        for visit in visits:
            if visit.key not in self.cases:
                self.cases[visit.key] = CaseMemory(visit.case_shape, len(self.names), self.alpha)
            self.cases[visit.key].update(visit.box, visit.parts, visit.seen, visit.wanted)

    def _read_one(self, key: str, geometry: PatchGeometry) -> torch.Tensor:
        """(names + visited, *patch) of one patch; 2D patches without their first axis are the caller's."""
        channels = len(self.names) + 1
        bounds = geometry.bounding_box()
        if key not in self.cases or _empty(bounds):
            return torch.zeros((channels, *geometry.shape), device=self.device)
        box = BlockBox.around(bounds)
        index, held = (self._to_device(t) for t in self.cases[key].gather(box))
        parts = torch.zeros((int(np.prod(box.grid)), *held.shape[1:]), dtype=held.dtype, device=self.device)
        dense = box.from_blocks(parts.index_copy_(0, index, held)).float()
        if geometry.exact:
            return _place_crop(dense, geometry, bounds)
        patch = _resample(dense, patch_to_case(geometry, bounds), geometry.shape)[0]
        weight = patch[-1]
        known = weight > MOSTLY_VISITED
        # unvisited neighbours count as unknown, not as 0: divide by the share that is known
        patch = torch.where(known, patch / weight.clamp(min=MOSTLY_VISITED), torch.zeros_like(patch))
        patch[-1] = known.float()
        return patch

    def _start_visit(
        self, key: str, patch: torch.Tensor, finite: torch.Tensor, geometry: PatchGeometry, bounds: Box
    ) -> _Visit:
        if geometry.exact:
            in_box = _take_crop(patch, geometry, bounds)
            shown = torch.ones_like(in_box[:1])
        else:
            size = tuple(s.stop - s.start for s in bounds)
            in_box, grid = _resample(patch, case_to_patch(geometry, bounds), size)
            shown = (grid.abs() <= 1 + BORDER_TOLERANCE).all(-1)[None].float()
        shown = shown * finite
        box = BlockBox.around(bounds)
        parts = box.to_blocks(torch.cat((in_box[:-1], shown, in_box[-1:] * shown)))
        seen = parts[:, -2].sum(1).int()
        wanted = (parts[:, -1] > 0).any(1)
        arrived = (self._to_host(t) for t in (parts[:, :-1].half(), seen, wanted))
        return _Visit(key, geometry.case_shape, box, *arrived)

    def _to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.device.type != "cuda":
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def _to_host(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.device.type != "cuda":
            return tensor.cpu()
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return host.copy_(tensor, non_blocking=True)

    @property
    def bytes_per_case(self) -> float:
        """Mean bytes held per case visited so far; 0 before the first."""
        return sum(m.nbytes for m in self.cases.values()) / max(len(self.cases), 1)

    def state(self) -> dict:
        """Plain tensors of all cases."""
        self.settle()
        return {"names": list(self.names), "cases": {key: case.state() for key, case in self.cases.items()}}

    def load_state(self, state: dict) -> None:
        """The way back of :meth:`state`."""
        self._visits, self._arrived = [], None
        self.cases = {key: CaseMemory.from_state(case, self.alpha) for key, case in state["cases"].items()}


def _empty(box: Box) -> bool:
    return any(s.stop <= s.start for s in box)


def _resample(volume: torch.Tensor, matrix: np.ndarray, shape: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """(C, *shape) of a (C, d, h, w) volume, linear, 0 beyond it; and the positions looked at, (*shape, 3)."""
    grid = _positions(torch.from_numpy(matrix).float().to(volume.device, non_blocking=True), shape)
    return F.grid_sample(volume[None], grid[None], align_corners=True, padding_mode="zeros")[0], grid


def _positions(matrix: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    # affine_grid would do this, but warns of axes of one voxel, which 2D patches have
    ends = [1.0 if n > 1 else -1.0 for n in shape]
    z, y, x = (torch.linspace(-1, e, n, device=matrix.device) for e, n in zip(ends, shape, strict=True))
    columns = x[None, None, :, None], y[None, :, None, None], z[:, None, None, None]
    return sum((column * matrix[:, i] for i, column in enumerate(columns)), matrix[:, 3])


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
    patch = dense.new_zeros((dense.shape[0], *geometry.shape))
    patch[(slice(None), *places)] = dense
    return patch.flip([axis + 1 for axis in mirrored]) if mirrored else patch


def _take_crop(patch: torch.Tensor, geometry: PatchGeometry, box: Box) -> torch.Tensor:
    places, mirrored = _patch_slices(geometry, box)
    if mirrored:
        patch = patch.flip([axis + 1 for axis in mirrored])
    return patch[(slice(None), *places)]
