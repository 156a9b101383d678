"""Names inside nnU-Net, and inside the libraries below it, that are no part of their interfaces.

Any release may change them. Every such name that this package overrides, sets or reads is listed in ``INTERNALS``, and
``tests/method/test_nnunet_internals.py`` names those that a new version no longer has. Where a function can hide a
name, it stands here; an overridden method stands in its subclass.
"""

import importlib
from contextlib import nullcontext
from typing import Any, NamedTuple

_TRAINER = "nnunetv2.training.nnUNetTrainer.nnUNetTrainer:nnUNetTrainer"
_PREDICTOR = "nnunetv2.inference.predict_from_raw_data:nnUNetPredictor"
_LOADER = "nnunetv2.training.dataloading.data_loader:nnUNetDataLoader"
_PLANNER = "nnunetv2.experiment_planning.experiment_planners.default_experiment_planner:ExperimentPlanner"
_SPATIAL = "batchgeneratorsv2.transforms.spatial.spatial:SpatialTransform"


class Internal(NamedTuple):
    """A name that another library may change without notice."""

    owner: str
    """MODULE or MODULE:CLASS."""
    name: str
    """A method, an attribute, or a key that the owner's source spells."""
    parameters: tuple[str, ...] | None = None
    """Parameters of a method, without self; None: no method."""


INTERNALS = (
    Internal(_TRAINER, "_do_i_compile", ()),
    Internal(_TRAINER, "_set_batch_size_and_oversample", ()),
    Internal(_TRAINER, "_build_loss", ()),
    Internal(_TRAINER, "_get_deep_supervision_scales", ()),
    *(
        Internal(_TRAINER, name)
        for name in (
            "continue_training",
            "is_ddp",
            "device",
            "logger",
            "initial_lr",
            "weight_decay",
            "oversample_foreground_percent",
            "num_iterations_per_epoch",
            "num_val_iterations_per_epoch",
            "num_epochs",
            "save_every",
            "enable_deep_supervision",
            "grad_scaler",
            "disable_checkpointing",
            "dice_per_class_or_region",
        )
    ),
    Internal("nnunetv2.training.loss.deep_supervision:DeepSupervisionWrapper", "loss"),
    Internal("nnunetv2.training.loss.compound_losses:DC_and_CE_loss", "ce"),
    Internal(_PREDICTOR, "_internal_predict_sliding_window_return_logits", ("data", "slicers", "do_on_device")),
    Internal(_PREDICTOR, "_internal_maybe_mirror_and_predict", ("x",)),
    Internal("batchgenerators.dataloading.data_loader:DataLoader", "_data"),
    Internal(_LOADER, "get_do_oversample"),
    Internal("nnunetv2.training.dataloading.data_loader", "threadpool_limits"),
    *(
        Internal(_SPATIAL, name)
        for name in ("patch_size", "grid", "affine", "elastic_offsets", "center_location_in_pixels")
    ),
    Internal("batchgeneratorsv2.transforms.noise.gaussian_blur:GaussianBlurTransform", "benchmark"),
    Internal("batchgeneratorsv2.transforms.utils.compose:ComposeTransforms", "transforms"),
    Internal("batchgeneratorsv2.transforms.utils.random:RandomTransform", "transform"),
    *(
        Internal(_PLANNER, name)
        for name in (
            "UNet_base_num_features",
            "UNet_max_features_2d",
            "UNet_max_features_3d",
            "UNet_vram_target_GB",
            "lowres_creation_threshold",
            "plans_identifier",
        )
    ),
    Internal("numpy._core.multiarray", "scalar"),
    Internal("numpy._core.multiarray", "_reconstruct"),
    Internal("torch.random", "default_generator"),
    Internal("torch._dynamo.eval_frame:OptimizedModule", "_orig_mod"),
)


def array_constructors() -> list[Any]:
    """Return the functions with which pickle rebuilds NumPy's arrays and numbers, under their new and old names."""
    multiarray = importlib.import_module("numpy._core.multiarray")
    functions = [(getattr(multiarray, name), name) for name in ("scalar", "_reconstruct")]
    return [item for f, name in functions for item in (f, (f, f"numpy.core.multiarray.{name}"))]


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
