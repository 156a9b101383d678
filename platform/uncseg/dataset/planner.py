"""nnU-Net's planner with the experiment's options. With none set, its plans are nnU-Net's own."""

import contextlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner

from uncseg.config import Plan
from uncseg.errors import Problem, ProblemsFound


class OptionsPlanner(ExperimentPlanner):
    """ExperimentPlanner whose choices an experiment can replace.

    Args:
        dataset_name: nnU-Net's, its raw folder and fingerprint in place.
        options: what to replace.
    """

    def __init__(self, dataset_name: str, options: Plan) -> None:
        spacing = None if options.target_spacing_mm is None else [float(v) for v in options.target_spacing_mm]
        super().__init__(
            dataset_name, gpu_memory_target_in_gb=options.memory_target_gib, overwrite_target_spacing=spacing
        )
        self.options = options
        if options.base_features is not None:
            self.UNet_base_num_features = options.base_features
        if options.max_features is not None:
            self.UNet_max_features_2d = self.UNet_max_features_3d = options.max_features

    def get_plans_for_configuration(
        self, spacing: Any, median_shape: Any, data_identifier: str, approximate_n_voxels_dataset: float, _cache: dict
    ) -> dict:
        """nnU-Net decides patch, batch and network here; the options replace what they name."""
        plan = super().get_plans_for_configuration(
            spacing, median_shape, data_identifier, approximate_n_voxels_dataset, _cache
        )
        if data_identifier == self.generate_data_identifier(self.options.configuration):
            self._apply(plan)
        return plan

    def _apply(self, plan: dict) -> None:
        options, arch = self.options, plan["architecture"]["arch_kwargs"]
        if options.max_stages is not None and arch["n_stages"] > options.max_stages:
            _keep_stages(arch, options.max_stages)
        if options.patch_size is not None:
            stride = np.prod(arch["strides"], axis=0)
            _check_patch(options.patch_size, stride)
            plan["patch_size"] = list(options.patch_size)
        if options.batch_size is not None:
            plan["batch_size"] = options.batch_size


def _keep_stages(arch: dict, stages: int) -> None:
    arch["n_stages"] = stages
    for name in ("features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage"):
        arch[name] = arch[name][:stages]
    arch["n_conv_per_stage_decoder"] = arch["n_conv_per_stage_decoder"][: stages - 1]


def _check_patch(patch_size: tuple[int, ...], stride: np.ndarray) -> None:
    if all(size % step == 0 and size >= 2 * step for size, step in zip(patch_size, stride, strict=True)):
        return
    nearest = [max(2 * int(s), round(size / s) * int(s)) for size, s in zip(patch_size, stride, strict=True)]
    problem = Problem(
        "plan.patch_size",
        str(list(patch_size)),
        f"multiples of the network's total stride {[int(s) for s in stride]}, at least twice it",
        f"write {nearest}, or fewer plan.max_stages",
    )
    raise ProblemsFound("The experiment cannot be planned.", [problem])


def plan_dataset(dataset_name: str, options: Plan, environment: Mapping[str, str]) -> None:
    """Write nnUNetPlans.json (and nnU-Net's copy of dataset.json) from the fingerprint, quietly.

    Args:
        dataset_name: nnU-Net's.
        options: what to replace of nnU-Net's choices.
        environment: where nnU-Net's folders are, set in this process.

    Raises:
        ProblemsFound: where ``plan.patch_size`` does not fit the network.
    """
    os.environ.update(environment)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # noqa: PTH123
        OptionsPlanner(dataset_name, options).plan_experiment()
