"""An error memory for each place in the batch, as a public trainer with the paper's function names keeps it.

It is wrong on purpose, for the study of the paper's figures: it averages over whatever anatomy the patches show.
"""

from collections.abc import Mapping, Sequence

import torch

from uncseg.method.memory.error_memory import ErrorMemory, Reading
from uncseg.method.memory.patch_geometry import Box, PatchGeometry


class SlotMemory(ErrorMemory):
    """One memory for each place in the batch, in patch coordinates, whatever case and anatomy the patch shows."""

    def read(self, keys: Sequence[str], geometries: Sequence[PatchGeometry]) -> Reading:
        """Read the averages of the places in the batch, (B, 1, *patch)."""
        return super().read(_slots(keys), [_in_place(geometry) for geometry in geometries])

    def write(
        self,
        keys: Sequence[str],
        geometries: Sequence[PatchGeometry],
        values: Mapping[str, torch.Tensor],
        interest: torch.Tensor,
    ) -> None:
        """Start one more visit of each place, arguments as of :meth:`ErrorMemory.write`; all voxels are remembered."""
        places = [_in_place(geometry) for geometry in geometries]
        super().write(_slots(keys), places, values, torch.ones_like(interest))

    def read_box(self, key: str, box: Box) -> Reading:  # noqa: ARG002
        """Return all 0, not visited: nothing is known of a place in a case."""
        nothing = torch.zeros((1, 1, *(s.stop - s.start for s in box)), device=self.device)
        return Reading(dict.fromkeys(self.names, nothing), nothing)


def _slots(keys: Sequence[str]) -> list[str]:
    return [f"slot {number}" for number in range(len(keys))]


def _in_place(geometry: PatchGeometry) -> PatchGeometry:
    return PatchGeometry.from_crop([0, 0, 0], geometry.shape, geometry.shape)
