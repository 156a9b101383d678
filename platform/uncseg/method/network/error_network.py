"""A network that learns where a finished segmentation network fails; that one stays as it is (Jungo et al. 2020).

network = build_error_network(model, plan)
load_segmentation(network, checkpoint_of_the_finished_run)
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from uncseg.config.training_sections import Model
from uncseg.method.checkpoints import MODEL_KEYS, load_torch_file
from uncseg.method.network.backbone import NetworkPlan, build_backbone, output_layer, output_layers, with_features
from uncseg.method.network.logits import with_background
from uncseg.method.network.uncertainty_network import MaskedUncertaintyNetwork
from uncseg.tasks.outputs import Output

IN_WRAPPER = "backbone."
HEAD = "head."


class ErrorNetwork(MaskedUncertaintyNetwork):
    """A frozen segmentation network, and one that predicts per voxel how likely its main region is wrong.

    ``forward(x)`` returns the frozen network's logits at full resolution. That network takes no gradient and is always
    in eval mode: training the other one changes none of its weights and statistics.

    Args:
        segmentation: a backbone without a head.
        output: what its logits mean.
        error: maps the last features (B, F, …), or images and probabilities (B, inputs + outputs, …), to one logit.
        reads_features: whether it reads the features.
    """

    def __init__(self, segmentation: nn.Module, output: Output, error: nn.Module, reads_features: bool) -> None:
        super().__init__(segmentation.requires_grad_(False), output)
        self.error = error
        self.reads_features = reads_features
        self.outputs = int(output_layer(segmentation).out_channels)  # type: ignore[arg-type]
        if reads_features:
            output_layer(segmentation).register_forward_hook(with_features)

    def train(self, mode: bool = True) -> "ErrorNetwork":
        """Set the mode of the error network alone."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, x: torch.Tensor, uncertainty: bool = False):  # type: ignore[no-untyped-def]
        """Return the frozen network's logits, or ``(logits, u)`` with u the logit of the failure, (B, 1, …)."""
        with torch.no_grad():
            output = self.backbone(x)
        logits, features = output[:, : self.outputs], output[:, self.outputs :]
        if not uncertainty:
            return logits
        return logits, self.error(features if self.reads_features else self._with_probabilities(x, logits))

    def _with_probabilities(self, x: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        logits = logits.float()
        return torch.cat((x, logits.sigmoid() if self.output == "regions" else logits.softmax(1)), dim=1)


def build_error_network(model: Model, plan: NetworkPlan) -> ErrorNetwork:
    """Build an error network with fresh weights; :func:`load_segmentation` gives it the segmentation that it judges."""
    assert model.error_network is not None
    plan = replace(plan, deep_supervision=False)
    segmentation = build_backbone(model, plan)
    if model.error_network.kind == "features":
        return ErrorNetwork(segmentation, model.output, _pointwise_layers(output_layer(segmentation)), True)
    error = build_backbone(model, replace(plan, inputs=plan.inputs + plan.outputs, outputs=1))
    for layer in output_layers(error)[:-1]:
        layer.requires_grad_(False)  # deep supervision is off: DistributedDataParallel would wait for gradients
    return ErrorNetwork(segmentation, model.output, error, False)


def _pointwise_layers(output: nn.Module) -> nn.Sequential:
    """Build three convolutions of single voxels, as wide as the features that the output layer reads."""
    flat = isinstance(output, nn.Conv2d)
    convolution, norm = (nn.Conv2d, nn.InstanceNorm2d) if flat else (nn.Conv3d, nn.InstanceNorm3d)
    width = int(output.in_channels)  # type: ignore[arg-type]
    hidden = [
        layer
        for _ in range(2)
        for layer in (convolution(width, width, 1), norm(width, affine=True), nn.LeakyReLU(0.01, inplace=True))
    ]
    return nn.Sequential(*hidden, convolution(width, 1, 1))


def load_segmentation(network: ErrorNetwork, checkpoint: Path, trust: bool = False) -> None:
    """Give an error network the segmentation that it judges; weights of a head in the checkpoint are left out.

    Raises:
        ProblemsFound: as :func:`~uncseg.method.checkpoints.load_torch_file`, which explains ``trust``.
        RuntimeError: the checkpoint's network has other plans, another backbone or output.
    """
    weights = load_torch_file(checkpoint, MODEL_KEYS, trust=trust)["network_weights"]
    backbone = network.backbone
    if weights.keys() != backbone.state_dict().keys():
        head_apart = any(name.startswith(HEAD) for name in weights)
        weights = {name.removeprefix(IN_WRAPPER): v for name, v in weights.items() if name.startswith(IN_WRAPPER)}
        layers = [] if head_apart else output_layers(backbone)
        for prefix in [name for name, module in backbone.named_modules() if any(module is layer for layer in layers)]:
            for name in (f"{prefix}.weight", f"{prefix}.bias"):
                weights[name] = _without_head(weights[name], network.output)
    backbone.load_state_dict(weights)


def _without_head(values: torch.Tensor, output: Output) -> torch.Tensor:
    """Turn weights of the outputs z1..zn, u into weights of the logits; the background's are 0, as its logit is."""
    z = values[:-1]
    return with_background(z[None])[0] if output == "labels" else z
