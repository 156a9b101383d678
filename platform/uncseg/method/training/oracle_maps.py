"""A phantom's oracle q on the preprocessed grid, read per patch. Real cases have none."""

from pathlib import Path

import numpy as np
import torch

from uncseg.method.memory.patch_geometry import PatchGeometry


class OracleMaps:
    """Files CASE.npy, (D, H, W) float16: the probability that a rater calls a voxel tumour.

    Args:
        folder: where the files are; it need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.present = folder.is_dir()

    def read(self, keys: list[str], geometries: list[PatchGeometry]) -> torch.Tensor | None:
        """Read q of unaugmented patches, (B, 1, D, H, W) float32, 0 beyond the case; None if a case has none."""
        files = [self.folder / f"{key}.npy" for key in keys]
        if not self.present or not all(file.is_file() for file in files):
            return None
        patches = []
        for file, geometry in zip(files, geometries, strict=True):
            patch, box = np.zeros(geometry.shape, dtype=np.float32), geometry.bounding_box()
            patch[geometry.slices_of(box)] = np.load(file, mmap_mode="r")[box]
            patches.append(torch.from_numpy(patch))
        return torch.stack(patches)[:, None]
