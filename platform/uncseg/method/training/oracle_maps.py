"""q of phantoms on the preprocessed grid, read by patch. Real cases have none."""

from pathlib import Path

import numpy as np
import torch

from uncseg.method.memory.patch_geometry import PatchGeometry


class OracleMaps:
    """CASE.npy files, (D, H, W) float16: each voxel's probability that a rater calls it tumour.

    Args:
        folder: where they lie; it need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.present = folder.is_dir()

    def read(self, keys: list[str], geometries: list[PatchGeometry]) -> torch.Tensor | None:
        """Q of unaugmented patches, (B, 1, D, H, W) float32, 0 beyond the case; None unless all cases have one."""
        files = [self.folder / f"{key}.npy" for key in keys]
        if not self.present or not all(file.is_file() for file in files):
            return None
        patches = []
        for file, geometry in zip(files, geometries, strict=True):
            q = np.load(file, mmap_mode="r")
            patch = np.zeros(geometry.shape, dtype=np.float32)
            box = geometry.bounding_box()
            first = np.round(geometry.offset).astype(int)
            inside = tuple(slice(s.start - f, s.stop - f) for s, f in zip(box, first, strict=True))
            patch[inside] = q[box]
            patches.append(torch.from_numpy(patch))
        return torch.stack(patches)[:, None]
