"""A prepared case as one fold's networks predict it, in native space: labels, probabilities and maps."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uncseg.config.training_sections import Memory
from uncseg.dataset.cases import Case, oracle_path
from uncseg.dataset.finite import naming, require_finite_channels
from uncseg.dataset.volumes import read_volume
from uncseg.estimators.chosen_map import chosen_map
from uncseg.estimators.one_pass import OnePass, estimate_all, estimate_one_pass
from uncseg.estimators.registry import ESTIMATORS, FLOORS, HEAD, LEARNT
from uncseg.evaluation.case_scores import definition_of_scores
from uncseg.evaluation.overlap import region_mask
from uncseg.files import digest
from uncseg.layout import UNCERTAINTY
from uncseg.method.checkpoints import RESUME_PREFIX, load_resume_file
from uncseg.method.inference.label_meaning import region_probabilities
from uncseg.method.inference.learnt_failures import LearntFailures, failure_digest, failures_of
from uncseg.method.inference.model_folder import ModelFolder
from uncseg.method.inference.native_space import (
    GridPrediction,
    NativePrediction,
    decision_probability,
    native_maps,
    native_prediction,
    predict_grid,
)
from uncseg.method.inference.predictor import UncertaintyPredictor, loaded_predictor
from uncseg.method.inference.several_passes_on_cases import estimate_grid
from uncseg.method.memory.error_memory import ErrorMemory
from uncseg.method.training.keeping import keeping_of
from uncseg.runs.fold_request import FoldRequest
from uncseg.runs.own_folds import checkpoint_digest
from uncseg.tasks.outputs import Outputs


@dataclass(frozen=True)
class RegionPrediction:
    """What is predicted for one region of a case, in native space, (D, H, W)."""

    p: np.ndarray
    """Its probability, float32 in [0, 1]."""
    chosen: np.ndarray
    """The decision on it, bool."""
    failures: dict[str, np.ndarray]
    """P(the decision is wrong) by each estimator that the fold has learnt from the others, float32."""

    def maps(self) -> dict[str, np.ndarray]:
        """Return the floors of the region, and what is learnt of it, by name, (D, H, W); not the constant."""
        p, told = self.p, {name: as_batch(values) for name, values in self.failures.items()}
        names = [name for name in (*FLOORS, *LEARNT) if ESTIMATORS[name].source == "p_main" or name in told]
        pass_of_region = OnePass(as_batch(p), as_batch(np.maximum(p, 1 - p)), as_batch(self.chosen), **told)
        return {name: values[0, 0].numpy() for name, values in estimate_one_pass(names, pass_of_region).items()}


@dataclass(frozen=True)
class Prediction:
    """Everything predicted for one case, in native space, (D, H, W)."""

    labels: np.ndarray
    p_main: np.ndarray
    """Probability of the main region, float32 in [0, 1]."""
    max_probability: np.ndarray
    maps: dict[str, np.ndarray]
    """error, variance_stable, visited, and uncertainty if the network has the head."""
    regions: dict[str, RegionPrediction]
    """By region, in the order of the task."""
    failures: dict[str, np.ndarray]
    """Those of the main region."""
    uncertainty: tuple[str, np.ndarray] | None
    """The map that is the case's uncertainty, with its name; see ``estimators/chosen_map.py``."""
    estimates: dict[str, NativePrediction]
    """One per estimator of several passes that the experiment asks for, each with its own segmentation."""
    opinions: dict[str, np.ndarray]
    """Probability of the main region by each of these estimators, float32 in [0, 1]."""


def loaded_members(request: FoldRequest) -> list[UncertaintyPredictor]:
    """Return the fold's networks with their final checkpoints: the run's own first, then those of a deep ensemble."""
    settings, configuration = request.experiment.evaluation, request.experiment.plan.configuration
    count = request.experiment.training.members if settings.estimators.combine_members else 1
    models = (ModelFolder(request.run.member(number).model, configuration) for number in range(count))
    return [loaded_predictor(m, request.fold, settings.tile_step, settings.mirroring, request.trust) for m in models]


def loaded_network(request: FoldRequest) -> UncertaintyPredictor:
    """Return the fold's own network with its final checkpoint."""
    settings, model = (
        request.experiment.evaluation,
        ModelFolder(request.run.model, request.experiment.plan.configuration),
    )
    return loaded_predictor(model, request.fold, settings.tile_step, settings.mirroring, request.trust)


def preprocessed_case(request: FoldRequest, case_id: str) -> tuple[np.ndarray, dict[str, Any]]:
    """Return a case as the network takes it, (channels, D, H, W) float32, and nnU-Net's properties.

    Raises:
        NotFinite: naming the channels whose prepared values are not finite.
    """
    from uncseg.dataset.prepared_cases import PreparedCases

    model = ModelFolder(request.run.model, request.experiment.plan.configuration)
    folder = request.prepared.dataset / model.configuration_manager.data_identifier
    volume, _, _, properties = PreparedCases(str(folder), [case_id]).load_case(case_id)
    data = np.asarray(volume[:])
    modalities = request.experiment.dataset.task.modalities
    require_finite_channels(data, modalities, f"delete {request.prepared.root}: the same command prepares it again")
    return data, properties


def predict_case(request: FoldRequest, case_id: str) -> Prediction:
    """Predict a case from its preprocessed volume with one fold's final checkpoint.

    Raises:
        ProblemsFound: values of the prepared case, or of a prediction of it, are not finite.
    """
    estimators = request.experiment.evaluation.estimators
    with naming(case_id):
        members = loaded_members(request)
        predictor = members[0]
        data, properties = preprocessed_case(request, case_id)
        grid = predict_grid(predictor, data)
        native = native_prediction(grid, predictor, properties, request.cpus)
        regions = _regions(request, data, grid, native, properties)
        memory = _memory_maps(request, case_id, tuple(int(n) for n in data.shape[1:]))
        maps = native_maps(memory, properties, predictor) | native.maps
        estimates = {
            name: native_prediction(estimate_grid(name, members, data, estimators), predictor, properties, request.cpus)
            for name in estimators.several_pass
        }
    probabilities, outputs = native.probabilities, predictor.outputs
    p_main = _p_main(probabilities, outputs)
    max_probability = decision_probability(probabilities, p_main, outputs.kind == "regions")
    opinions = {name: _p_main(estimate.probabilities, outputs) for name, estimate in estimates.items()}
    failures = regions[request.experiment.dataset.task.main_region].failures
    uncertainty = chosen_map({HEAD: maps.get(UNCERTAINTY)} | failures, request.experiment.evaluation.uncertainty)
    return Prediction(native.labels, p_main, max_probability, maps, regions, failures, uncertainty, estimates, opinions)


def _p_main(probabilities: np.ndarray, outputs: Outputs) -> np.ndarray:
    return probabilities[outputs.main_channels].sum(0).clip(0, 1).astype(np.float32)


def _regions(
    request: FoldRequest,
    data: np.ndarray,
    grid: GridPrediction,
    native: NativePrediction,
    properties: dict[str, Any],
) -> dict[str, RegionPrediction]:
    """Return what is predicted for each region, and what the fold has learnt from the others of its failures."""
    model = ModelFolder(request.run.model, request.experiment.plan.configuration)
    task, step = request.experiment.dataset.task, request.experiment.evaluation.tile_step
    probabilities = region_probabilities(native.probabilities, model.region_channels)
    learnt = LearntFailures.of(model, request.fold)
    corrected = {} if learnt is None else learnt.natively(learnt.on_grid(data, grid, step), native, properties)
    found = {}
    for number, region in enumerate(task.regions):
        chosen = region_mask(native.labels, region, task)
        failures = {name: failures_of(values[number], chosen) for name, values in corrected.items()}
        found[region] = RegionPrediction(probabilities[number], chosen, failures)
    return found


def _memory_maps(request: FoldRequest, case_id: str, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Return what the validation memory holds of a case, (D, H, W) on the preprocessed grid."""
    d, h, w = shape
    memory = _validation_memory(request.run.fold(request.fold), request.experiment.memory)
    box = memory.read_box(case_id, (slice(0, d), slice(0, h), slice(0, w)))
    error, variance = box.values["error"][0, 0].numpy(), box.values["variance"][0, 0].numpy()
    return {"error": error, "variance_stable": variance, "visited": box.visited[0, 0].numpy()}


@lru_cache(maxsize=1)
def _validation_memory(fold_folder: Path, settings: Memory) -> ErrorMemory:
    memory = keeping_of(settings).memories(settings.alpha)["validation"]
    memory.load_state(load_resume_file(max(fold_folder.glob(f"{RESUME_PREFIX}*.pt")))["memories"]["validation"])
    return memory


def one_pass_maps(case: Case, prediction: Prediction, predicted_main: np.ndarray) -> dict[str, np.ndarray]:
    """Return every map of one pass by name, (D, H, W) float32 in [0, 1], except the constant.

    A phantom's oracle is among them. ``predicted_main`` is the predicted main region, bool.
    """
    q = read_oracle(case)
    known = OnePass(
        p_main=as_batch(prediction.p_main),
        max_probability=as_batch(prediction.max_probability),
        predicted_main=as_batch(predicted_main),
        variance_stable=as_batch(prediction.maps["variance_stable"]),
        q=None if q is None else as_batch(q),
        **{name: as_batch(values) for name, values in prediction.failures.items()},
    )
    head = {name: values for name, values in prediction.maps.items() if name == UNCERTAINTY}
    return head | {name: estimate[0, 0].numpy() for name, estimate in estimate_all(known).items()}


def read_oracle(case: Case) -> np.ndarray | None:
    """Return a phantom's rater probability q, (D, H, W) float32; None for a real case."""
    file = oracle_path(case)
    return None if file is None else read_volume(file).voxels.astype(np.float32)


def as_batch(volume: np.ndarray) -> torch.Tensor:
    """Return (D, H, W) voxels as the tensor (1, 1, D, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(volume))[None, None]


def source_digest(request: FoldRequest) -> str:
    """Return a digest of what a fold's predictions and scores depend on: its checkpoints and how they are applied."""
    evaluation = request.experiment.evaluation
    estimators = evaluation.estimators
    members = range(request.experiment.training.members if estimators.several_pass else 1)
    checkpoints = [checkpoint_digest(request.run.member(number), request.fold) for number in members]
    applied = [
        evaluation.tile_step,
        evaluation.mirroring,
        estimators.model_dump(exclude={"one_pass"}),
    ]
    learnt = failure_digest(ModelFolder(request.run.model, request.experiment.plan.configuration), request.fold)
    scored = definition_of_scores(request.experiment.dataset.task)
    return digest([scored, request.fold, checkpoints, applied, *([learnt] if learnt else [])])
