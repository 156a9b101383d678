"""One case, predicted by the fold that did not see it: NIfTI files in its native space, and a row of scores."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from uncseg.config.sections import Memory
from uncseg.dataset.brats import REGIONS, BratsCase, oracle_path, read_reference, read_voxels, write_image
from uncseg.estimators import best_constant, estimate_all
from uncseg.evaluation.case_scores import SCORES_VERSION, score_case
from uncseg.evaluation.expectation import around_prediction, expected_dice
from uncseg.evaluation.overlap import dice, region_mask
from uncseg.evaluation.uncertainty import failure_map, protocol_mask, score_map
from uncseg.files import digest, read_json, write_json
from uncseg.layout import CASE_MAPS, CaseFiles
from uncseg.method.checkpoints import RESUME_PREFIX, load_resume_file
from uncseg.method.inference.model_folder import ModelFolder
from uncseg.method.inference.native_space import into_native, of_decision, predict_grid, to_native
from uncseg.method.inference.predictor import UncertaintyPredictor, loaded_predictor
from uncseg.method.inference.several_predictions import NativeEstimate, estimate_grid, estimate_into_native
from uncseg.method.memory.coordinates import make_memory
from uncseg.method.memory.error_memory import ErrorMemory
from uncseg.names import PROTOCOLS, SAMPLED
from uncseg.runs.fold_worker import FoldTask


@lru_cache(maxsize=1)
def _validation_memory(fold_folder: Path, settings: Memory) -> ErrorMemory:
    memory = make_memory(settings, ("error", "variance"))
    file = max(fold_folder.glob(f"{RESUME_PREFIX}*.pt"))
    memory.load_state(load_resume_file(file)["memories"]["validation"])
    return memory


@dataclass(frozen=True)
class Prediction:
    """Everything predicted for a case, native space, (D, H, W)."""

    labels: np.ndarray
    p_wt: np.ndarray
    max_probability: np.ndarray
    maps: dict[str, np.ndarray]
    """error, variance_stable, visited, and uncertainty where the network has the head."""
    estimates: dict[str, NativeEstimate]
    """Of the estimators that the experiment asks for; each has a segmentation of its own."""


def loaded_members(task: FoldTask) -> list[UncertaintyPredictor]:
    """The fold's networks with their final checkpoints: the run's own, and the others where the ensemble is chosen."""
    settings, configuration = task.experiment.evaluation, task.experiment.plan.configuration
    count = task.experiment.training.members if settings.estimators.deep_ensemble else 1
    models = (ModelFolder(task.run.member(number).model, configuration) for number in range(count))
    how = (settings.tile_step, settings.mirroring, task.trust)
    return [loaded_predictor(model, task.fold, *how) for model in models]


def preprocessed_case(task: FoldTask, case_id: str) -> tuple[np.ndarray, dict[str, Any]]:
    """A case as the network takes it, (channels, D, H, W) float32, and nnU-Net's properties."""
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    model = ModelFolder(task.run.model, task.experiment.plan.configuration)
    folder = task.prepared.dataset / model.configuration_manager.data_identifier
    volume, _, _, properties = nnUNetDatasetBlosc2(str(folder), [case_id]).load_case(case_id)
    return volume[:], properties


def predict_case(task: FoldTask, case_id: str) -> Prediction:
    """Predict a case from its preprocessed volume with one fold's final checkpoint."""
    estimators = task.experiment.evaluation.estimators
    members = loaded_members(task)
    predictor = members[0]
    data, properties = preprocessed_case(task, case_id)
    native = into_native(predict_grid(predictor, data), predictor, properties, task.cpus)
    known = _memory_of_case(task, case_id, tuple(int(n) for n in data.shape[1:]))
    maps = dict(zip(known, to_native(np.stack(list(known.values())), properties, predictor), strict=True))
    if native.uncertainty is not None:
        maps["uncertainty"] = native.uncertainty
    probabilities = native.probabilities
    regions = predictor.output == "regions"
    p_wt = probabilities[0] if regions else probabilities[1:].sum(0).clip(0, 1)
    most = of_decision(probabilities, p_wt, regions)
    estimates = {
        name: estimate_into_native(estimate_grid(name, members, data, estimators), predictor, properties, task.cpus)
        for name in estimators.sampled
    }
    return Prediction(native.labels, p_wt.astype(np.float32), most, maps, estimates)


def _memory_of_case(task: FoldTask, case_id: str, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """What the validation memory holds of a case, (D, H, W) on the preprocessed grid."""
    d, h, w = shape
    memory = _validation_memory(task.run.fold(task.fold), task.experiment.memory)
    known = memory.read_box(case_id, (slice(0, d), slice(0, h), slice(0, w)))
    error, variance = known.values["error"][0, 0].numpy(), known.values["variance"][0, 0].numpy()
    return {"error": error, "variance_stable": variance, "visited": known.visited[0, 0].numpy()}


def evaluate_case(task: FoldTask, case: BratsCase) -> dict[str, Any]:
    """Predict and score one case and write its files; what the same checkpoint has done already is only read.

    Returns:
        ``row``, with the columns of ``evaluation.tables``, and ``scores``, rows of
        :func:`~uncseg.evaluation.case_scores.score_case` for the regions.
    """
    torch.set_num_threads(task.cpus)
    files = CaseFiles(task.run.out_of_fold, case.case_id)
    source = made_from(task)
    if files.scores.is_file():
        record = read_json(files.scores)
        if record["source"] == source:
            assert isinstance(record, dict)
            return record
    reference, image = read_reference(case)
    prediction = predict_case(task, case.case_id)
    predicted = region_mask(prediction.labels, "WT")
    written = {"wt_probability": prediction.p_wt} | prediction.maps
    masked = around_prediction(prediction.maps.get("uncertainty"), predicted)
    if masked is not None:
        # the scores below use each protocol's own mask
        written |= {"uncertainty": masked, "uncertainty_unmasked": written["uncertainty"]}
    write_image(files.segmentation, prediction.labels.astype(np.uint8), image)
    for estimate in prediction.estimates.values():
        written |= estimate.maps
    for name in (*CASE_MAPS, *SAMPLED):
        if name in written:
            write_image(files.map(name), written[name].astype(np.float32), image)
    keys = {"case": case.case_id, "patient": case.patient, "fold": task.fold}
    scores = [keys | row for row in _scores(case, reference, prediction.labels, masked, image)]
    row = keys | _overlap_row(scores)
    row["expected_dice_wt"] = math.nan if masked is None or not predicted.any() else expected_dice(predicted, masked)
    row |= _uncertainty_row(case, reference, prediction) | _sampled_row(reference, prediction)
    record = {"source": source, "row": row, "scores": scores}
    write_json(files.scores, record)
    return record


def _scores(
    case: BratsCase, reference: np.ndarray, labels: np.ndarray, uncertainty: np.ndarray | None, image: sitk.Image
) -> list[dict[str, Any]]:
    """Rows of the regions; the head's one map stands for all of them, as in the challenge."""
    maps = None if uncertainty is None else dict.fromkeys(REGIONS, uncertainty)
    brain = read_voxels(case.images[0]) != 0
    return score_case(reference, labels, image.GetSpacing()[::-1], maps, brain)


def made_from(task: FoldTask) -> str:
    """What a case's outputs were made from: the fold's checkpoint and how it was applied."""
    status = task.run.final_checkpoint(task.fold).stat()
    settings = task.experiment.evaluation
    parts: list[Any] = [SCORES_VERSION, task.fold, status.st_size, status.st_mtime_ns]
    parts += [settings.tile_step, settings.mirroring]
    if settings.estimators.sampled:
        members = [
            task.run.member(n).final_checkpoint(task.fold).stat() for n in range(task.experiment.training.members)
        ]
        parts += [
            settings.estimators.model_dump(exclude={"one_pass"}),
            [(file.st_size, file.st_mtime_ns) for file in members],
        ]
    return digest(parts)


def _overlap_row(scores: Sequence[dict[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for of_region in scores:
        name = of_region["region"].lower()
        row[f"dice_{name}"] = of_region["dice"]
        row[f"reference_{name}_ml"] = of_region["reference_volume_ml"]
        row[f"predicted_{name}_ml"] = of_region["predicted_volume_ml"]
        row[f"failure_rate_{name}"] = of_region["failure_rate"]
    row["dice_mean"] = float(np.mean([row[f"dice_{region.lower()}"] for region in REGIONS]))
    return row


def _uncertainty_row(case: BratsCase, reference: np.ndarray, prediction: Prediction) -> dict[str, Any]:
    reference_wt, predicted_wt = region_mask(reference, "WT"), region_mask(prediction.labels, "WT")
    failure = failure_map(reference_wt, predicted_wt)
    visited = prediction.maps["visited"] > 0.5
    maps = one_pass_maps(case, prediction, predicted_wt)
    row: dict[str, Any] = {}
    for protocol in PROTOCOLS:
        mask = protocol_mask(reference_wt, predicted_wt, protocol)
        row[f"visited_share_{protocol}"] = float(visited[mask].mean()) if mask.any() else float("nan")
        constant = best_constant(_batch(failure.astype(np.float32)), _batch(mask.astype(np.float32)))[0, 0].numpy()
        for name, estimate in (maps | {"constant": constant}).items():
            # the memory knows only what was visited; everything else is judged on the whole mask
            seen = mask & visited if name == "variance_stable" else mask
            scores = score_map(estimate, failure, seen)
            row[f"{name}/{protocol}/rmsd_failure"] = scores["rmsd"]
            undefined = name == "constant" and np.isfinite(scores["rmsd"])
            row[f"{name}/{protocol}/corr_failure"] = 0.0 if undefined else scores["corr"]
        row[f"mask_voxels_{protocol}"] = int(mask.sum())
    return row


def _sampled_row(reference: np.ndarray, prediction: Prediction) -> dict[str, Any]:
    """Maps of several predictions, each against the failure of their own mean."""
    row: dict[str, Any] = {}
    reference_wt = region_mask(reference, "WT")
    for estimator, estimate in prediction.estimates.items():
        labels = estimate.prediction.labels
        predicted_wt = region_mask(labels, "WT")
        row |= {f"dice_{region.lower()}/{estimator}": dice(*_both(reference, labels, region)) for region in REGIONS}
        failure = failure_map(reference_wt, predicted_wt)
        for protocol in PROTOCOLS:
            mask = protocol_mask(reference_wt, predicted_wt, protocol)
            for name, values in estimate.maps.items():
                scores = score_map(values, failure, mask)
                row |= {f"{name}/{protocol}/{kind}_failure": scores[kind] for kind in ("rmsd", "corr")}
    return row


def _both(reference: np.ndarray, labels: np.ndarray, region: str) -> tuple[np.ndarray, np.ndarray]:
    return region_mask(reference, region), region_mask(labels, region)


def _batch(volume: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(volume))[None, None]


def one_pass_maps(case: BratsCase, prediction: Prediction, predicted_wt: np.ndarray) -> dict[str, np.ndarray]:
    """Every map of one pass by name, (D, H, W) float32 in [0, 1], without the constant; a phantom's oracle among them.

    Args:
        case: that was predicted.
        prediction: of it.
        predicted_wt: bool.
    """
    q_file = oracle_path(case)
    q = None if q_file is None else read_voxels(q_file).astype(np.float32)
    maps = estimate_all(
        p_wt=_batch(prediction.p_wt),
        max_probability=_batch(prediction.max_probability),
        predicted_wt=_batch(predicted_wt),
        variance_stable=_batch(prediction.maps["variance_stable"]),
        q=None if q is None else _batch(q),
    )
    arrays = {name: estimate[0, 0].numpy() for name, estimate in maps.items()}
    if "uncertainty" in prediction.maps:
        return {"uncertainty": prediction.maps["uncertainty"], **arrays}
    return arrays
