"""The error memory: per case, an average of the network's own errors, kept on the case's preprocessed voxel grid.

E += a_n (f − E) with a_n = max(1/n, alpha) and n the visits of the voxel: first a running mean, then an exponential
one. f is the failure of one visit, 0 or 1, or in between where a rotated patch is resampled. A step reads before it
writes: it compares with E as it was before its own visit.

The averages are held on the host (``case_memory.py``); the device that trains resamples between the grids of case and
patch. A write only starts on the device. :meth:`ErrorMemory.settle` ends it on the host, and waits no longer for the
device than until the visit's own values have arrived.
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
    """What an error memory knows of the voxels of a batch's patches, float32, (B, 1, …)."""

    values: dict[str, torch.Tensor]
    """One tensor per average (``error``, and ``variance`` if it is kept), in [0, 1]; 0 where not visited."""
    visited: torch.Tensor
    """1.0 where n > 0, else 0.0."""

    def part(self, samples: slice) -> "Reading":
        """Return the reading of some of the samples."""
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
    """The error memory of a fold's training cases, or of its validation cases.

    It keeps the averages ``names``, ``error`` first, takes no step below ``alpha``, and resamples on ``device``; for
    ``smaller_step`` see :class:`~uncseg.method.memory.case_memory.CaseMemory`.
    """

    def __init__(
        self, names: tuple[str, ...], alpha: float, device: torch.device = CPU, smaller_step: bool = False
    ) -> None:
        self.names = names
        self.alpha = alpha
        self.smaller_step = smaller_step
        self.device = device
        self.cases: dict[str, CaseMemory] = {}
        self._visits: list[_Visit] = []
        self._arrived: torch.cuda.Event | None = None

    def read(self, keys: Sequence[str], geometries: Sequence[PatchGeometry]) -> Reading:
        """Read the averages on the patches' grids, (B, 1, *patch)."""
        self.settle()
        patches = [self._read_one(key, geometry) for key, geometry in zip(keys, geometries, strict=True)]
        stacked = torch.stack(patches)[:, :, None]
        return Reading({n: stacked[:, i] for i, n in enumerate(self.names)}, stacked[:, -1])

    def read_box(self, key: str, box: Box) -> Reading:
        """Read the averages in a box of a case, (1, 1, d, h, w); all 0 if the case was never visited."""
        shape = tuple(s.stop - s.start for s in box)
        first = [s.start for s in box]
        return self.read([key], [PatchGeometry.from_crop(first, shape, [s.stop for s in box])])

    def write(
        self,
        keys: Sequence[str],
        geometries: Sequence[PatchGeometry],
        values: Mapping[str, torch.Tensor],
        interest: torch.Tensor,
    ) -> None:
        """Start one more visit of the voxels of every patch; :meth:`settle` ends it.

        Args:
            keys, geometries: case and place of each patch.
            values: per average, (B, 1, …) in [0, 1]; a patch with a value that is not finite is no visit.
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
        """End the visits that were started."""
        if self._arrived is not None:
            self._arrived.synchronize()
            self._arrived = None
        visits, self._visits = self._visits, []
        for visit in visits:
            if visit.key not in self.cases:
                self.cases[visit.key] = CaseMemory(visit.case_shape, len(self.names), self.alpha, self.smaller_step)
            self.cases[visit.key].update(visit.box, visit.parts, visit.seen, visit.wanted)

    def _read_one(self, key: str, geometry: PatchGeometry) -> torch.Tensor:
        """Return (names + visited, *patch) of one patch; a 2D patch keeps its first axis of one voxel."""
        channels = len(self.names) + 1
        bounds = geometry.bounding_box()
        if key not in self.cases or _empty(bounds):
            return torch.zeros((channels, *geometry.shape), device=self.device)
        box = BlockBox.around(bounds)
        index, held = (self._to_device(t) for t in self.cases[key].gather(box))
        parts = torch.zeros((int(np.prod(box.grid)), *held.shape[1:]), dtype=held.dtype, device=self.device)
        dense = box.from_blocks(parts.index_copy_(0, index, held)).float()
        if geometry.exact:
            patch = dense.new_zeros((channels, *geometry.shape))
            patch[(slice(None), *geometry.slices_of(bounds))] = dense
            return _mirror(patch, geometry)
        patch = _resample(dense, patch_to_case(geometry, bounds), geometry.shape)[0]
        weight = patch[-1]
        known = weight > MOSTLY_VISITED
        # divide by the share that is known: unvisited neighbours count as unknown, not as 0
        patch = torch.where(known, patch / weight.clamp(min=MOSTLY_VISITED), torch.zeros_like(patch))
        patch[-1] = known.float()
        return patch

    def _start_visit(
        self, key: str, patch: torch.Tensor, finite: torch.Tensor, geometry: PatchGeometry, bounds: Box
    ) -> _Visit:
        if geometry.exact:
            in_box = _mirror(patch, geometry)[(slice(None), *geometry.slices_of(bounds))]
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
        """Mean number of bytes held per visited case; 0 before the first visit."""
        return sum(m.nbytes for m in self.cases.values()) / max(len(self.cases), 1)

    def state(self) -> dict:
        """Return plain tensors of all cases."""
        self.settle()
        return {"names": list(self.names), "cases": {key: case.state() for key, case in self.cases.items()}}

    def load_state(self, state: dict) -> None:
        """Inverse of :meth:`state`."""
        self._visits, self._arrived = [], None
        steps = self.alpha, self.smaller_step
        self.cases = {key: CaseMemory.from_state(case, *steps) for key, case in state["cases"].items()}


def _empty(box: Box) -> bool:
    return any(s.stop <= s.start for s in box)


def _resample(volume: torch.Tensor, matrix: np.ndarray, shape: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Interpolate a (C, d, h, w) volume, 0 beyond it, to (C, *shape); return also the positions, (*shape, 3)."""
    affine = torch.from_numpy(matrix).float().to(volume.device, non_blocking=True)
    # as affine_grid, which warns of axes of one voxel, such as 2D patches have
    z, y, x = (torch.linspace(-1, 1 if n > 1 else -1, n, device=volume.device) for n in shape)
    columns = x[None, None, :, None], y[None, :, None, None], z[:, None, None, None]
    grid = sum((column * affine[:, i] for i, column in enumerate(columns)), affine[:, 3])
    return F.grid_sample(volume[None], grid[None], align_corners=True, padding_mode="zeros")[0], grid


def _mirror(patch: torch.Tensor, geometry: PatchGeometry) -> torch.Tensor:
    axes = geometry.mirrored_axes
    return patch.flip([axis + 1 for axis in axes]) if axes else patch
