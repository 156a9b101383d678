"""One new case, predicted by all folds of a run together: labels and uncertainty in its native space."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from uncseg.dataset.brats import REGIONS, BratsCase, write_image
from uncseg.dataset.check import check_case
from uncseg.errors import ProblemsFound
from uncseg.evaluation.overlap import region_mask, volume_ml
from uncseg.evaluation.uncertainty import protocol_mask
from uncseg.files import digest, read_json, write_json
from uncseg.layout import CaseFiles
from uncseg.method.checkpoints import FINAL
from uncseg.method.native_space import NativePrediction, predict_native
from uncseg.method.predictor import UncertaintyPredictor, loaded_predictor


@dataclass(frozen=True)
class PredictionTask:
    """What to predict with, and where to write."""

    model: Path
    """nnU-Net model folder."""
    folds: tuple[int, ...]
    """Averaged."""
    configuration: str
    output: Path
    threads: int
    tile_step: float
    mirroring: bool
    trust: bool = False
    """Let checkpoints run code of their own."""

    @property
    def source(self) -> str:
        """What outputs are made from: the checkpoints and how they are applied."""
        files = [(self.model / f"fold_{fold}" / FINAL).stat() for fold in self.folds]
        states = [[file.st_size, file.st_mtime_ns] for file in files]
        return digest([self.folds, states, self.tile_step, self.mirroring])


def predict_new_case(task: PredictionTask, case: BratsCase) -> dict[str, Any]:
    """Predict a case and write CASE.nii.gz, CASE_uncertainty.nii.gz and, last, CASE.json; skipped where all is there.

    Labels come from the folds' mean probabilities; the uncertainty, in [0, 1], is the folds' mean inside the predicted
    tumour dilated by two voxels, and 0 outside.

    Returns:
        The content of CASE.json: case, folds, volume of each region in mL, the uncertainty's mean in that mask and its
        sum over voxels.

    Raises:
        ProblemsFound: the case's files cannot be used.
    """
    torch.set_num_threads(task.threads)
    files = CaseFiles(task.output, case.case_id)
    source = task.source
    if files.scores.is_file():
        before = read_json(files.scores)
        if before.get("source") == source:
            assert isinstance(before, dict)
            return before
        files.scores.unlink()
    problems = check_case(case)
    if problems:
        raise ProblemsFound(f"{case.case_id} cannot be predicted.", problems, exit_code=1)
    labels, uncertainty = _predict(task, case)
    image = sitk.ReadImage(str(case.images[0]))
    record: dict[str, Any] = {"case": case.case_id, "folds": list(task.folds), "source": source}
    for region in REGIONS:
        record[f"volume_{region.lower()}_ml"] = volume_ml(region_mask(labels, region), image.GetSpacing())
    if uncertainty is not None:
        tumour = region_mask(labels, "WT")
        mask = protocol_mask(tumour, tumour, "union")
        uncertainty = (uncertainty * mask).astype(np.float32)
        record["mean_uncertainty"] = float(uncertainty[mask].mean()) if mask.any() else 0.0
        record["expected_wrong_voxels"] = float(uncertainty.sum())
        write_image(files.map("uncertainty"), uncertainty, image)
    write_image(files.segmentation, labels.astype(np.uint8), image)
    write_json(files.scores, record)
    return record


def _predict(task: PredictionTask, case: BratsCase) -> tuple[np.ndarray, np.ndarray | None]:
    """Labels and unmasked uncertainty, (D, H, W); the folds share plans, so the case is preprocessed once."""
    data: np.ndarray | None = None
    properties: dict = {}
    predictor: UncertaintyPredictor | None = None
    total: NativePrediction | None = None
    for fold in task.folds:
        predictor = loaded_predictor(task.model, fold, task.configuration, task.tile_step, task.mirroring, task.trust)
        if data is None:
            data, properties = _preprocess(predictor, case)
        one = predict_native(predictor, data, properties, task.threads)
        total = one if total is None else _sum(total, one)
    assert predictor is not None
    assert total is not None
    labels = predictor.label_manager.convert_probabilities_to_segmentation(total.probabilities / len(task.folds))
    return labels, None if total.uncertainty is None else total.uncertainty / len(task.folds)


def _preprocess(predictor: UncertaintyPredictor, case: BratsCase) -> tuple[np.ndarray, dict]:
    plans, configuration = predictor.plans_manager, predictor.configuration_manager
    preprocessor = configuration.preprocessor_class(verbose=False)
    images = [str(file) for file in case.images]
    data, _, properties = preprocessor.run_case(images, None, plans, configuration, predictor.dataset_json)
    return data, properties


def _sum(a: NativePrediction, b: NativePrediction) -> NativePrediction:
    both = None if a.uncertainty is None or b.uncertainty is None else a.uncertainty + b.uncertainty
    return NativePrediction(a.labels, a.probabilities + b.probabilities, both)
