"""How large a network is, told from its plans, without making it."""

from typing import Any

import torch
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from uncseg.method.settings import TrainerSettings
from uncseg.method.training.trainer import UncertaintyTrainer

BYTES_PER_WEIGHT = 4
"""Checkpoints hold float32, whatever the training computes with."""


def count_weights(
    plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any], settings: TrainerSettings
) -> int:
    """Number of a network's weights.

    Args:
        plans: nnU-Net's.
        configuration: of them, as ``3d_fullres``.
        dataset_json: nnU-Net's, with channels and labels.
        settings: of the experiment.
    """
    manager = PlansManager(settings.into_plans(plans))
    chosen = manager.get_configuration(configuration)
    with torch.device("meta"):  # shapes alone, no memory and no random numbers
        network = UncertaintyTrainer.build_network_architecture(
            manager,
            chosen,
            determine_num_input_channels(manager, chosen, dataset_json),
            manager.get_label_manager(dataset_json).num_segmentation_heads,
            settings.model.deep_supervision,
        )
    return sum(weight.numel() for weight in network.parameters())
