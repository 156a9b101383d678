"""nnU-Net's trainer with the experiment's settings, and reproducible: seeded, its batches a function of their index.

Knows nothing of uncertainty. Each override says what nnU-Net does there.
"""

from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from nnunetv2.training.logging.nnunet_logger import MetaLogger
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn
from torch.amp import GradScaler
from torch.nn.parallel import DistributedDataParallel

from uncseg.errors import Problem, ProblemsFound
from uncseg.files import whole_file
from uncseg.method.checkpoints import (
    BEST,
    LATEST,
    TRAINING_KEYS,
    keep_best_and_final,
    load_resume_file,
    load_torch_file,
    random_states,
    remove_old_resume_files,
    restore_random_states,
    resume_file,
    save_resume_file,
    set_aside_latest,
)
from uncseg.method.distributed_fold import processes
from uncseg.method.settings import TrainerSettings
from uncseg.method.training.batches import (
    INITIALISATION,
    TRAINING,
    VALIDATION,
    BatchStream,
    LoaderWithGeometry,
    Share,
    seed_steps,
    seeded,
)

GRADIENT_NORM = 12  # nnU-Net's


class _LoggerWithoutPlots(MetaLogger):
    def plot_progress_png(self, output_folder: str) -> None:
        """nnU-Net redraws a figure every epoch; the metrics go to MLflow instead."""


class ReproducibleTrainer(nnUNetTrainer):
    """nnU-Net's trainer for one fold; ``settings`` come from the plans.

    ``on_checkpoint`` is called with the last epoch that a resumable checkpoint holds, after it is whole.
    """

    trust = False
    """Let checkpoints run code of their own."""
    is_ddp: bool
    network: nn.Module

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
        if self.is_ddp:
            # nnU-Net takes the GPU numbered as the rank; on several nodes, or without GPUs, that is another's or none
            self.device = torch.device("cuda", torch.cuda.current_device()) if device.type == "cuda" else device
        self.settings = TrainerSettings.from_plans(plans)
        self.on_checkpoint: Callable[[int], None] = lambda _epoch: None
        self.logger = _LoggerWithoutPlots(self.output_folder, False)
        training, model = self.settings.training, self.settings.model
        self.initial_lr = training.initial_lr
        self.weight_decay = training.weight_decay
        self.oversample_foreground_percent = training.oversample_foreground
        self.num_iterations_per_epoch = training.iterations_per_epoch
        self.num_val_iterations_per_epoch = training.val_iterations_per_epoch
        self.num_epochs = training.epochs
        self._next_batch = self._batches_of(0)
        self.save_every = training.checkpoint_every
        # nnU-Net gives the lowest resolution no weight: with one output alone its weights would be 0/0
        outputs = len(self.configuration_manager.pool_op_kernel_sizes) - 1
        self.enable_deep_supervision = model.deep_supervision and outputs > 1

    def initialize(self) -> None:
        """nnU-Net builds network, optimiser and loss here, unseeded; ours start from (seed, fold).

        With several processes nnU-Net would wrap the network for the GPU of the process's rank; ours for its device.
        """
        together, self.is_ddp = self.is_ddp, False
        with seeded(self.settings.training.seed, self._fold_number(), INITIALISATION):
            super().initialize()
        self.is_ddp = together
        self.grad_scaler = GradScaler(self.device.type) if self.precision == "fp16" else None
        if together:
            self._set_batch_size_and_oversample()
            self.network = DistributedDataParallel(self.network)
            self.loss = self._build_loss()

    @property
    def precision(self) -> str:
        """fp32, fp16 or bf16; nnU-Net's choice is fp16 on GPUs and fp32 on CPUs."""
        wanted = self.settings.training.precision
        return wanted or ("fp16" if self.device.type == "cuda" else "fp32")

    def autocast(self) -> Any:
        """Mixed precision for forward passes; nothing with fp32."""
        dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(self.precision)
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype=dtype)

    def _do_i_compile(self) -> bool:
        """nnU-Net compiles on GPUs and never on the CPU; the experiment can decide otherwise."""
        wanted = self.settings.training.compile
        return bool(super()._do_i_compile() if wanted is None else wanted)

    def _set_batch_size_and_oversample(self) -> None:
        """nnU-Net rounds each process's share of forced foreground by itself; ours is that of the joint batch."""
        joint, together = self.configuration_manager.batch_size, processes()
        if joint % together:
            raise ProblemsFound(
                "The fold cannot be trained.",
                [
                    Problem(
                        "plan.batch_size",
                        f"{joint}, shared by {together} GPUs of one fold",
                        "a multiple of resources.gpus_per_fold",
                        f"write {together * (joint // together + 1)}",
                    )
                ],
            )
        self.batch_size = joint // together

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        """nnU-Net uses SGD with a momentum of 0.99; ours come from the experiment. The decay is nnU-Net's for both."""
        if self.settings.training.optimizer == "adamw":
            adamw = torch.optim.AdamW(self.network.parameters(), self.initial_lr, weight_decay=self.weight_decay)
            return adamw, PolyLRScheduler(adamw, self.initial_lr, self.num_epochs)
        optimizer, scheduler = super().configure_optimizers()
        for group in optimizer.param_groups:
            group["momentum"] = self.settings.training.momentum
        return optimizer, scheduler

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """nnU-Net sets it on the network's decoder; networks other than the plans' have no such thing."""
        if self.settings.model.backbone == "plans":
            super().set_deep_supervision_enabled(enabled)

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
            self._stream(cases_tr, initial_patch, training, TRAINING),
            self._stream(cases_val, patch, validation, VALIDATION),
        )

    def _stream(self, cases: Any, crop_size: Any, transforms: Any, stage: int) -> BatchStream:
        place = self.local_rank * self.batch_size
        loader = LoaderWithGeometry(
            cases,
            self.batch_size,
            crop_size,
            self.configuration_manager.patch_size,
            self.label_manager,
            oversample_foreground_percent=self.oversample_foreground_percent,
            probabilistic_oversampling=self.probabilistic_oversampling,
            transforms=transforms,
            share=Share(joint=self.configuration_manager.batch_size, first=place, count=self.batch_size),
        )
        wanted = self.settings.training.loader_processes or 0
        return BatchStream(
            loader,
            seed=self.settings.training.seed,
            fold=self._fold_number(),
            stage=stage,
            first=self._next_batch["training" if stage == TRAINING else "validation"],
            processes=wanted if stage == TRAINING else min(wanted, 1),
            pin_memory=self.device.type == "cuda",
        )

    def _fold_number(self) -> int:
        # nnU-Net's fold "all" trains on everything; SeedSequence wants a whole number ≥ 0
        return int(self.fold) if str(self.fold).isdigit() else 2**31

    def plot_network_architecture(self) -> None:
        """nnU-Net tries to draw the network with a package that is not installed."""

    def descend(self) -> None:
        """nnU-Net's way from gradients to the next weights: unscaled, clipped, and skipped where not finite.

        nnU-Net skips only with fp16; otherwise one NaN in one batch would end the training.
        """
        scaler = self.grad_scaler
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_NORM)
        if scaler is not None:
            scaler.step(self.optimizer)
            scaler.update()
        elif torch.isfinite(norm):
            self.optimizer.step()

    def on_train_start(self) -> None:
        """nnU-Net makes folders and loaders here; what the steps of a training that begins draw is seeded."""
        super().on_train_start()
        key = (self.settings.training.seed, self._fold_number(), self.local_rank)
        if self.current_epoch == 0:  # later ones go on from the random states of their checkpoint
            seed_steps(*key)
        elif self.local_rank:  # which are the first process's: the others would draw the same
            seed_steps(*key, self.current_epoch)

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        """nnU-Net logs the mean loss here; steps that were skipped don't count, and weights of NaN end the training."""
        super().on_train_epoch_end(_finite_losses(train_outputs))
        finite = torch.stack([torch.isfinite(p).all() for p in self.network.parameters()]).all()
        if not finite:
            raise FloatingPointError(
                f"the network's weights are not finite after epoch {self.current_epoch}: the training has diverged; "
                "lower training.initial_lr, or give the uncertainty terms a longer loss.warmup_epochs"
            )

    def on_validation_epoch_end(self, val_outputs: list[dict]) -> None:
        """nnU-Net logs losses and patch Dice here; a region absent from a whole epoch's patches gives NaN quietly."""
        with np.errstate(invalid="ignore"):
            super().on_validation_epoch_end(_finite_losses(val_outputs))

    def on_train_end(self) -> None:
        """nnU-Net saves the final checkpoint, removes the latest, and stops its loaders; here the previous goes too."""
        super().on_train_end()
        if self.local_rank == 0:
            keep_best_and_final(Path(self.output_folder), self.current_epoch)
        for stream in (self.dataloader_train, self.dataloader_val):
            stream.close()

    def _batches_of(self, epochs: int) -> dict[str, int]:
        return {
            "training": epochs * self.num_iterations_per_epoch,
            "validation": epochs * self.num_val_iterations_per_epoch,
        }

    def resume_content(self) -> dict[str, Any]:
        """What else a resume needs, by name: tensors and plain values."""
        return {}

    def restore_resume_content(self, content: dict[str, Any]) -> None:
        """The way back of :meth:`resume_content`."""

    def save_checkpoint(self, filename: str) -> None:
        """nnU-Net writes in place; here the file is whole or absent, and its resume file is written before it."""
        if self.disable_checkpointing or self.local_rank != 0:
            return
        path, epochs = Path(filename), self.current_epoch + 1
        resumable = path.name != BEST
        if resumable:
            content = {
                "epoch": epochs,
                "memories": self.resume_content(),
                "random": random_states(),
                "next_batch": self._batches_of(epochs),
            }
            save_resume_file(resume_file(path, epochs), content)
        with whole_file(path, durable=True) as temporary:
            super().save_checkpoint(str(temporary))
            if path.name == LATEST:
                set_aside_latest(path.parent)
        if resumable:
            remove_old_resume_files(resume_file(path, epochs))
            self.on_checkpoint(self.current_epoch)

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        """nnU-Net unpickles whatever the file holds; one that needs code is refused here; a resume file is read too.

        nnU-Net cannot be given the content (2.8.1 fails on a dict): the file is read twice.
        """
        path = Path(str(filename_or_checkpoint))
        load_torch_file(path, TRAINING_KEYS, trust=self.trust)
        super().load_checkpoint(str(path))
        self._next_batch = self._batches_of(self.current_epoch)
        if path.name == BEST:
            return  # good for prediction only: what a resume needs goes with the latest and the final checkpoint
        content = load_resume_file(resume_file(path, self.current_epoch))
        self.restore_resume_content(content["memories"])
        self._next_batch = content["next_batch"]
        restore_random_states(content["random"])


def _finite_losses(outputs: list[dict]) -> list[dict]:
    finite = [output for output in outputs if np.isfinite(output["loss"])]
    return finite or outputs


def split_evenly(samples: int, parts: int) -> list[slice]:
    """Consecutive slices of a batch, as even as can be and never empty."""
    parts = min(parts, samples)
    edges = [round(i * samples / parts) for i in range(parts + 1)]
    return [slice(first, last) for first, last in pairwise(edges)]
