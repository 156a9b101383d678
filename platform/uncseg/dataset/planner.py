"""nnU-Net's planner with the experiment's options. Without options its plans are nnU-Net's own.

Importing this module takes seconds (it imports nnU-Net and torch).
"""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.experiment_planners.residual_unets import residual_encoder_unet_planners as resenc
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.json_export import recursive_fix_for_json_export

from uncseg.config.sections import Plan
from uncseg.errors import Problem, ProblemsFound
from uncseg.files import json_text, write_text

MIN_PATCH_EDGE = 8  # nnU-Net halves down to 4 voxels, and a network needs at least one halving


class OptionsPlanner(ExperimentPlanner):
    """nnU-Net's ExperimentPlanner, whose choices an experiment can replace.

    Args:
        dataset_name: nnU-Net's; its raw folder and fingerprint must exist.
        options: what to replace.
    """

    def __init__(self, dataset_name: str, options: Plan) -> None:
        spacing = None if options.target_spacing_mm is None else [float(v) for v in options.target_spacing_mm]
        # without it nnU-Net takes the preset's own
        memory = {} if options.memory_target_gib is None else {"gpu_memory_target_in_gb": options.memory_target_gib}
        super().__init__(dataset_name, plans_name="nnUNetPlans", overwrite_target_spacing=spacing, **memory)
        self.options = options
        if options.base_features is not None:
            self.UNet_base_num_features = options.base_features
        if options.max_features is not None:
            self.UNet_max_features_2d = self.UNet_max_features_3d = options.max_features
        if options.patch_size is not None:
            # a small patch would make nnU-Net plan a low-resolution cascade too
            self.lowres_creation_threshold = 0

    def get_plans_for_configuration(
        self, spacing: Any, median_shape: Any, data_identifier: str, approximate_n_voxels_dataset: float, _cache: dict
    ) -> dict:
        """Let nnU-Net choose patch, batch and network, and replace what the options name."""
        chosen = data_identifier == self.generate_data_identifier(self.options.configuration)
        patch = self.options.patch_size if chosen else None
        if patch is not None and min(patch) < MIN_PATCH_EDGE:
            expected = f"at least {MIN_PATCH_EDGE} voxels along each axis"
            raise _patch_error(patch, expected, np.maximum(patch, MIN_PATCH_EDGE))
        # nnU-Net starts from a patch of the median shape: given the patch instead, it plans network and batch for it
        shape = median_shape if patch is None else np.array(patch)
        others = data_identifier, approximate_n_voxels_dataset, _cache
        plan: dict = super().get_plans_for_configuration(spacing, shape, *others)
        plan["median_image_size_in_voxels"] = median_shape
        if chosen:
            self._apply(plan)
        return plan

    def _apply(self, plan: dict) -> None:
        options, arch = self.options, plan["architecture"]["arch_kwargs"]
        if options.max_stages is not None and arch["n_stages"] > options.max_stages:
            _keep_stages(arch, options.max_stages)
        if options.patch_size is not None:
            self._check_patch(options.patch_size, plan["patch_size"], np.prod(arch["strides"], axis=0))
            plan["patch_size"] = list(options.patch_size)
        if options.batch_size is not None:
            plan["batch_size"] = options.batch_size

    def _check_patch(self, patch: tuple[int, ...], planned: Any, stride: np.ndarray) -> None:
        if np.any(np.array(planned) < patch):
            expected = f"a patch that nnU-Net estimates at {self.UNet_vram_target_GB:g} GiB (plan.memory_target_gib)"
            raise _patch_error(patch, expected, np.array(planned), ", or a larger plan.memory_target_gib")
        if np.any(np.array(patch) % stride):
            nearest = np.maximum(1, np.round(np.array(patch) / stride)) * stride
            expected = f"multiples of the network's total stride {stride.tolist()}"
            raise _patch_error(patch, expected, nearest.astype(int), ", or fewer plan.max_stages")

    def save_plans(self, plans: dict) -> None:
        """Write a new file at once; nnU-Net writes in place and keeps configurations of an older file.

        The planner is recorded under nnU-Net's name, by which its own commands find the class.
        """
        plans["experiment_planner_used"] = type(self).mro()[2 if self.options.preset else 1].__name__
        recursive_fix_for_json_export(plans)
        target = Path(nnUNet_preprocessed) / self.dataset_name / f"{self.plans_identifier}.json"
        write_text(target, json_text(plans, indent=4))


class _ResEncM(OptionsPlanner, resenc.nnUNetPlannerResEncM):
    pass


class _ResEncL(OptionsPlanner, resenc.nnUNetPlannerResEncL):
    pass


class _ResEncXL(OptionsPlanner, resenc.nnUNetPlannerResEncXL):
    pass


PLANNERS = {None: OptionsPlanner, "resenc_m": _ResEncM, "resenc_l": _ResEncL, "resenc_xl": _ResEncXL}


def _keep_stages(arch: dict, stages: int) -> None:
    arch["n_stages"] = stages
    for name in ("features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage", "n_blocks_per_stage"):
        if name in arch:
            arch[name] = arch[name][:stages]
    arch["n_conv_per_stage_decoder"] = arch["n_conv_per_stage_decoder"][: stages - 1]


def _patch_error(patch: tuple[int, ...], expected: str, nearest: np.ndarray, otherwise: str = "") -> ProblemsFound:
    problem = Problem("plan.patch_size", str(list(patch)), expected, f"set it to {nearest.tolist()}{otherwise}")
    return ProblemsFound("The experiment cannot be planned.", [problem])


def plan_dataset(dataset_name: str, options: Plan, environment: Mapping[str, str]) -> None:
    """Write nnUNetPlans.json (and nnU-Net's copy of dataset.json) from the fingerprint, without output.

    ``environment`` holds the variables that tell nnU-Net its folders; they are set in this process.

    Raises:
        ProblemsFound: ``plan.patch_size`` does not fit the network or the memory target.
    """
    os.environ.update(environment)
    # nnU-Net gives torch as many threads: with 0, which a training has set in this process before, it would fail
    os.environ["nnUNet_n_proc_DA"] = "1"  # noqa: SIM112 - nnU-Net's name
    with contextlib.redirect_stdout(None):
        PLANNERS[options.preset](dataset_name, options).plan_experiment()
