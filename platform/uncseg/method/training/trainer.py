"""The trainer: nnU-Net's, with the uncertainty head, its loss terms and the error memory.

Found by nnU-Net's own commands through ``nnUNet_extTrainer``. Each override says what nnU-Net does there.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from uncseg.method.distributed_fold import JointCrossEntropy, gather_samples
from uncseg.method.loss.objective import total_loss
from uncseg.method.loss.terms import protocol_masks, warmup_factor
from uncseg.method.memory.coordinates import make_memory
from uncseg.method.memory.error_memory import Reading
from uncseg.method.network.build import build_network
from uncseg.method.network.uncertainty_network import (
    full_resolution,
    predicted_regions,
    reference_regions,
    wt_probability,
)
from uncseg.method.settings import TrainerSettings
from uncseg.method.training.epoch_means import EpochMeans
from uncseg.method.training.oracle_maps import OracleMaps
from uncseg.method.training.reproducible_trainer import ReproducibleTrainer, split_evenly
from uncseg.method.training.several_passes import several_pass_maps
from uncseg.method.training.teacher import Teacher
from uncseg.method.training.validation import REGION_NAMES, estimator_sums, failure_rates, overlap_counts

EpochListener = Callable[[int, dict[str, float]], None]


class UncertaintyTrainer(ReproducibleTrainer):
    """nnU-Net's trainer for one fold, with uncertainty head (or without: the baseline) and error memory.

    ``on_epoch`` is called with (epoch, metrics) when an epoch's metrics are complete, before its checkpoint.
    """

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's signature, whose names it looks up
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.on_epoch: EpochListener = lambda _epoch, _metrics: None
        # the loss reads errors only; the variance baseline is judged on validation cases
        self.memories = {
            "training": make_memory(self.settings.memory, ("error",), self.device),
            "validation": make_memory(self.settings.memory, ("error", "variance"), self.device),
        }
        self.teacher: Teacher | None = None
        if self.settings.model.error_network is not None:  # the outputs of lower resolutions train nothing
            self.enable_deep_supervision = False
        self.oracle = OracleMaps(Path(self.preprocessed_dataset_folder_base or "") / "oracle")
        self._means = EpochMeans()
        self._epoch_started = self._training_seconds = 0.0

    def initialize(self) -> None:
        """nnU-Net builds the network here; a teacher starts as its copy."""
        super().initialize()
        memory = self.settings.memory
        if memory.source == "teacher":
            self.teacher = Teacher(self.network, self.settings.model.output, memory.teacher_decay)

    @staticmethod
    def build_network_architecture(
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """nnU-Net builds the plans' network here; ours gets 4 output channels and is read as z1..z3 and u."""
        model = TrainerSettings.from_plans(plans_manager.plans).model
        return build_network(
            model,
            plans_manager,
            configuration_manager,
            num_input_channels,
            num_output_channels,
            enable_deep_supervision,
        )

    def _build_loss(self) -> nn.Module:
        """nnU-Net builds Dice + cross-entropy here; the cross-entropy gets its class weights."""
        loss = super()._build_loss()
        weight = self.settings.loss.weight_ce
        if weight is not None:
            inner = loss.loss if self.enable_deep_supervision else loss
            weights = torch.tensor(weight, device=self.device)
            if self.is_ddp:
                inner.ce = JointCrossEntropy(weights)
            else:
                inner.ce.weight = weights
        return loss

    def on_epoch_start(self) -> None:
        """nnU-Net stamps the time; the epoch's sums start empty."""
        super().on_epoch_start()
        self._epoch_started = time.perf_counter()
        self._means = EpochMeans()
        self.dataloader_train.seconds_waited = self.dataloader_val.seconds_waited = 0.0

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        """nnU-Net logs the mean loss here; how long the steps took is noted."""
        self._training_seconds = time.perf_counter() - self._epoch_started
        super().on_train_epoch_end(train_outputs)

    def _to_device(self, batch: dict) -> tuple[torch.Tensor, list[torch.Tensor]]:
        data = batch["data"].to(self.device, non_blocking=True)
        target = batch["target"] if isinstance(batch["target"], list) else [batch["target"]]
        return data, [t.to(self.device, non_blocking=True) for t in target]

    def _forward(self, data: torch.Tensor, target: list[torch.Tensor]) -> tuple[Any, ...]:
        """Full-resolution logits, u (None without the head) and the segmentation loss."""
        with self.autocast():
            output, u = (
                self.network(data, uncertainty=True) if self.settings.model.uncertainty else (self.network(data), None)
            )
            loss = self.loss(output, target if self.enable_deep_supervision else target[0])
        return full_resolution(output), u, loss

    def _read(self, side: str, batch: dict, shape: torch.Size) -> Reading:
        reading = self.memories[side].read(batch["keys"], batch["geometry"])
        one_channel = (shape[0], 1, *shape[2:])  # a 2D patch is one slice thick there, and has no such axis here
        values = {name: value.reshape(one_channel) for name, value in reading.values.items()}
        return Reading(values, reading.visited.reshape(one_channel))

    def _write(self, side: str, batch: dict, values: dict[str, torch.Tensor], interest: torch.Tensor) -> None:
        # every process keeps the whole memory: a case is drawn by any of them
        self.memories[side].write(*gather_samples(batch["keys"], batch["geometry"], values, interest))

    def train_step(self, batch: dict) -> dict:
        """nnU-Net's step, with the uncertainty terms and the error memory, in parts where the batch does not fit.

        The host looks after the memory while the device works: it reads during the forward pass and takes the visit
        in during the backward pass. Only the loss is waited for, as in nnU-Net.
        """
        data, target = self._to_device(batch)
        self.optimizer.zero_grad(set_to_none=True)
        memory: Reading | None = None
        losses, failures, masks = [], [], []
        parts = split_evenly(len(data), self.settings.training.accumulate)
        for number, part in enumerate(parts, start=1):
            logits, u, segmentation = self._forward(data[part], [t[part] for t in target])
            memory = memory or self._read("training", batch, data.shape)
            taught = self._taught(data[part], target[0][part])
            loss, failure, mask = self._judge(logits, u, segmentation, target[0][part], memory.part(part), taught)
            failures.append(failure)
            masks.append(mask)
            if number == len(parts):
                self._write("training", batch, {"error": torch.cat(failures)}, torch.cat(masks))
            share = (part.stop - part.start) / len(data)
            losses.append(share * loss.detach())
            loss = share * loss
            (loss if self.grad_scaler is None else self.grad_scaler.scale(loss)).backward()
        self.memories["training"].settle()
        self.descend()
        if self.teacher is not None:
            self.teacher.follow(self.network)
        return {"loss": torch.stack(losses).sum().cpu().numpy()}

    def _taught(self, data: torch.Tensor, target: torch.Tensor) -> Reading | None:
        """The error that a teacher expects; None: the head learns from the memory."""
        if self.teacher is None:
            return None
        with self.autocast():
            return self.teacher.expected_error(data, reference_regions(target, self.settings.model.output)[:, :1])

    def _judge(
        self,
        logits: torch.Tensor,
        u: torch.Tensor | None,
        segmentation: torch.Tensor,
        target: torch.Tensor,
        memory: Reading,
        taught: Reading | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Total loss, this visit's failure (NaN where the logits are: no visit) and the mask, (B, 1, …)."""
        with torch.no_grad():
            predicted, reference = self._regions(logits, target)
            both = protocol_masks(reference[:, :1], predicted[:, :1])
            mask = both[self.settings.loss.cancer_mask]
            failure = (predicted[:, :1] != reference[:, :1]) + 0 * logits.detach().float().sum(1, keepdim=True)
        loss, terms = total_loss(
            self.settings, self.current_epoch, segmentation, logits, u, failure, taught or memory, mask
        )
        sums = {f"train/{name}": (value, torch.ones_like(value)) for name, value in terms.items()}
        for protocol, m in both.items():
            weights = m * memory.visited
            sums[f"uncertainty/memory/mean_error_train_{protocol}"] = (
                (weights * memory.values["error"]).sum(),
                weights.sum(),
            )
        self._means.add(sums)
        return loss, failure, mask

    def _regions(self, logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        output = self.settings.model.output
        return predicted_regions(logits.detach(), output), reference_regions(target, output)

    def validation_step(self, batch: dict) -> dict:
        """nnU-Net's patch Dice, here always of WT, TC, ET; and every estimator against the validation memory."""
        data, target = self._to_device(batch)
        logits, u, loss = self._forward(data, target)
        memory = self._read("validation", batch, data.shape)
        predicted, reference = self._regions(logits, target[0])
        failure = predicted[:, :1] != reference[:, :1]
        q = self.oracle.read(batch["keys"], batch["geometry"])
        self._means.add(
            estimator_sums(
                logits,
                u,
                None if q is None else q.reshape(failure.shape).to(self.device),
                predicted[:, :1],
                reference[:, :1],
                memory,
                self.settings.model.output,
                self._several_pass_maps(data),
            )
        )
        self._means.add(failure_rates(failure, reference))
        p_wt = wt_probability(logits, self.settings.model.output)
        self._write(
            "validation",
            batch,
            {"error": failure.float(), "variance": 4 * p_wt * (1 - p_wt)},
            protocol_masks(reference[:, :1], predicted[:, :1])["union"],
        )
        counts = {name: count.cpu().numpy() for name, count in overlap_counts(predicted, reference).items()}
        return {"loss": loss.detach().cpu().numpy(), **counts}

    def _several_pass_maps(self, data: torch.Tensor) -> dict[str, torch.Tensor]:
        axes = [axis + 1 for axis in self.inference_allowed_mirroring_axes or ()]
        with self.autocast():
            return several_pass_maps(self.network, data, self.settings.estimators, self.settings.model.output, axes)

    def on_epoch_end(self) -> None:
        """nnU-Net checkpoints here; before it, the epoch's metrics are handed on."""
        self.on_epoch(self.current_epoch, self._epoch_metrics())
        super().on_epoch_end()

    def _epoch_metrics(self) -> dict[str, float]:
        """The epoch's finite figures; one that nothing could be measured for is left out."""
        metrics = self._means.means()
        dice = self.logger.get_value("dice_per_class_or_region", step=-1)
        metrics |= {f"val_patch/dice_{name}": float(d) for name, d in zip(REGION_NAMES, dice, strict=True)}
        metrics["val_patch/dice_mean"] = float(np.nanmean(dice)) if np.isfinite(dice).any() else float("nan")
        metrics["val_patch/loss_seg"] = float(self.logger.get_value("val_losses", step=-1))
        metrics["train/learning_rate"] = float(self.optimizer.param_groups[0]["lr"])
        metrics["train/uncertainty_warmup"] = warmup_factor(self.current_epoch, self.settings.loss.warmup_epochs)
        metrics["system/training_seconds"] = self._training_seconds
        metrics["system/epoch_seconds"] = time.perf_counter() - self._epoch_started
        metrics["system/data_wait_seconds"] = self.dataloader_train.seconds_waited + self.dataloader_val.seconds_waited
        for side, memory in self.memories.items():
            metrics[f"system/memory_bytes_per_case_{side}"] = memory.bytes_per_case
        return {name: value for name, value in metrics.items() if np.isfinite(value)}

    def resume_content(self) -> dict[str, Any]:
        """The error memories, and the teacher."""
        memories = {name: memory.state() for name, memory in self.memories.items()}
        return memories if self.teacher is None else memories | {"teacher": self.teacher.state()}

    def restore_resume_content(self, content: dict[str, Any]) -> None:
        """The way back of :meth:`resume_content`."""
        for name, memory in self.memories.items():
            memory.load_state(content[name])
        if self.teacher is not None:
            self.teacher.load_state(content["teacher"])
