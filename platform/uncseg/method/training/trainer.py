"""The trainer: nnU-Net's, with the uncertainty head, its loss terms and the error memory.

nnU-Net's own commands find it through ``nnUNet_extTrainer``. The docstring of each override says what nnU-Net does
there.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn

from uncseg.method.distributed_fold import JointCrossEntropy, gather_samples, sum_over_processes
from uncseg.method.loss.terms import Step, protocol_masks, total_loss
from uncseg.method.memory.error_memory import ErrorMemory, Reading
from uncseg.method.memory.patch_geometry import PatchGeometry
from uncseg.method.network.backbone import NetworkPlan
from uncseg.method.network.build import build_network
from uncseg.method.network.logits import predicted_regions, reference_regions
from uncseg.method.network.uncertainty_network import full_resolution
from uncseg.method.settings import TrainerSettings
from uncseg.method.training import epoch_metrics
from uncseg.method.training.error_sources import ErrorSource, OwnFailure, Visit
from uncseg.method.training.keeping import Keeping, keeping_of
from uncseg.method.training.resumable_trainer import ResumableTrainer
from uncseg.method.training.several_passes_on_patches import several_pass_maps
from uncseg.method.training.teacher import Teacher

INTEREST = "interest"


class UncertaintyTrainer(ResumableTrainer):
    """nnU-Net's trainer for one fold, with error memory and uncertainty head (or without head: the baseline)."""

    on_epoch: Callable[[int, dict[str, float]], None] | None = None
    """Called with (epoch, metrics) when an epoch's metrics are complete, before its checkpoint."""
    memories: dict[str, ErrorMemory]
    """The error memories of the training cases and of the validation cases."""
    keeping: Keeping
    """How they are kept."""
    teacher: Teacher | None = None
    error_source: ErrorSource | None = None
    """What the head learns in place of the error memory. One that comes from another run is set after initialize."""
    training_seconds = epoch_started = 0.0

    def initialize(self) -> None:
        """nnU-Net builds the network here; the error memories, and a teacher as its copy, are made too."""
        memory, model = self.settings.memory, self.settings.model
        keeping = keeping_of(memory)
        self.memories, self.keeping = keeping.memories(memory.alpha, self.device), keeping
        self.oracle = Path(self.preprocessed_dataset_folder_base or "") / "oracle"
        if model.error_network is not None:  # its outputs of lower resolutions train nothing
            self.enable_deep_supervision = False
        super().initialize()
        self._means = epoch_metrics.EpochMeans()  # steps are also timed outside of an epoch
        if memory.source == "teacher":
            self.error_source = self.teacher = Teacher(self.network, self.outputs, memory.teacher_decay)
        elif memory.source == "visit":
            self.error_source = OwnFailure()

    @staticmethod
    def build_network_architecture(
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """nnU-Net builds the plans' network here; ours gets one for the map and is read as z1..zn and u."""
        settings = TrainerSettings.from_plans(plans_manager.plans)
        channels = num_input_channels, num_output_channels, settings.outputs
        plan = NetworkPlan(plans_manager, configuration_manager, *channels, enable_deep_supervision)
        return build_network(settings.model, plan)

    def _build_loss(self) -> nn.Module:
        """nnU-Net builds Dice + cross-entropy here; the cross-entropy gets its class weights."""
        loss = super()._build_loss()
        if self.settings.loss.weight_ce is not None:
            inner = loss.loss if self.enable_deep_supervision else loss
            weights = torch.tensor(self.settings.loss.weight_ce, device=self.device)
            if self.is_ddp:
                inner.ce = JointCrossEntropy(weights)
            else:
                inner.ce.weight = weights
        return loss

    def on_epoch_start(self) -> None:
        """nnU-Net notes the time; the epoch's sums start empty."""
        super().on_epoch_start()
        self.epoch_started = perf_counter()
        self._means = epoch_metrics.EpochMeans()
        self.dataloader_train.seconds_waited = self.dataloader_val.seconds_waited = 0.0

    def train_step(self, batch: dict) -> dict:
        """nnU-Net's step, with the uncertainty terms and the error memory, in parts where the batch does not fit.

        While the device works, the host looks after the memory: it reads it during the forward pass and takes in the
        visit during the backward pass. As in nnU-Net, it waits for the loss alone.
        """
        data, target = self._to_device(batch)
        self.optimizer.zero_grad(set_to_none=True)
        memory: Reading | None = None
        losses: list[torch.Tensor] = []
        kept: list[dict[str, torch.Tensor]] = []
        for part in split_evenly(len(data), self.settings.training.accumulate):
            outputs = self._forward(data[part], [t[part] for t in target])
            visit = self._visit(data[part], outputs[0], target[0][part])
            kept.append(self._kept("training", visit))
            if self.keeping.differences.writes_first:
                self._write("training", batch, kept)
            memory = memory or self._read("training", batch, data.shape)
            loss = self._judge(outputs, visit, self.keeping.compared(memory.part(part), visit))
            if part.stop == len(data) and not self.keeping.differences.writes_first:
                self._write("training", batch, kept)
            loss = (part.stop - part.start) / len(data) * loss
            losses.append(loss.detach())
            (loss if self.grad_scaler is None else self.grad_scaler.scale(loss)).backward()
        self.memories["training"].settle()
        joint_loss = torch.stack(losses).sum()
        self.descend()
        self.skipped.add_step(self.gradient_norm, joint_loss)
        if self.teacher is not None:
            self.teacher.follow(self.network)
        loss_on_host = joint_loss.cpu().numpy()
        if not np.isfinite(loss_on_host):
            self._name_unusable("its loss", batch)
        return {"loss": loss_on_host}

    def _name_unusable(self, what: str, batch: dict) -> None:
        """Print which cases a batch without a finite result is made of, and whose images are at fault."""
        finite = torch.isfinite(batch["data"]).flatten(1).all(1).tolist()
        cases = [key if own else f"{key}, whose images are not" for key, own in zip(batch["keys"], finite, strict=True)]
        print(f"epoch {self.current_epoch}: a batch is left out, because {what} is not finite: {'; '.join(cases)}")

    def _to_device(self, batch: dict) -> tuple[torch.Tensor, list[torch.Tensor]]:
        data = batch["data"].to(self.device, non_blocking=True)
        target = batch["target"] if isinstance(batch["target"], list) else [batch["target"]]
        return data, [t.to(self.device, non_blocking=True) for t in target]

    def _forward(self, data: torch.Tensor, target: list[torch.Tensor]) -> tuple[Any, ...]:
        """Return full-resolution logits, u (None without an uncertainty map) and the segmentation loss."""
        with self.autocast():
            has_map = self.settings.model.uncertainty
            output, u = self.network(data, uncertainty=True) if has_map else (self.network(data), None)
            loss = self.loss(output, target if self.enable_deep_supervision else target[0])
        return full_resolution(output), u, loss

    def _read(self, side: str, batch: dict, shape: torch.Size) -> Reading:
        reading = self.memories[side].read(batch["keys"], batch["geometry"])
        one_channel = (shape[0], 1, *shape[2:])  # a 2D patch is one slice thick there, and has no such axis here
        values = {name: value.reshape(one_channel) for name, value in reading.values.items()}
        return Reading(values, reading.visited.reshape(one_channel))

    def _kept(self, side: str, visit: Visit) -> dict[str, torch.Tensor]:
        """Return what a memory takes of a visit, by the names of its averages, and where it is worth remembering."""
        kept = {"error": self.keeping.failure(visit), INTEREST: visit.mask}
        if "variance" in self.memories[side].names:
            kept["variance"] = self.keeping.variance(visit, self.outputs)
        return kept

    def _write(self, side: str, batch: dict, parts: Sequence[dict[str, torch.Tensor]]) -> None:
        values = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        interest = values.pop(INTEREST)
        # every process keeps the whole memory: any of them may draw a case
        self.memories[side].write(*gather_samples(batch["keys"], batch["geometry"], values, interest))

    @torch.no_grad()
    def _visit(self, data: torch.Tensor, logits: torch.Tensor, target: torch.Tensor) -> Visit:
        """Return what a training step sees; a failure is NaN, and so no visit, where the logits are."""
        predicted, reference = self._regions(logits, target)
        predicted_main, reference_main = predicted[:, self.main], reference[:, self.main]
        masks = protocol_masks(reference_main, predicted_main)
        failure = self.keeping.fails(logits, target, predicted_main, reference_main)
        failure = failure + 0 * logits.detach().float().sum(1, keepdim=True)
        learned_in = self.settings.loss.cancer_mask
        return Visit(data, logits.detach(), predicted, reference, failure, masks, learned_in)

    def _judge(self, outputs: tuple[Any, ...], visit: Visit, memory: Reading) -> torch.Tensor:
        """Return the loss."""
        logits, u, segmentation_loss = outputs
        with torch.no_grad():
            learned = self._expected_error(visit) or memory
        step = Step(
            segmentation_loss, logits, u, visit.failure, learned, visit.mask, self.keeping.differences.raw_logit
        )
        loss, terms = total_loss(self.settings, self.current_epoch, step)
        self._means.add(epoch_metrics.training_sums(terms, visit.masks, memory), all_finite([loss]))
        return loss

    def _expected_error(self, visit: Visit) -> Reading | None:
        """Return the error that the head learns in place of the memory's; None: it learns that one."""
        if self.error_source is None:
            if (source := self.settings.memory.source) != "cases":
                raise RuntimeError(f"memory.source: {source} comes from another run; train with uncseg cross-validate")
            return None
        with self.autocast():
            return self.error_source.expected_error(visit)

    def _regions(self, logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return predicted_regions(logits.detach(), self.outputs), reference_regions(target, self.outputs)

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        """nnU-Net logs the mean loss here; the time that the steps took is noted."""
        self.training_seconds = perf_counter() - self.epoch_started
        super().on_train_epoch_end(train_outputs)

    def validation_step(self, batch: dict) -> dict:
        """nnU-Net's patch Dice, here always of the task's regions; and every estimator against the validation memory.

        nnU-Net takes a prediction that is not finite for background; here such a batch counts for nothing.
        """
        data, target = self._to_device(batch)
        logits, u, loss = self._forward(data, target)
        maps = self._several_pass_maps(data)
        usable = all_finite([logits, loss, *([] if u is None else [u]), *maps.values()])
        visit = self._visit(data, logits, target[0])
        # NaN is no visit
        visit = replace(visit, failure=torch.where(usable, visit.failure, math.nan), learned_in="union")
        if self.keeping.differences.writes_first:
            self._write("validation", batch, [self._kept("validation", visit)])
        memory = self.keeping.compared(self._read("validation", batch, data.shape), visit)
        q = read_oracle(self.oracle, batch["keys"], batch["geometry"])
        q = None if q is None else q.reshape(visit.failure.shape).to(self.device)
        sums = epoch_metrics.estimator_sums(visit, u, q, memory, self.outputs, maps, self.keeping)
        rates = epoch_metrics.failure_rates(visit, self.outputs, self.settings.task)
        self._means.add(sums | rates, usable)
        if not self.keeping.differences.writes_first:
            self._write("validation", batch, [self._kept("validation", visit)])
        self.skipped.add_validation(usable)
        counts = epoch_metrics.overlap_counts(visit.predicted, visit.reference)
        results = {"loss": torch.where(usable, loss.detach(), math.nan)}
        results |= {name: torch.where(usable, count, 0) for name, count in counts.items()}
        on_host = {name: value.cpu().numpy() for name, value in results.items()}
        if not np.isfinite(on_host["loss"]):
            self._name_unusable("its prediction", batch)
        return on_host

    def _several_pass_maps(self, data: torch.Tensor) -> dict[str, torch.Tensor]:
        axes = [axis + 1 for axis in self.inference_allowed_mirroring_axes or ()]
        with self.autocast():
            return several_pass_maps(self.network, data, self.settings.estimators, self.outputs, axes)

    def on_epoch_end(self) -> None:
        """nnU-Net checkpoints here; before that, the epoch's metrics are handed on."""
        metrics = epoch_metrics.metrics_of(self, self._means.means())
        if self.on_epoch is not None:
            self.on_epoch(self.current_epoch, metrics)
        super().on_epoch_end()

    def resume_content(self) -> dict[str, Any]:
        """Return the states of the error memories and of the teacher, and what the trainers below keep."""
        content: dict[str, Any] = {name: memory.state() for name, memory in self.memories.items()}
        if self.teacher is not None:
            content["teacher"] = self.teacher.state_dict()
        return content | super().resume_content()

    def restore_resume_content(self, content: dict[str, Any]) -> None:
        """Inverse of :meth:`resume_content`."""
        for name, memory in self.memories.items():
            memory.load_state(content[name])
        if self.teacher is not None:
            self.teacher.load_state_dict(content["teacher"])
        super().restore_resume_content(content)


def read_oracle(folder: Path, keys: list[str], geometries: list[PatchGeometry]) -> torch.Tensor | None:
    """Read a phantom's oracle q, from CASE.npy, (D, H, W) float16: the probability that a rater calls a voxel part of
    the main region.

    Returns:
        q of unaugmented patches, (B, 1, D, H, W) float32, 0 beyond the case; None if a case has none, as real ones.
    """
    files = [folder / f"{key}.npy" for key in keys]
    if not all(file.is_file() for file in files):
        return None
    volumes = [np.load(file, mmap_mode="r") for file in files]
    patches = [g.padded(volume[g.bounding_box()]) for volume, g in zip(volumes, geometries, strict=True)]
    return torch.from_numpy(np.stack(patches)[:, None].astype(np.float32))


def all_finite(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return whether every value in every process of the fold is finite, bool, 0-dimensional."""
    wrong = torch.stack([~torch.isfinite(tensor).all() for tensor in tensors]).any()
    return sum_over_processes(wrong.int()) == 0


def split_evenly(samples: int, parts: int) -> list[slice]:
    """Return consecutive slices of a batch, as even as can be and never empty."""
    parts = min(parts, samples)
    edges = [round(i * samples / parts) for i in range(parts + 1)]
    return [slice(first, last) for first, last in pairwise(edges)]
