"""The memory in patch coordinates: wrong on purpose, for one study.

It averages over whatever anatomy the patches of a case happened to show, in the patch's own grid. It shows what
figures such an average produces; nothing else uses it.
"""

from collections.abc import Mapping, Sequence

import torch

from uncseg.config.sections import Memory
from uncseg.method.memory.error_memory import CPU, ErrorMemory, Reading
from uncseg.method.memory.patch_geometry import Box, PatchGeometry


class PatchFrameMemory(ErrorMemory):
    """An error memory that takes every patch to lie at the same place, unturned and unmirrored."""

    def read(self, keys: Sequence[str], geometries: Sequence[PatchGeometry]) -> Reading:
        """Averages on the patches' grids, wherever the patches lie."""
        return super().read(keys, [_own_frame(geometry) for geometry in geometries])

    def read_box(self, key: str, box: Box) -> Reading:  # noqa: ARG002
        """Nothing is known about a place in a case: all 0, not visited."""
        nothing = torch.zeros((1, 1, *(s.stop - s.start for s in box)), device=self.device)
        return Reading(dict.fromkeys(self.names, nothing), nothing)

    def write(
        self,
        keys: Sequence[str],
        geometries: Sequence[PatchGeometry],
        values: Mapping[str, torch.Tensor],
        interest: torch.Tensor,
    ) -> None:
        """One more visit of the patch's grid, wherever the patch lies."""
        super().write(keys, [_own_frame(geometry) for geometry in geometries], values, interest)


def _own_frame(geometry: PatchGeometry) -> PatchGeometry:
    return PatchGeometry.of_crop([0, 0, 0], geometry.shape, geometry.shape)


def make_memory(settings: Memory, names: tuple[str, ...], device: torch.device = CPU) -> ErrorMemory:
    """The memory that an experiment asks for; with the arguments of :class:`ErrorMemory`."""
    kind = PatchFrameMemory if settings.coordinates == "patch" else ErrorMemory
    return kind(names, settings.alpha, device)
