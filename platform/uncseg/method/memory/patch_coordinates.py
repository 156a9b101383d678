"""The error memory in patch coordinates: wrong on purpose, for one study.

It averages over whatever anatomy the patches of a case happened to show, on the patch's own grid. The study shows what
figures such an average produces; nothing else uses it.
"""

import torch

from uncseg.config.sections import Memory
from uncseg.method.memory.error_memory import CPU, ErrorMemory, Reading
from uncseg.method.memory.patch_geometry import Box, PatchGeometry


class PatchCoordinateMemory(ErrorMemory):
    """An error memory that takes every patch to lie at the same place, neither turned nor mirrored."""

    def place(self, geometry: PatchGeometry) -> PatchGeometry:
        """Return the same place for all patches."""
        return PatchGeometry.from_crop([0, 0, 0], geometry.shape, geometry.shape)

    def read_box(self, key: str, box: Box) -> Reading:  # noqa: ARG002
        """Return all 0, not visited: nothing is known of a place in a case."""
        nothing = torch.zeros((1, 1, *(s.stop - s.start for s in box)), device=self.device)
        return Reading(dict.fromkeys(self.names, nothing), nothing)


def make_memory(settings: Memory, names: tuple[str, ...], device: torch.device = CPU) -> ErrorMemory:
    """Make the error memory that an experiment asks for; arguments as of :class:`ErrorMemory`."""
    kind = PatchCoordinateMemory if settings.coordinates == "patch" else ErrorMemory
    return kind(names, settings.alpha, device)
