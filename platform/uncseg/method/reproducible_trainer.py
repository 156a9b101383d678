"""nnU-Net's trainer with the experiment's settings, and reproducible: seeded, its batches a function of their index.

Knows nothing of uncertainty. Each override says what nnU-Net does there.
"""

from typing import Any

import torch
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from nnunetv2.training.logging.nnunet_logger import MetaLogger
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from uncseg.method.batches import INITIALISATION, TRAINING, VALIDATION, BatchStream, LoaderWithGeometry, seeded
from uncseg.method.settings import TrainerSettings


class _LoggerWithoutPlots(MetaLogger):
    def plot_progress_png(self, output_folder: str) -> None:
        """nnU-Net redraws a figure every epoch; the metrics go to MLflow instead."""


class ReproducibleTrainer(nnUNetTrainer):
    """nnU-Net's trainer for one fold; ``settings`` come from the plans."""

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's signature
    ) -> None:
        plans.setdefault("continue_training", False)
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.settings = TrainerSettings.from_plans(plans)
        self.logger = _LoggerWithoutPlots(self.output_folder, False)
        training, model = self.settings.training, self.settings.model
        self.initial_lr = training.initial_lr
        self.weight_decay = training.weight_decay
        self.oversample_foreground_percent = training.oversample_foreground
        self.num_iterations_per_epoch = training.iterations_per_epoch
        self.num_val_iterations_per_epoch = training.val_iterations_per_epoch
        self.num_epochs = training.epochs
        self.save_every = training.checkpoint_every
        # nnU-Net gives the lowest resolution no weight: with one output alone its weights would be 0/0
        outputs = len(self.configuration_manager.pool_op_kernel_sizes) - 1
        self.enable_deep_supervision = model.deep_supervision and outputs > 1

    def initialize(self) -> None:
        """nnU-Net builds network, optimiser and loss here, unseeded; ours start from (seed, fold)."""
        with seeded(self.settings.training.seed, self._fold_number(), INITIALISATION):
            super().initialize()

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        """nnU-Net fixes the momentum at 0.99; ours comes from the experiment."""
        optimizer, scheduler = super().configure_optimizers()
        for group in optimizer.param_groups:
            group["momentum"] = self.settings.training.momentum
        return optimizer, scheduler

    @staticmethod
    def get_training_transforms(*args: Any, **kwargs: Any) -> Any:
        """nnU-Net's blur picks the faster of two algorithms by timing them; a stopwatch must not change a batch."""
        transforms = nnUNetTrainer.get_training_transforms(*args, **kwargs)
        for transform in transforms.transforms:
            inner = getattr(transform, "transform", transform)
            if isinstance(inner, GaussianBlurTransform):
                inner.benchmark = False
        return transforms

    def get_dataloaders(self) -> tuple[BatchStream, BatchStream]:
        """nnU-Net starts its augmenter here, whose order is not reproducible; ours gives batches by index."""
        scales = self._get_deep_supervision_scales()
        rotation, dummy_2d, initial_patch, mirror_axes = (
            self.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        patch = self.configuration_manager.patch_size
        labels = {
            "is_cascaded": self.is_cascaded,
            "foreground_labels": self.label_manager.foreground_labels,
            "regions": self.label_manager.foreground_regions if self.label_manager.has_regions else None,
            "ignore_label": self.label_manager.ignore_label,
        }
        training = self.get_training_transforms(
            patch,
            rotation,
            scales,
            mirror_axes,
            dummy_2d,
            use_mask_for_norm=self.configuration_manager.use_mask_for_norm,
            **labels,
        )
        validation = self.get_validation_transforms(scales, **labels)
        cases_tr, cases_val = self.get_tr_and_val_datasets()
        return (
            self._stream(cases_tr, initial_patch, training, TRAINING, self.num_iterations_per_epoch),
            self._stream(cases_val, patch, validation, VALIDATION, self.num_val_iterations_per_epoch),
        )

    def _stream(self, cases: Any, crop_size: Any, transforms: Any, stage: int, per_epoch: int) -> BatchStream:
        loader = LoaderWithGeometry(
            cases,
            self.batch_size,
            crop_size,
            self.configuration_manager.patch_size,
            self.label_manager,
            oversample_foreground_percent=self.oversample_foreground_percent,
            probabilistic_oversampling=self.probabilistic_oversampling,
            transforms=transforms,
        )
        processes = self.settings.training.loader_processes or 0
        return BatchStream(
            loader,
            seed=self.settings.training.seed,
            fold=self._fold_number(),
            stage=stage,
            first=self.current_epoch * per_epoch,
            processes=processes if stage == TRAINING else min(processes, 1),
            pin_memory=self.device.type == "cuda",
        )

    def _fold_number(self) -> int:
        # nnU-Net's fold "all" trains on everything; SeedSequence wants a whole number ≥ 0
        return int(self.fold) if str(self.fold).isdigit() else 2**31

    def plot_network_architecture(self) -> None:
        """nnU-Net tries to draw the network with a package that is not installed."""

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        """nnU-Net logs the mean loss here; a network that has turned to NaN would train on in vain, so it stops."""
        super().on_train_epoch_end(train_outputs)
        finite = torch.stack([torch.isfinite(p).all() for p in self.network.parameters()]).all()
        if not finite:
            raise FloatingPointError(
                f"the network's weights are not finite after epoch {self.current_epoch}: the training has diverged; "
                "lower training.initial_lr, or give the uncertainty terms a longer loss.warmup_epochs"
            )

    def on_train_end(self) -> None:
        """nnU-Net saves the final checkpoint and stops its own loaders; ours are stopped too."""
        super().on_train_end()
        for stream in (self.dataloader_train, self.dataloader_val):
            stream.close()
