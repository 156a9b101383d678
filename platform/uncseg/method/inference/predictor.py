"""The predictor: nnU-Net's sliding window, which also averages the uncertainty map of the same forward passes.

The segmentation is computed as nnU-Net does. The map is averaged after the sigmoid, in float32, with the same weights.
"""

import itertools
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

from uncseg.dataset.finite import TITLE, NotFinite, refuse_not_finite
from uncseg.errors import Problem, ProblemsFound
from uncseg.method.checkpoints import MODEL_KEYS, load_torch_file
from uncseg.method.inference.model_folder import ModelFolder
from uncseg.method.network.uncertainty_network import MaskedUncertaintyNetwork
from uncseg.method.nnunet_internals import FOUND_INFINITY
from uncseg.method.training.trainer import UncertaintyTrainer
from uncseg.tasks.outputs import Outputs


class UncertaintyPredictor(nnUNetPredictor):
    """nnU-Net's predictor. After a prediction ``maps`` holds the network's other map, (D, H, W) float32.

    It is ``uncertainty``, sigmoid(u) in [0, 1], for a network with the head, and ``log_variance`` for a heteroscedastic
    network.
    """

    name = "the network"
    """What messages call it; of a loaded one, its fold."""
    checkpoint: Path | None = None
    outputs: Outputs
    """What the channels of the network that was loaded mean."""
    maps: Mapping[str, torch.Tensor] = MappingProxyType({})
    _sum: torch.Tensor | None = None
    _weight: torch.Tensor | None = None
    _tiles: Iterator[Any] = iter(())

    def load_fold(self, model: ModelFolder, fold: int, trust: bool = False) -> None:
        """Load one fold's final checkpoint, of our model or of one that nnU-Net trained, which has no uncertainty map.

        With ``trust`` the checkpoint, and the classes that its plans name, may run code of their own.

        Raises:
            ProblemsFound: checkpoint or plans cannot be used without ``trust``, the checkpoint is truncated or of
                another kind, its trainer is not installed, or its labels are unknown.
        """
        if not trust:  # a run's own folder has not been checked by open_model_folder
            model.require_known_classes()
        checkpoint = load_torch_file(model.checkpoint(fold), MODEL_KEYS, trust=trust)
        trainer, axes = checkpoint["trainer_name"], checkpoint["inference_allowed_mirroring_axes"]
        managers = model.plans_manager, model.configuration_manager
        inputs = determine_num_input_channels(*managers, model.dataset_json)
        build = _trainer(trainer, model).build_network_architecture
        network = build(*managers, inputs, model.label_manager.num_segmentation_heads, enable_deep_supervision=False)
        network.load_state_dict(checkpoint["network_weights"])
        self.manual_initialization(network, *managers, None, model.dataset_json, trainer, axes)
        self.outputs = model.outputs
        self.name, self.checkpoint = f"the network of fold {fold}", model.checkpoint(fold)

    @torch.inference_mode()
    def predict_sliding_window_return_logits(self, input_image: torch.Tensor) -> torch.Tensor:
        """nnU-Net pads, predicts and cuts the padding off the logits here; we cut it off the map too.

        Raises:
            NotFinite: logits or map are not finite, which nnU-Net would take for background.
        """
        logits = super().predict_sliding_window_return_logits(input_image)
        self.maps = {}
        if self._sum is not None and self._weight is not None:
            assert isinstance(self.network, MaskedUncertaintyNetwork)
            patch = self.configuration_manager.patch_size
            _, inside = pad_nd_image(input_image, patch, "constant", {"value": 0}, True, None)
            mean = (self._sum / self._weight)[tuple(inside[1:])]
            joint = self.network.as_map(mean[None, None], logits[None].to(mean.device))
            self.maps = {self.network.map_name: joint[0, 0]}
        for values in (logits, *self.maps.values()):
            if wrong := values.numel() - int(torch.isfinite(values).sum()):
                refuse_not_finite(wrong, values.numel(), self.name, self._why_not_finite())
        return logits

    @torch.inference_mode()
    def _internal_predict_sliding_window_return_logits(
        self, data: torch.Tensor, slicers: Any, do_on_device: bool = True
    ) -> torch.Tensor:
        """nnU-Net predicts tile by tile here, in the order of ``slicers``; we add up the map on the way.

        Infinite logits are nnU-Net's own error, without a name.
        """
        self._sum = self._weight = None
        if isinstance(self.network, MaskedUncertaintyNetwork):
            where = self.device if do_on_device else torch.device("cpu")
            self._sum = torch.zeros(data.shape[1:], dtype=torch.float32, device=where)
            self._weight = torch.zeros_like(self._sum)
        self._tiles = iter(slicers)
        try:
            logits = super()._internal_predict_sliding_window_return_logits(data, slicers, do_on_device)
        except RuntimeError as error:
            if FOUND_INFINITY not in str(error):
                raise
            problem = Problem(self.name, "infinite values", "finite values", self._why_not_finite())
            raise NotFinite(TITLE, [problem], exit_code=1) from error
        assert isinstance(logits, torch.Tensor)
        return logits

    def _why_not_finite(self) -> str:
        """Return what to do about an output that is not finite; the weights are: they were checked when loaded."""
        where = "" if self.checkpoint is None else f", and that {self.checkpoint} is undamaged"
        advice = f"check the images' units and no-data values{where}"
        return f"{advice}; fp16 may be too narrow: predict without a GPU" if self.device.type == "cuda" else advice

    @torch.inference_mode()
    def _internal_maybe_mirror_and_predict(self, x: torch.Tensor) -> torch.Tensor:
        """nnU-Net predicts one tile here, averaged over mirrored copies if asked; so is the map."""
        network = self.network
        if not isinstance(network, MaskedUncertaintyNetwork):
            return super()._internal_maybe_mirror_and_predict(x)
        axes = [axis + 2 for axis in self.allowed_mirroring_axes or ()] if self.use_mirroring else []
        flips = [f for n in range(len(axes) + 1) for f in itertools.combinations(axes, n)]
        logits = values = None
        for flip in flips:
            z, u = (torch.flip(t, flip) for t in network(torch.flip(x, flip), uncertainty=True))
            logits = z if logits is None else logits + z
            values = network.averaged(z, u) if values is None else values + network.averaged(z, u)
        assert logits is not None
        assert values is not None
        self._add_tile(values[0, 0] / len(flips))
        return logits / len(flips)

    def _add_tile(self, values: torch.Tensor) -> None:
        assert self._sum is not None
        assert self._weight is not None
        weight: torch.Tensor | float = 1.0
        if self.use_gaussian:
            size, where = tuple(self.configuration_manager.patch_size), self._sum.device
            weight = compute_gaussian(size, sigma_scale=1 / 8, value_scaling_factor=10, device=where).float()
        tile = next(self._tiles)[1:]
        self._sum[tile] += (values.to(self._sum.device) * weight).reshape(self._sum[tile].shape)
        self._weight[tile] += weight


def _trainer(name: str, model: ModelFolder) -> Any:
    """Find the trainer class that builds the network of a checkpoint."""
    known = {trainer.__name__: trainer for trainer in (UncertaintyTrainer, nnUNetTrainer)}
    found = known.get(name) or recursive_find_trainer_class_by_name(name)  # which imports all trainers
    if found is None:
        expected, advice = "a trainer that is installed", "install it, or set nnUNet_extTrainer to its folder"
        problem = Problem(str(model.root), f"trainer {name}", expected, advice)
        raise ProblemsFound("The model cannot be used.", [problem])
    return found


@lru_cache(maxsize=16)  # all folds of a run predict a new case
def loaded_predictor(
    model: ModelFolder, fold: int, tile_step: float, mirroring: bool, trust: bool
) -> UncertaintyPredictor:
    """Return a predictor with a fold's network on this process's device, and keep it for the next call.

    ``tile_step`` is the sliding window's, in patch sizes; with ``mirroring`` a tile takes 8 passes.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    predictor = UncertaintyPredictor(
        tile_step_size=tile_step,
        use_mirroring=mirroring,
        perform_everything_on_device=device.type == "cuda",
        device=device,
        allow_tqdm=False,
    )
    predictor.load_fold(model, fold, trust)
    return predictor
