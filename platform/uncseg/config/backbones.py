"""Settings of the networks that carry the outputs, and the patches that they take.

To add a backbone, write its section here, its name and field in :class:`Backbones`, and the network itself in
``method/network/backbones/NAME.py``.
"""

from collections.abc import Sequence
from math import gcd
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from uncseg.section import Positive, Section


class BackboneSettings(Section):
    """Settings of a network of volumes that is not one of nnU-Net's plans."""

    patch_multiple: ClassVar[int]
    """Voxels that each edge of a patch is a multiple of."""
    patches: ClassVar[str]
    """Which patches the network takes, in words."""

    def fitting_patch(self, patch: Sequence[int]) -> list[int]:
        """Return the nearest patch that the network takes, which is the same one if it fits."""
        return [max(1, round(n / self.patch_multiple)) * self.patch_multiple for n in patch]

    def attention(self) -> list[tuple[int, int]]:
        """Return the width of a token and the number of attention heads that share it, per stage."""
        return []

    def problems(self, field: str) -> list[str]:
        """Return what is wrong with these settings, as one line "FIELD what is wrong; what to do" per problem."""
        widths, heads = [list(numbers) for numbers in zip(*self.attention(), strict=True)] or ([], [])
        divisors = [gcd(*pair) for pair in self.attention()]
        if divisors == heads:
            return []
        written, wide, advice = (str(n[0] if len(n) == 1 else n) for n in (heads, widths, divisors))
        return [f"{field}.heads {written} must divide the width of a token, {wide}; set `{field}.heads` to {advice}"]


class SwinUnetr(BackboneSettings):
    """MONAI's Swin UNETR (Hatamizadeh et al. 2022), which needs the extra ``backbones``."""

    patch_multiple = 32
    patches = "multiples of 32 and more than 32 voxels along one axis, since its lowest norm needs more than one voxel"

    feature_size: Annotated[int, Field(gt=0, le=10_000, multiple_of=12)] = 48
    """Number of feature maps of the first stage."""
    depths: tuple[Positive, Positive, Positive, Positive] = (2, 2, 2, 2)
    """Number of transformer blocks per stage."""
    heads: tuple[Positive, Positive, Positive, Positive] = (3, 6, 12, 24)
    """Number of attention heads per stage."""

    def fitting_patch(self, patch: Sequence[int]) -> list[int]:
        """Return the nearest patch that the network takes."""
        nearest = super().fitting_patch(patch)
        if nearest and max(nearest) == self.patch_multiple:
            nearest[0] = 2 * self.patch_multiple
        return nearest

    def attention(self) -> list[tuple[int, int]]:
        """Return each stage's width, twice that of the stage before, and its heads."""
        return [(self.feature_size * 2**stage, heads) for stage, heads in enumerate(self.heads)]


class TransBts(BackboneSettings):
    """TransBTS (Wang et al. 2021)."""

    patch_multiple = 8
    patches = "multiples of 8"

    base_features: Annotated[int, Field(gt=0, le=10_000, multiple_of=8)] = 16
    """Number of feature maps of the first stage."""
    embedding: Positive = 512
    """Width of the transformer's tokens."""
    layers: Positive = 4
    """Number of transformer layers."""
    heads: Positive = 8
    """Number of attention heads per layer."""
    hidden: Positive = 4096
    """Width inside the transformer's feed-forward layers."""

    def attention(self) -> list[tuple[int, int]]:
        """Return the width and the heads that all layers have."""
        return [(self.embedding, self.heads)]


class Backbones(Section):
    """Which network carries the outputs, and the settings of each that can be chosen."""

    backbone: Literal["plans", "swin_unetr", "transbts"] = "plans"
    """plans: the network of nnU-Net's plans, its U-Net or, with plan.preset, its residual one."""
    swin_unetr: SwinUnetr = SwinUnetr()
    transbts: TransBts = TransBts()

    @property
    def backbone_settings(self) -> BackboneSettings | None:
        """Settings of the chosen network; None for the one of nnU-Net's plans."""
        return None if self.backbone == "plans" else getattr(self, self.backbone)
