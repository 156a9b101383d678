"""What a fold has learnt from the failures of the other folds: calibrated p, and what it does not know. One file each.

model = FailureModel.load(run.learnt_failures(fold))
failures = model.failures(images, logits, decisions)   # P(wrong) of each region; None without more
"""

import contextlib
import math
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from uncseg.config.failures import Failures
from uncseg.dataset.finite import require_finite
from uncseg.errors import Problem, ProblemsFound, first_line
from uncseg.files import whole_file
from uncseg.method.checkpoints import load_torch_file
from uncseg.method.failures.calibration import Calibration, calibrated_logits
from uncseg.method.failures.failure_map import failure_map
from uncseg.method.failures.failure_network import FailureNetwork
from uncseg.method.failures.failure_trees import Trees
from uncseg.method.failures.perceptron import Perceptron
from uncseg.method.failures.voxel_features import HOST
from uncseg.method.failures.voxel_map import EVERYTHING, Asked, VoxelLearner, voxel_map

Result = TypeVar("Result")
KEYS = ("calibrations", "settings", "grid", "network_weights")
SLICES_TOGETHER = 8
"""Slices of a patch where the segmentation's network sees one at a time."""


@dataclass(frozen=True)
class Grid:
    """The grid on which a failure network works.

    Args:
        channels: of the images.
        patch: voxels along each axis of the segmentation's patch; two axes of a network of slices.
        spacing_mm: along the three axes.
    """

    channels: int
    patch: tuple[int, ...]
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True)
class FailureModel:
    """Calibrated p of each region, and, where the folds learn more, a network, boosted trees or perceptrons."""

    calibrations: tuple[Calibration, ...]
    settings: Failures
    grid: Grid
    network: FailureNetwork | None = None
    trees: tuple[str, ...] = ()
    """Of each region, as :func:`~uncseg.method.failures.failure_trees.fit_trees` returns them; empty: none."""
    perceptrons: tuple[Perceptron | None, ...] = ()
    """Of each region, as :func:`~uncseg.method.failures.perceptron.fit_perceptron` returns them; empty: none."""

    @property
    def learns(self) -> bool:
        """Whether there is more than calibrated p."""
        return self.network is not None or bool(self.voxel_learners)

    @property
    def voxel_learners(self) -> tuple[VoxelLearner | None, ...]:
        """What has learnt from features of single voxels, of each region; empty: nothing."""
        return self.perceptrons or tuple(Trees(text) if text else None for text in self.trees)

    def build(self, seed: int) -> FailureNetwork:
        """Return a network with fresh weights, drawn from a seed."""
        settings, grid = self.settings, self.grid
        patch = settings.patch_size or (SLICES_TOGETHER, *grid.patch)[-3:]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return FailureNetwork(
                grid.channels,
                self.calibrations,
                patch,
                grid.spacing_mm,
                settings.features,
                settings.stages,
                settings.sees_images,
                settings.evidence,
            )

    def failures(
        self,
        images: np.ndarray,
        logits: np.ndarray,
        decisions: np.ndarray,
        tile_step: float = 0.5,
        asked: Asked = EVERYTHING,
    ) -> np.ndarray | None:
        """Return P(wrong) of each region by what is learnt beyond calibrated p, (R, D, H, W) float32; None without.

        It is computed on this process's GPU, or on the CPU where there is none or too little memory.
        Arguments as in :func:`~uncseg.method.failures.failure_map.failure_map`; trees and perceptrons compute what is
        ``asked`` alone.

        Raises:
            NotFinite: the map is not finite.
        """
        if not self.learns:
            return None
        found = on_fitting_device(lambda device: self._map(device, images, logits, decisions, tile_step, asked))
        require_finite(found, "map cross_fitted", "delete failures.json of the fold: it learns anew")
        return found

    def _map(
        self,
        device: torch.device,
        images: np.ndarray,
        logits: np.ndarray,
        decisions: np.ndarray,
        tile_step: float,
        asked: Asked,
    ) -> np.ndarray:
        if self.network is not None:
            return failure_map(self.network.to(device), images, logits, decisions, tile_step)
        learners = [one.to(device) if isinstance(one, Perceptron) else one for one in self.voxel_learners]
        given = images, logits, decisions, self.settings.sees_images
        return voxel_map(learners, self.calibrations, *given, asked, device)

    def calibrated(self, logits: np.ndarray, decisions: np.ndarray) -> np.ndarray:
        """Return calibrated p of each region: P(wrong), (R, D, H, W) float32; arguments of this shape too."""
        told = torch.from_numpy(logits.astype(np.float32)), torch.from_numpy(decisions)
        return calibrated_logits(self.calibrations, *told).sigmoid().numpy()

    def save(self, file: Path) -> None:
        """Write the model, whole or not at all."""
        content: dict[str, Any] = {
            "calibrations": [astuple(calibration) for calibration in self.calibrations],
            "settings": self.settings.model_dump(mode="json"),
            "grid": {
                "channels": self.grid.channels,
                "patch": list(self.grid.patch),
                "spacing_mm": list(self.grid.spacing_mm),
            },
            "network_weights": None if self.network is None else self.network.cpu().state_dict(),
            "trees": list(self.trees),
            "perceptrons": [None if one is None else one.cpu().state_dict() for one in self.perceptrons],
        }
        # torch writes a file's name into it: given one, the same weights would differ
        with whole_file(file) as temporary, temporary.open("wb") as stream:
            torch.save(content, stream)

    @classmethod
    def load(cls, file: Path) -> "FailureModel":
        """Read a model, onto the CPU.

        Raises:
            ProblemsFound: as :func:`~uncseg.method.checkpoints.load_torch_file`; or it was written by another version.
        """
        content = load_torch_file(file, KEYS)
        try:
            return cls._of(content)
        except (ValueError, KeyError, TypeError, RuntimeError) as error:  # pydantic's, and of other shapes
            found, advice = first_line(error), "delete it, and give uncseg evaluate for the run again"
            problem = Problem(str(file), found, "what this version of uncseg writes", advice)
            raise ProblemsFound("What a fold has learnt cannot be read.", [problem], exit_code=1) from error

    @classmethod
    def _of(cls, content: dict[str, Any]) -> "FailureModel":
        grid = content["grid"]
        z, y, x = map(float, grid["spacing_mm"])
        model = cls(
            tuple(Calibration(*map(_finite, numbers)) for numbers in content["calibrations"]),
            Failures.model_validate({**Failures.older} | content["settings"]),
            Grid(int(grid["channels"]), tuple(map(int, grid["patch"])), (z, y, x)),
            trees=tuple(map(str, content.get("trees", ()))),
            perceptrons=tuple(None if one is None else Perceptron.of(one) for one in content.get("perceptrons", ())),
        )
        if content["network_weights"] is None:
            return model
        network = model.build(seed=0)
        network.load_state_dict(content["network_weights"])
        return cls(model.calibrations, model.settings, model.grid, network.eval())


def fitting_device() -> torch.device:
    """Return the GPU of this process, or the CPU where it has none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def on_fitting_device(work: Callable[[torch.device], Result]) -> Result:
    """Return what ``work`` makes on :func:`fitting_device`, or on the CPU where that has too little memory."""
    with contextlib.suppress(torch.cuda.OutOfMemoryError):
        return work(fitting_device())
    torch.cuda.empty_cache()  # here nothing holds what was begun any more
    return work(HOST)


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError(f"calibrated p with {number}")
    return float(number)
