"""nnU-Net's trainer with the experiment's settings, made reproducible: seeded, its batches a function of their index.

It knows nothing of uncertainty. The docstring of each override says what nnU-Net does there.
"""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.logging.nnunet_logger import MetaLogger
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn
from torch.amp import GradScaler
from torch.nn.parallel import DistributedDataParallel

from uncseg.dataset.prepared_cases import PreparedCases
from uncseg.errors import Problem, ProblemsFound
from uncseg.method.checkpoints import keep_best_and_final
from uncseg.method.distributed_fold import process_count
from uncseg.method.nnunet_internals import without_timed_choices
from uncseg.method.settings import TrainerSettings
from uncseg.method.training import batches
from uncseg.method.training.averaged_weights import AveragedWeights
from uncseg.method.training.skipped_batches import SkippedBatches

GRADIENT_NORM = 12  # nnU-Net's


def require_fitting_labels(dataset_json: dict[str, Any], labels: Any, settings: TrainerSettings) -> None:
    """Refuse a dataset.json whose labels or regions are others than the task's, or in another order.

    Args:
        labels: nnU-Net's reader of dataset.json.

    Raises:
        ProblemsFound: they would be taken for those of the task.
    """
    task, outputs = settings.task, settings.outputs
    parts = labels.foreground_regions if labels.has_regions else labels.foreground_labels
    found = [set(np.atleast_1d(part).tolist()) for part in parts]
    own = outputs.regions if outputs.kind == "regions" else [(number,) for number in task.labels.values()]
    if found != [set(numbers) for numbers in own]:
        numbers = task.numbers if outputs.kind == "regions" else task.labels
        expected = f"the {outputs.kind} of task {task.name}: {numbers}"
        advice = "prepare the cases again, or train with the plans that uncseg wrote for this dataset"
        problem = Problem("dataset.json", f"labels {dataset_json['labels']}", expected, advice)
        raise ProblemsFound("The fold cannot be trained.", [problem])


class _LoggerWithoutPlots(MetaLogger):
    def plot_progress_png(self, output_folder: str) -> None:
        """nnU-Net redraws a plot every epoch; here MLflow shows the metrics instead."""


class ReproducibleTrainer(nnUNetTrainer):
    """nnU-Net's trainer for one fold; ``settings`` come from the plans."""

    is_ddp: bool
    network: nn.Module
    averaged: AveragedWeights | None = None

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's signature, whose names it reads
    ) -> None:
        plans.setdefault("continue_training", False)
        super().__init__(plans, configuration, fold, dataset_json, device)
        if self.is_ddp:
            # nnU-Net takes the GPU numbered like the rank: on several nodes, or without GPUs, a wrong one or none
            self.device = torch.device("cuda", torch.cuda.current_device()) if device.type == "cuda" else device
        self.settings = TrainerSettings.from_plans(plans)
        self.outputs = self.settings.outputs
        require_fitting_labels(dataset_json, self.label_manager, self.settings)
        self.main = slice(self.outputs.main, self.outputs.main + 1)  # among the regions
        self.logger = _LoggerWithoutPlots(self.output_folder, False)
        training = self.settings.training
        self.initial_lr, self.weight_decay = training.initial_lr, training.weight_decay
        self.oversample_foreground_percent = training.oversample_foreground
        self.num_iterations_per_epoch = training.iterations_per_epoch
        self.num_val_iterations_per_epoch = training.val_iterations_per_epoch
        self.num_epochs, self.save_every = training.epochs, training.checkpoint_every
        self.next_batch = self.batches_after(0)
        self.skipped = SkippedBatches()  # steps are also timed outside of an epoch
        # nnU-Net gives the lowest resolution no weight: with a single output its weights would be 0/0
        outputs = len(self.configuration_manager.pool_op_kernel_sizes) - 1
        self.enable_deep_supervision = self.settings.model.deep_supervision and outputs > 1

    def initialize(self) -> None:
        """nnU-Net builds network, optimiser and loss here, unseeded; ours start from (seed, fold).

        With several processes nnU-Net would wrap the network for the GPU numbered like the rank; we wrap it for the
        process's own device. And its dataset would run the code that a prepared case holds.
        """
        distributed, self.is_ddp = self.is_ddp, False
        with batches.seeded(self.settings.training.seed, self._fold_number(), batches.INITIALISATION):
            super().initialize()
        self.dataset_class = PreparedCases
        self.is_ddp = distributed
        self.grad_scaler = GradScaler(self.device.type) if self.precision == "fp16" else None
        if last := self.settings.training.averaged_epochs:
            self.averaged = AveragedWeights(self.network, self.num_epochs - last)
        if distributed:
            self._set_batch_size_and_oversample()
            self.network = DistributedDataParallel(self.network)
            self.loss = self._build_loss()

    @property
    def precision(self) -> str:
        """``fp32``, ``fp16`` or ``bf16``; nnU-Net's choice is ``fp16`` on GPUs and ``fp32`` on CPUs."""
        return self.settings.training.precision or ("fp16" if self.device.type == "cuda" else "fp32")

    def autocast(self) -> Any:
        """Return a context of mixed precision for forward passes; it does nothing with ``fp32``."""
        dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(self.precision)
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype=dtype)

    def _do_i_compile(self) -> bool:
        """nnU-Net compiles on GPUs and never on CPUs; the experiment can decide otherwise."""
        compiles = self.settings.training.compile
        return bool(super()._do_i_compile() if compiles is None else compiles)

    def _set_batch_size_and_oversample(self) -> None:
        """nnU-Net rounds the forced foreground of each process by itself; here it is a share of the joint batch."""
        joint, count = self.configuration_manager.batch_size, process_count()
        if joint % count:
            found, expected = f"{joint}, shared by {count} GPUs of one fold", "a multiple of resources.gpus_per_fold"
            problem = Problem("plan.batch_size", found, expected, f"set it to {count * (joint // count + 1)}")
            raise ProblemsFound("The fold cannot be trained.", [problem])
        self.batch_size = joint // count

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        """nnU-Net uses SGD with a momentum of 0.99; here the experiment chooses. The learning rate falls as there."""
        if self.settings.training.optimizer == "adamw":
            adamw = torch.optim.AdamW(self.network.parameters(), self.initial_lr, weight_decay=self.weight_decay)
            return adamw, PolyLRScheduler(adamw, self.initial_lr, self.num_epochs)
        optimizer, scheduler = super().configure_optimizers()
        for group in optimizer.param_groups:
            group["momentum"] = self.settings.training.momentum
        return optimizer, scheduler

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """nnU-Net sets it on the network's decoder, which only the networks of its plans have."""
        if self.settings.model.backbone == "plans":
            super().set_deep_supervision_enabled(enabled)

    @staticmethod
    def get_training_transforms(*args: Any, **kwargs: Any) -> Any:
        """nnU-Net's transforms, without one that depends on the clock."""
        return without_timed_choices(nnUNetTrainer.get_training_transforms(*args, **kwargs))

    def get_dataloaders(self) -> tuple[batches.BatchStream, batches.BatchStream]:
        """nnU-Net starts its augmenter here, whose order is not reproducible; ours gives batches by index."""
        scales = self._get_deep_supervision_scales()
        rotation, dummy_2d, initial_patch, mirrored = self.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        patch = self.configuration_manager.patch_size
        labels = {
            "is_cascaded": self.is_cascaded,
            "foreground_labels": self.label_manager.foreground_labels,
            "regions": self.label_manager.foreground_regions if self.label_manager.has_regions else None,
            "ignore_label": self.label_manager.ignore_label,
        }
        normalised = self.configuration_manager.use_mask_for_norm
        training = self.get_training_transforms(
            patch, rotation, scales, mirrored, dummy_2d, use_mask_for_norm=normalised, **labels
        )
        validation = self.get_validation_transforms(scales, **labels)
        cases_tr, cases_val = self.get_tr_and_val_datasets()
        return (
            self._stream(cases_tr, initial_patch, training, batches.TRAINING),
            self._stream(cases_val, patch, validation, batches.VALIDATION),
        )

    def _stream(self, cases: Any, crop_size: Any, transforms: Any, stage: int) -> batches.BatchStream:
        first = self.local_rank * self.batch_size
        loader = batches.LoaderWithGeometry(
            cases,
            self.batch_size,
            crop_size,
            self.configuration_manager.patch_size,
            self.label_manager,
            oversample_foreground_percent=self.oversample_foreground_percent,
            probabilistic_oversampling=self.probabilistic_oversampling,
            transforms=transforms,
            key=(self.settings.training.seed, self._fold_number(), stage),
            share=batches.Share(joint=self.configuration_manager.batch_size, first=first, count=self.batch_size),
        )
        loader_processes = self.settings.training.loader_processes or 0
        return batches.BatchStream(
            loader,
            first=self.next_batch["training" if stage == batches.TRAINING else "validation"],
            processes=loader_processes if stage == batches.TRAINING else min(loader_processes, 1),
            pin_memory=self.device.type == "cuda",
        )

    def _fold_number(self) -> int:
        # nnU-Net's fold "all" trains on everything; SeedSequence takes whole numbers from 0
        return int(self.fold) if str(self.fold).isdigit() else 2**31

    def batches_after(self, epochs: int) -> dict[str, int]:
        """Return how many batches of each stream a number of epochs uses."""
        per_epoch = {"training": self.num_iterations_per_epoch, "validation": self.num_val_iterations_per_epoch}
        return {stream: epochs * count for stream, count in per_epoch.items()}

    def plot_network_architecture(self) -> None:
        """nnU-Net tries to draw the network with a package that is not installed."""

    def descend(self) -> None:
        """Go from gradients to the next weights as nnU-Net does: unscaled, clipped, and skipped where not finite.

        nnU-Net skips a step with ``fp16`` alone; otherwise one NaN in one batch would end the training. Sets
        ``gradient_norm``, before it is clipped.
        """
        if self.grad_scaler is not None:
            self.grad_scaler.unscale_(self.optimizer)
        self.gradient_norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_NORM)
        if self.grad_scaler is not None:
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()
        elif torch.isfinite(self.gradient_norm):
            self.optimizer.step()
        if self.averaged is not None:
            self.averaged.follow(self.network, self.current_epoch)

    def on_train_start(self) -> None:
        """nnU-Net makes folders and loaders here; the random numbers that training steps draw are batches.seeded."""
        super().on_train_start()
        key = (self.settings.training.seed, self._fold_number(), self.local_rank)
        if self.current_epoch == 0:  # a resumed training goes on from the random states of its checkpoint,
            batches.seed_steps(*key)
        elif self.local_rank:  # which are the first process's: the others would draw the same numbers
            batches.seed_steps(*key, self.current_epoch)

    def on_epoch_start(self) -> None:
        """nnU-Net notes the time; what the epoch leaves out is counted from 0."""
        super().on_epoch_start()
        self.skipped = SkippedBatches()

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        """nnU-Net logs the mean loss here; skipped steps do not count.

        Raises:
            FloatingPointError: the weights are not finite, or no loss of the epoch was.
        """
        super().on_train_epoch_end(_finite_losses(train_outputs))
        self.skipped.count_steps()
        if self.skipped.unusable == self.num_iterations_per_epoch:
            raise FloatingPointError(
                f"no loss of epoch {self.current_epoch} was finite, so nothing was learned; console.log names the cases"
                "; prepare them again, lower training.initial_lr, or set training.precision to bf16 or fp32"
            )
        if not torch.stack([torch.isfinite(p).all() for p in self.network.parameters()]).all():
            raise FloatingPointError(
                f"the network's weights are not finite after epoch {self.current_epoch}: the training has diverged; "
                "lower training.initial_lr, or give the uncertainty terms a longer loss.warmup_epochs"
            )

    def on_validation_epoch_end(self, val_outputs: list[dict]) -> None:
        """nnU-Net logs losses and patch Dice here; without a warning, a region absent from all patches gives NaN."""
        with np.errstate(invalid="ignore"):
            super().on_validation_epoch_end(_finite_losses(val_outputs))
        self.skipped.count_batches()

    def on_train_end(self) -> None:
        """nnU-Net saves the final checkpoint, removes the latest, and stops its loaders; here the previous goes too.

        The final checkpoint may hold averaged weights; curves show those of the last step.
        """
        if self.averaged is not None:
            self.averaged.replace(self.network)
        super().on_train_end()
        if self.local_rank == 0:
            keep_best_and_final(Path(self.output_folder), self.current_epoch)
        for stream in (self.dataloader_train, self.dataloader_val):
            stream.close()


def _finite_losses(outputs: list[dict]) -> list[dict]:
    return [output for output in outputs if np.isfinite(output["loss"])] or outputs
