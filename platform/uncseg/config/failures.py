"""What the folds learn from each other's failures, once all are trained."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from uncseg.config.values import Features
from uncseg.section import Positive, Section, Seed, Weight

PatchLength = Annotated[int, Field(ge=8, le=2048)]


LEARNERS = ("perceptron", "trees", "steps")
"""Fields that say what learns from failures, and its size or how long it learns; at most one of them is not 0."""


class Failures(Section):
    """What each fold learns, once all are trained, from failures of the other folds' networks on cases new to them.

    Calibrated p is always fitted; the map ``cross_fitted`` is that of perceptrons (``perceptron``), of boosted trees
    (``trees``) or of a failure network (``steps``): whichever is not 0.
    """

    older: ClassVar[Mapping[str, Any]] = {"evidence": "failure", "perceptron": 0}

    trees: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Boosted trees of each region that learn what voxels look like where decisions on them fail. 0: none."""
    perceptron: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Hidden units, in each of two layers, of a perceptron of each region that learns the same. 0: none."""
    steps: Annotated[int, Field(ge=0, le=10**7)] = 0
    """Optimiser steps of each fold's failure network. 0: none."""
    features: Features = 8
    """Number of feature maps at full resolution, doubled at each stage."""
    stages: Annotated[int, Field(ge=2, le=10)] = 4
    """Largest number of resolution stages."""
    evidence: Literal["failure", "region"] = "region"
    """What the network's output speaks for: that the decision is wrong, or that the voxel belongs to the region, which
    speaks against the decision where that says otherwise."""
    sees_images: bool = True
    """Whether network, perceptron or trees read the images, or the segmentation's probabilities and decisions alone."""
    patch_size: tuple[PatchLength, PatchLength, PatchLength] | None = None
    """Voxels of a patch along each axis, rounded up to what the stages take. None: the segmentation's; of slices, eight
    of them together."""
    batch_size: Annotated[int, Field(gt=0, le=10_000)] = 2
    """Patches per step."""
    initial_lr: Annotated[float, Field(gt=0, le=1000)] = 0.003
    """AdamW's learning rate at the first step, which falls to 0 by nnU-Net's polynomial."""
    weight_decay: Weight = 1e-4
    outside: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Weight of a voxel that is not within 2 voxels of reference or prediction."""
    seed: Seed = 0
    """Seed of the weights and the patches."""
    checkpoint_every: Positive = 200
    """Steps from one checkpoint to the next: the most that a killed worker can lose."""

    @property
    def learns(self) -> bool:
        """Whether folds learn more than calibrated p."""
        return self.steps > 0 or self.from_voxels

    @property
    def from_voxels(self) -> bool:
        """Whether trees or perceptrons are asked for, which learn from features of single voxels."""
        return self.trees > 0 or self.perceptron > 0
