"""The trainer: nnU-Net's, with the uncertainty head, its loss terms and the error memory.

Found by nnU-Net's own commands through ``nnUNet_extTrainer``. Each override says what nnU-Net does there.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.helpers import dummy_context
from torch import nn

from uncseg.files import whole_file
from uncseg.method.epoch_metrics import EpochMeans
from uncseg.method.error_memory import ErrorMemory, Reading, load_memory_file, save_memories
from uncseg.method.loss import protocol_masks, uncertainty_terms, warmup_factor
from uncseg.method.network import (
    BACKBONE_CHANNELS,
    MaskedUncertaintyNetwork,
    predicted_regions,
    reference_regions,
    wt_probability,
)
from uncseg.method.oracle_maps import OracleMaps
from uncseg.method.reproducible_trainer import ReproducibleTrainer
from uncseg.method.settings import TrainerSettings
from uncseg.method.validation import REGION_NAMES, estimator_sums, failure_rates, overlap_counts

MEMORY_PREFIX = "error_memory_epoch_"
EpochListener = Callable[[int, dict[str, float]], None]


class UncertaintyTrainer(ReproducibleTrainer):
    """nnU-Net's trainer for one fold, with uncertainty head (or without: the baseline) and error memory.

    ``on_epoch`` is called with (epoch, metrics) when an epoch's metrics are complete, before its checkpoint;
    ``on_checkpoint`` with the last epoch that a resumable checkpoint holds, after it is whole.
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
        self.on_checkpoint: Callable[[int], None] = lambda _epoch: None
        alpha = self.settings.memory.alpha
        # the loss reads errors only; the variance baseline is judged on validation cases
        self.memories = {
            "training": ErrorMemory(("error",), alpha),
            "validation": ErrorMemory(("error", "variance"), alpha),
        }
        self.oracle = OracleMaps(Path(self.preprocessed_dataset_folder_base or "") / "oracle")
        self._means = EpochMeans()
        self._epoch_started = 0.0

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
        channels = BACKBONE_CHANNELS if model.uncertainty else num_output_channels
        network = nnUNetTrainer.build_network_architecture(
            plans_manager, configuration_manager, num_input_channels, channels, enable_deep_supervision
        )
        return MaskedUncertaintyNetwork(network, model.head) if model.uncertainty else network

    def _build_loss(self) -> nn.Module:
        """nnU-Net builds Dice + cross-entropy here; the cross-entropy gets its class weights."""
        loss = super()._build_loss()
        weight = self.settings.loss.weight_ce
        if weight is not None:
            inner = loss.loss if self.enable_deep_supervision else loss
            inner.ce.weight = torch.tensor(weight, device=self.device)
        return loss

    def on_epoch_start(self) -> None:
        """nnU-Net stamps the time; the epoch's sums start empty."""
        super().on_epoch_start()
        self._epoch_started = time.perf_counter()
        self._means = EpochMeans()
        self.dataloader_train.seconds_waited = self.dataloader_val.seconds_waited = 0.0

    def _to_device(self, batch: dict) -> tuple[torch.Tensor, Any]:
        data = batch["data"].to(self.device, non_blocking=True)
        target = batch["target"]
        if isinstance(target, list):
            return data, [t.to(self.device, non_blocking=True) for t in target]
        return data, target.to(self.device, non_blocking=True)

    def _autocast(self) -> Any:
        # as in nnU-Net: only on GPUs, the CPU's is slow
        return torch.autocast(self.device.type, enabled=True) if self.device.type == "cuda" else dummy_context()

    def _forward(self, data: torch.Tensor) -> tuple[Any, torch.Tensor | None]:
        return self.network(data, uncertainty=True) if self.settings.model.uncertainty else (self.network(data), None)

    def _read(self, side: str, batch: dict, shape: torch.Size) -> Reading:
        reading = self.memories[side].read(batch["keys"], batch["geometry"])
        one_channel = (shape[0], 1, *shape[2:])

        def here(values: torch.Tensor) -> torch.Tensor:
            return values.reshape(one_channel).to(self.device, non_blocking=True)

        return Reading({n: here(v) for n, v in reading.values.items()}, here(reading.visited))

    def train_step(self, batch: dict) -> dict:
        """nnU-Net's step (forward, loss, clipped gradients), with the uncertainty terms and the error memory."""
        data, target = self._to_device(batch)
        memory = self._read("training", batch, data.shape)
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            output, u = self._forward(data)
            segmentation_loss = self.loss(output, target)
        logits = _full_resolution(output)
        with torch.no_grad():
            predicted, reference = self._regions(logits, target)
            masks = protocol_masks(reference[:, :1], predicted[:, :1])
            mask = masks["reference" if self.settings.loss.cancer_mask == "target" else "union"]
        loss, parts = self._total_loss(segmentation_loss, logits, u, memory, mask)
        self._descend(loss)
        self._means.add_values({f"train/{name}": value for name, value in parts.items()})
        for protocol, m in masks.items():
            weights = m * memory.visited
            self._means.add(
                {f"memory/mean_error_train_{protocol}": ((weights * memory.values["error"]).sum(), weights.sum())}
            )
        failure = (predicted[:, :1] != reference[:, :1]).float()
        self.memories["training"].write(batch["keys"], batch["geometry"], {"error": failure}, mask)
        return {"loss": loss.detach().cpu().numpy()}

    def _regions(self, logits: torch.Tensor, target: Any) -> tuple[torch.Tensor, torch.Tensor]:
        head = self.settings.model.head
        return predicted_regions(logits.detach(), head), reference_regions(_full_resolution(target), head)

    def _total_loss(
        self,
        segmentation: torch.Tensor,
        logits: torch.Tensor,
        u: torch.Tensor | None,
        memory: Reading,
        mask: torch.Tensor,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """l and its terms by name; outside autocast, in float32."""
        settings = self.settings.loss
        loss = segmentation.float()
        parts = {"loss_seg": loss}
        if u is not None:
            terms = uncertainty_terms(u.float().sigmoid(), memory.values["error"], mask * memory.visited)
            weighted = (
                settings.unc_weight * terms.unc
                + settings.rmsd_weight * terms.rmsd
                + settings.corr_weight * terms.one_minus_corr
            )
            loss = loss + warmup_factor(self.current_epoch, settings.warmup_epochs) * weighted
            parts |= {"loss_unc": terms.unc, "loss_rmsd": terms.rmsd, "loss_one_minus_corr": terms.one_minus_corr}
        if settings.output_l2 > 0:
            outputs = logits if u is None else torch.cat((logits, u), dim=1)
            parts["loss_output_l2"] = outputs.float().square().mean()
            loss = loss + settings.output_l2 * parts["loss_output_l2"]
        return loss, parts | {"loss": loss}

    def _descend(self, loss: torch.Tensor) -> None:
        scaler = self.grad_scaler
        (loss if scaler is None else scaler.scale(loss)).backward()
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 12)
        if scaler is None:
            self.optimizer.step()
        else:
            scaler.step(self.optimizer)
            scaler.update()

    def validation_step(self, batch: dict) -> dict:
        """nnU-Net's patch Dice, here always of WT, TC, ET; and every estimator against the validation memory."""
        data, target = self._to_device(batch)
        memory = self._read("validation", batch, data.shape)
        with self._autocast():
            output, u = self._forward(data)
            loss = self.loss(output, target)
        logits = _full_resolution(output)
        predicted, reference = self._regions(logits, target)
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
                self.settings.model.head,
            )
        )
        self._means.add(failure_rates(failure, reference))
        p_wt = wt_probability(logits, self.settings.model.head)
        self.memories["validation"].write(
            batch["keys"],
            batch["geometry"],
            {"error": failure.float(), "variance": 4 * p_wt * (1 - p_wt)},
            protocol_masks(reference[:, :1], predicted[:, :1])["union"],
        )
        counts = {name: count.cpu().numpy() for name, count in overlap_counts(predicted, reference).items()}
        return {"loss": loss.detach().cpu().numpy(), **counts}

    def on_validation_epoch_end(self, val_outputs: list[dict]) -> None:
        """nnU-Net logs losses and patch Dice here; a region absent from a whole epoch's patches gives NaN quietly."""
        with np.errstate(invalid="ignore"):
            super().on_validation_epoch_end(val_outputs)

    def on_epoch_end(self) -> None:
        """nnU-Net checkpoints here; before it, the epoch's metrics are handed on."""
        self.on_epoch(self.current_epoch, self._epoch_metrics())
        super().on_epoch_end()

    def _epoch_metrics(self) -> dict[str, float]:
        metrics = self._means.means()
        dice = self.logger.get_value("dice_per_class_or_region", step=-1)
        metrics |= {f"val_patch/dice_{name}": float(d) for name, d in zip(REGION_NAMES, dice, strict=True)}
        metrics["val_patch/dice_mean"] = float(np.nanmean(dice)) if np.isfinite(dice).any() else float("nan")
        metrics["val_patch/loss_seg"] = float(self.logger.get_value("val_losses", step=-1))
        metrics["learning_rate"] = float(self.optimizer.param_groups[0]["lr"])
        metrics["uncertainty_warmup"] = warmup_factor(self.current_epoch, self.settings.loss.warmup_epochs)
        metrics["epoch_seconds"] = time.perf_counter() - self._epoch_started
        metrics["data_wait_seconds"] = self.dataloader_train.seconds_waited + self.dataloader_val.seconds_waited
        for side, memory in self.memories.items():
            metrics[f"memory/bytes_per_case_{side}"] = memory.bytes_per_case
        return metrics

    def save_checkpoint(self, filename: str) -> None:
        """nnU-Net writes in place; here the file is whole or absent, and its error memory is written before it."""
        if self.disable_checkpointing or self.local_rank != 0:
            return
        path = Path(filename)
        resumable = path.name != "checkpoint_best.pth"
        if resumable:
            save_memories(self._memory_file(path, self.current_epoch + 1), self.memories, self.current_epoch + 1)
        with whole_file(path) as temporary:
            super().save_checkpoint(str(temporary))
        if resumable:
            self._remove_old_memories(self._memory_file(path, self.current_epoch + 1))
            self.on_checkpoint(self.current_epoch)

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        """nnU-Net restores weights, optimiser and epoch; the error memory of that epoch is restored too."""
        super().load_checkpoint(filename_or_checkpoint)
        if isinstance(filename_or_checkpoint, dict) or Path(filename_or_checkpoint).name == "checkpoint_best.pth":
            return  # good for prediction only: the memory goes with the latest and the final checkpoint
        content = load_memory_file(self._memory_file(Path(filename_or_checkpoint), self.current_epoch))
        for name, memory in self.memories.items():
            memory.load_state(content[name])

    @staticmethod
    def _memory_file(checkpoint: Path, epochs: int) -> Path:
        return checkpoint.with_name(f"{MEMORY_PREFIX}{epochs:04d}.pt")

    @staticmethod
    def _remove_old_memories(keep: Path) -> None:
        for old in keep.parent.glob(f"{MEMORY_PREFIX}*.pt"):
            if old != keep:
                old.unlink(missing_ok=True)


def _full_resolution(output: Any) -> torch.Tensor:
    tensor = output[0] if isinstance(output, list | tuple) else output
    assert isinstance(tensor, torch.Tensor)
    return tensor
