"""Build a network from its settings: a backbone, and how its outputs are read."""

from dataclasses import replace
from typing import Any

import torch
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

from uncseg.config.training_sections import Model
from uncseg.estimators.mc_dropout import add_dropout
from uncseg.method.network.backbone import (
    NetworkPlan,
    around_bottleneck,
    build_backbone,
    output_layer,
    output_layers,
    start_at_zero,
)
from uncseg.method.network.error_network import build_error_network
from uncseg.method.network.residual import Residual
from uncseg.method.network.staged_head import StagedHeadNetwork
from uncseg.method.network.uncertainty_network import HeteroscedasticNetwork, MaskedUncertaintyNetwork, detach_head
from uncseg.tasks.outputs import Outputs
from uncseg.tasks.task import Task

BYTES_PER_WEIGHT = 4
"""Checkpoints hold float32, whatever precision the training computes with."""


def build_network(model: Model, plan: NetworkPlan) -> nn.Module:
    """Build a network with fresh weights; it is plain if the settings ask for neither head nor log-variance."""
    if model.error_network is not None:
        return build_error_network(model, plan)
    if model.head == "decoder_stages":
        return _with_staged_head(model, plan)
    if model.uncertainty or model.heteroscedastic:
        # nnU-Net's channels and u; with labels u takes the place of the background, whose logit is always 0
        plan = replace(plan, outputs=plan.outputs + (model.output == "regions"))
    backbone = build_backbone(model, plan)
    if model.dropout > 0:
        add_dropout(around_bottleneck(backbone), model.dropout)
    if model.heteroscedastic:
        return HeteroscedasticNetwork(backbone, model.output, model.logit_samples)
    if not model.uncertainty:
        return backbone
    if model.detached:
        detach_head(output_layer(backbone))
    if model.residual:
        start_at_zero(output_layer(backbone), slice(-1, None))
    return MaskedUncertaintyNetwork(backbone, model.output, _residual(model, plan))


def _with_staged_head(model: Model, plan: NetworkPlan) -> StagedHeadNetwork:
    backbone = build_backbone(model, replace(plan, deep_supervision=True))
    if model.dropout > 0:
        add_dropout(around_bottleneck(backbone), model.dropout)
    layers = model.output, plan.deep_supervision, _residual(model, plan), model.detached
    network = StagedHeadNetwork(backbone, *layers)
    if not plan.deep_supervision:
        for layer in output_layers(backbone)[:-1]:
            layer.requires_grad_(False)  # DistributedDataParallel would wait for their gradients
    return network


def _residual(model: Model, plan: NetworkPlan) -> Residual | None:
    return Residual(plan.meaning) if model.residual else None


def count_weights(
    model: Model, task: Task, plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]
) -> int:
    """Return the number of a network's weights, by a task, nnU-Net's plans and dataset.json (channels and labels)."""
    manager = PlansManager(plans)
    chosen = manager.get_configuration(configuration)
    inputs = determine_num_input_channels(manager, chosen, dataset_json)
    outputs = manager.get_label_manager(dataset_json).num_segmentation_heads
    with torch.device("meta"):  # shapes alone, no memory and no random numbers
        meaning = Outputs.of(task, model.output)
        network = build_network(model, NetworkPlan(manager, chosen, inputs, outputs, meaning, model.deep_supervision))
    return sum(weight.numel() for weight in network.parameters())
