"""The way of a case through the product, without Ray: what is stored for training, predicted and scored."""

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from uncseg.config.experiment import Experiment
from uncseg.dataset import fingerprint
from uncseg.dataset import preparation as steps
from uncseg.dataset.cases import Case
from uncseg.dataset.inputs import find_inputs
from uncseg.dataset.preprocessing import preprocess_case
from uncseg.evaluation.find_pairs import find_pairs
from uncseg.evaluation.pairs import score_pair
from uncseg.files import read_json, write_json
from uncseg.layout import CaseFiles, PreparedFolder
from uncseg.method.settings import TrainerSettings
from uncseg.method.training.trainer import UncertaintyTrainer
from uncseg.runs.model_sources import PredictionModel, find_model
from uncseg.runs.new_case_tasks import PredictionOptions, PredictionRequest, predict_case, read_case, write_case
from uncseg.tasks.built_in_tasks import paper_task


@dataclass(frozen=True)
class Trained:
    """A small network and the plans that it was trained with."""

    model: PredictionModel
    prepared: PreparedFolder


def train_small_network(experiment: Experiment, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """Prepare an experiment's cases and train its fold 0, in this process."""
    prepared = prepare(experiment)
    for name, value in steps.nnunet_environment(prepared, folder).items():
        monkeypatch.setenv(name, value)
    plans = TrainerSettings.from_experiment(experiment).into_plans(read_json(prepared.plans))
    description = read_json(prepared.dataset / "dataset.json")
    with contextlib.redirect_stdout(None):
        trainer = UncertaintyTrainer(plans, experiment.plan.configuration, 0, description, torch.device("cpu"))
        trainer.run_training()
    return Trained(find_model(str(trainer.output_folder_base), folder), prepared)


def prepare(experiment: Experiment) -> PreparedFolder:
    """Do what the tasks of ``uncseg prepare`` do, one after the other."""
    cases, problems = steps.chosen_cases(experiment)
    task = experiment.dataset.task
    assert problems == []
    folder = steps.survey_folder(experiment, cases)
    prepared = steps.prepared_folder(experiment, "whole_way")
    surveys = {case.case_id: fingerprint.survey_case(folder, case, 1000, task) for case in cases}
    statistics = [
        fingerprint.channel_statistics(folder, list(surveys), channel, modality)
        for channel, modality in enumerate(task.modalities)
    ]
    fingerprint.write_fingerprint(folder, surveys, statistics)
    steps.write_raw_description(prepared, experiment.model.output, list(surveys), task)
    with contextlib.redirect_stdout(None):
        steps.plan(prepared, experiment, folder, len(cases))
    names = sorted(surveys)
    write_json(prepared.splits, [{"train": names[1:], "val": names[:1]}])
    for case in cases:
        assert preprocess_case(prepared, case, experiment.plan.configuration, task) == []
    return prepared


@dataclass(frozen=True)
class Stored:
    """What a preparation writes for a case."""

    images: np.ndarray
    """(C, D, H, W), normalised, on the grid of the plans."""
    labels: np.ndarray
    """(D, H, W) on the grid of the plans; -1 outside of the head."""
    raw_images: np.ndarray
    """(C, D, H, W) as nnU-Net's own commands read the raw folder."""
    raw_labels: np.ndarray
    """(D, H, W)."""


def store_for_training(trained: Trained, case: Case, folder: Path) -> Stored:
    """Survey and preprocess a case by the plans of a network."""
    survey = fingerprint.survey_case(folder / "survey", case, 1000, paper_task())
    assert survey["problems"] == []
    prepared, model = PreparedFolder(folder / "prepared", trained.prepared.dataset_name), trained.model.folder
    prepared.dataset.mkdir(parents=True)
    for file in (trained.prepared.plans, trained.prepared.dataset / "dataset.json"):
        shutil.copy(file, prepared.dataset)
    assert preprocess_case(prepared, case, model.configuration, paper_task()) == []
    stored = str(prepared.dataset / model.configuration_manager.data_identifier)
    images, labels, *_ = nnUNetDatasetBlosc2(stored, [case.case_id]).load_case(case.case_id)
    raw = prepared.raw_dataset
    files = [str(raw / "imagesTr" / f"{case.case_id}_{channel:04d}.nii.gz") for channel in range(4)]
    raw_images, _ = SimpleITKIO().read_images(files)
    raw_labels, _ = SimpleITKIO().read_seg(str(raw / "labelsTr" / f"{case.case_id}.nii.gz"))
    return Stored(np.asarray(images), np.asarray(labels)[0], raw_images, raw_labels[0])


def predict_folder(trained: Trained, cases: Path, case_id: str, output: Path) -> CaseFiles:
    """Predict a case of a folder, and return its files."""
    found = find_inputs(cases, trained.model.folder.dataset_json, task=paper_task()).cases
    (case,) = (case for case in found if case.case_id == case_id)
    request = PredictionRequest(trained.model, PredictionOptions(), output, threads=1)
    output.mkdir(parents=True, exist_ok=True)
    data, properties = read_case(request, case)
    write_case(request, case, "source", properties, predict_case(request, case_id, data))
    return CaseFiles(output, case_id)


def score_folder(predictions: Path, references: Path, case_id: str) -> dict[str, dict[str, float]]:
    """Score a case of a folder of predictions against its reference; return its figures by region."""
    (pair,) = (pair for pair in find_pairs(predictions, references).complete if pair.case_id == case_id)
    rows = {row["region"]: row for row in score_pair(pair, "unit")}
    return {region: {name: x for name, x in row.items() if not isinstance(x, str)} for region, row in rows.items()}
