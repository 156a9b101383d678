"""The error memory at BraTS's size: milliseconds per read and write, bytes per case; beside it a dense float32 one.

    python tests/performance/memory.py [--patch 128] [--visits 20] [--runs 3] [--device cuda]

A case of 140 × 170 × 138 voxels (1 mm) with a tumour of 100 mL, visited by patches, half of them rotated and scaled
as nnU-Net does. What fails is the tumour's rim and a false positive of 2 mL.
"""

import time

import numpy as np
import torch
from side_by_side import arguments, in_turn

from uncseg.method.memory.error_memory import ErrorMemory
from uncseg.method.memory.patch_geometry import PatchGeometry

SHAPE = (140, 170, 138)
WHOLE = tuple(slice(0, n) for n in SHAPE)


def coordinates(geometry):
    """Return the case coordinates of every patch voxel, (3, D, H, W) float64."""
    index = np.indices(geometry.shape, dtype=np.float64)
    return np.tensordot(geometry.matrix, index, axes=1) + geometry.offset[:, None, None, None]


def geometries(patch: int, visits: int) -> list[PatchGeometry]:
    """Random crops, every other one rotated by up to 30° about one axis and scaled by 0.7 to 1.4."""
    random = np.random.default_rng(0)
    found = []
    for visit in range(visits):
        lower = [int(random.integers(min(0, n - patch), max(1, n - patch + 1))) for n in SHAPE]
        geometry = PatchGeometry.from_crop(lower, [patch] * 3, SHAPE)
        if visit % 2:
            angle, scale = random.uniform(-np.pi / 6, np.pi / 6), random.uniform(0.7, 1.4)
            c, s = scale * np.cos(angle), scale * np.sin(angle)
            matrix = np.array([[scale, 0, 0], [0, c, -s], [0, s, c]])
            centre = np.full(3, (patch - 1) / 2)
            geometry = geometry.then(matrix, centre - matrix @ centre, [patch] * 3)
        found.append(geometry)
    return found


def failures(patches: list[PatchGeometry], device: torch.device) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(failure, reference) of each patch, (1, 1, D, H, W), resident."""
    radius = np.sqrt(sum((axis - n / 2) ** 2 for axis, n in zip(np.indices(SHAPE), SHAPE, strict=True)))
    reference = radius < 28.8  # 100 mL
    failure = (abs(radius - 28.8) < 1.5).astype(np.float32)
    failure[10:23, 10:23, 10:22] = 1  # 2 mL far from it
    made = []
    for geometry in patches:
        at = np.round(coordinates(geometry)).astype(int)
        inside = np.all([(a >= 0) & (a < n) for a, n in zip(at, SHAPE, strict=True)], axis=0)
        index = tuple(np.clip(a, 0, n - 1) for a, n in zip(at, SHAPE, strict=True))
        both = (torch.from_numpy((source[index] * inside).astype(np.float32)) for source in (failure, reference))
        shown, tumour = (t[None, None].to(device) for t in both)
        made.append((shown, tumour > 0))
    return made


class DenseMemory(ErrorMemory):
    """The same averages with a block for every voxel: what keeping a whole case costs."""

    def write(self, keys, geometries, values, interest):  # type: ignore[no-untyped-def]
        """Every voxel is of interest."""
        super().write(keys, geometries, values, torch.ones_like(interest))


def main() -> None:
    """Measure."""
    options = arguments(__doc__, patch=128, visits=20, runs=3)
    device = torch.device(options.device)
    patches = geometries(options.patch, options.visits)
    shown = failures(patches, device)
    ours, peer = ErrorMemory(("error",), 1 / 30, device), DenseMemory(("error",), 1 / 30, device)

    def milliseconds(memory: ErrorMemory) -> float:
        started = time.perf_counter()
        for geometry, (failure, tumour) in zip(patches, shown, strict=True):
            memory.read(["case"], [geometry])
            memory.write(["case"], [geometry], {"error": failure}, tumour)
            memory.settle()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return 1000 * (time.perf_counter() - started) / options.visits

    milliseconds(ours)
    milliseconds(peer)
    sizes = {"bytes_per_case": ours.bytes_per_case, "peer_bytes_per_case": peer.bytes_per_case}
    in_turn("memory", "ms", options.runs, lambda: milliseconds(ours), lambda: milliseconds(peer), **sizes)


if __name__ == "__main__":
    main()
