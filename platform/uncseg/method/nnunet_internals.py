"""Names inside nnU-Net, and inside the libraries below it, that are no part of their interfaces.

Any release may change them. Every such name that this package overrides, sets or reads is listed in ``INTERNALS``, and
``tests/method/test_nnunet_internals.py`` names those that a new version no longer has. Where a function can hide a
name, it stands here; an overridden method stands in its subclass.
"""

import importlib
from contextlib import nullcontext
from typing import Any, NamedTuple

from torch import nn

_TRAINER = "nnunetv2.training.nnUNetTrainer.nnUNetTrainer:nnUNetTrainer"
_PREDICTOR = "nnunetv2.inference.predict_from_raw_data:nnUNetPredictor"


FOUND_INFINITY = "Encountered inf in predicted array"
"""How the RuntimeError begins that nnU-Net's predictor raises for infinite logits."""


class Internal(NamedTuple):
    """A name that another library may change without notice."""

    owner: str
    """MODULE or MODULE:CLASS."""
    name: str
    """A method, an attribute, or a key that the owner's source spells."""
    parameters: tuple[str, ...] | None = None
    """Parameters of a method, without self; None: no method."""


_OVERRIDDEN: dict[str, dict[str, tuple[str, ...]]] = {
    _TRAINER: dict.fromkeys(
        ("_do_i_compile", "_set_batch_size_and_oversample", "_build_loss", "_get_deep_supervision_scales"), ()
    ),
    _PREDICTOR: {
        "_internal_predict_sliding_window_return_logits": ("data", "slicers", "do_on_device"),
        "_internal_maybe_mirror_and_predict": ("x",),
    },
}
"""Methods that are overridden or called, with their parameters."""
_READ = {
    _TRAINER: "is_ddp device logger initial_lr weight_decay oversample_foreground_percent num_iterations_per_epoch "
    "num_val_iterations_per_epoch num_epochs save_every enable_deep_supervision grad_scaler disable_checkpointing "
    "continue_training dice_per_class_or_region dataset_class",
    "nnunetv2.training.loss.deep_supervision:DeepSupervisionWrapper": "loss",
    "nnunetv2.training.loss.compound_losses:DC_and_CE_loss": "ce",
    "nnunetv2.training.dataloading.data_loader": "threadpool_limits",
    "nnunetv2.training.dataloading.data_loader:nnUNetDataLoader": "get_do_oversample",
    "nnunetv2.experiment_planning.experiment_planners.default_experiment_planner:ExperimentPlanner": (
        "UNet_base_num_features UNet_max_features_2d UNet_max_features_3d UNet_vram_target_GB plans_identifier "
        "lowres_creation_threshold"
    ),
    "batchgenerators.dataloading.data_loader:DataLoader": "_data",
    "batchgeneratorsv2.transforms.spatial.spatial:SpatialTransform": (
        "patch_size grid affine elastic_offsets center_location_in_pixels"
    ),
    "batchgeneratorsv2.transforms.noise.gaussian_blur:GaussianBlurTransform": "benchmark",
    "batchgeneratorsv2.transforms.utils.compose:ComposeTransforms": "transforms",
    "batchgeneratorsv2.transforms.utils.random:RandomTransform": "transform",
    "numpy._core.multiarray": "scalar _reconstruct",
    "torch.random": "default_generator",
    "torch._dynamo.eval_frame:OptimizedModule": "_orig_mod",
}
"""Attributes and keys that are read or set."""
INTERNALS = (
    Internal(_PREDICTOR, FOUND_INFINITY),
    *(Internal(owner, name, given) for owner, methods in _OVERRIDDEN.items() for name, given in methods.items()),
    *(Internal(owner, name) for owner, names in _READ.items() for name in names.split()),
)


def array_constructors() -> list[Any]:
    """Return the functions with which pickle rebuilds NumPy's arrays and numbers, under their new and old names."""
    multiarray = importlib.import_module("numpy._core.multiarray")
    functions = [(getattr(multiarray, name), name) for name in ("scalar", "_reconstruct")]
    return [item for f, name in functions for item in (f, (f, f"numpy.core.multiarray.{name}"))]


def unwrapped(network: nn.Module) -> nn.Module:
    """Return a network without the wrappers of torch.compile and of DistributedDataParallel."""
    network = getattr(network, "module", network)
    inner = getattr(network, "_orig_mod", network)
    assert isinstance(inner, nn.Module)
    return inner


def limit_threads_once() -> None:
    """Give each library of this process one thread, for good.

    nnU-Net's loader does so for every batch, and each time reads the map of the process's memory, which takes a
    seventh of a batch's time on small patches. It looks the function up in its own module, so we replace it with a
    no-op there.
    """
    loader = importlib.import_module("nnunetv2.training.dataloading.data_loader")
    loader.threadpool_limits(limits=1)
    loader.threadpool_limits = lambda **_: nullcontext()  # type: ignore[attr-defined]


def without_timed_choices(transforms: Any) -> Any:
    """Keep nnU-Net's blur from timing two algorithms to take the faster: the clock must not change a batch."""
    blur = importlib.import_module("batchgeneratorsv2.transforms.noise.gaussian_blur").GaussianBlurTransform
    for transform in transforms.transforms:
        inner = getattr(transform, "transform", transform)
        if isinstance(inner, blur):
            inner.benchmark = False
    return transforms
