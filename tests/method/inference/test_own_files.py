"""plans.json and dataset.json of a model folder, compared with what its checkpoints were trained with."""

import json

import pytest
import torch

from uncseg.errors import DamagedFile, ProblemsFound
from uncseg.layout import RunFolder
from uncseg.method.inference.model_folder import ModelFolder
from uncseg.runs.own_folds import done_record, foreign_folds

PLANS = {
    "plans_name": "nnUNetPlans",
    "configurations": {"3d_fullres": {"spacing": [1.0, 1.0, 1.0]}},
    "uncseg": {"model": {"head": True}, "training": {"epochs": 3, "loader_processes": 2}, "estimators": {}},
}
DATASET = {"labels": {"background": 0, "NCR": 1}, "channel_names": {"0": "t1n"}}


@pytest.fixture
def run(tmp_path):
    """A run whose fold 0 has ended, as its files tell; its checkpoint holds what nnU-Net's trainer was made with."""
    run = RunFolder(tmp_path / "run")
    folder = run.results / "Dataset501_Small" / "T__P__3d_fullres"
    (folder / "fold_0").mkdir(parents=True)
    save(folder, PLANS, DATASET)
    arguments = {"plans": PLANS, "dataset_json": DATASET, "device": torch.device("cpu")}
    torch.save({"network_weights": {"w": torch.ones(3)}, "init_args": arguments}, run.final_checkpoint(0))
    (run.fold(0) / "done.json").write_text(json.dumps(done_record(0, 3, run.final_checkpoint(0))))
    return run


def save(folder, plans, dataset):
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))


def without_head():
    return PLANS | {"uncseg": PLANS["uncseg"] | {"model": {"head": False}}}


def other_spacing():
    return PLANS | {"configurations": {"3d_fullres": {"spacing": [2.0, 1.0, 1.0]}}}


def without_settings():
    return {name: value for name, value in PLANS.items() if name != "uncseg"}


@pytest.mark.parametrize(
    ("plans", "dataset"),
    [
        (without_head(), DATASET),
        (other_spacing(), DATASET),
        (without_settings(), DATASET),
        (PLANS, DATASET | {"labels": {"background": 0, "ED": 1}}),
    ],
    ids=["settings", "spacing", "no settings", "labels"],
)
def test_edited_files_of_a_model_are_noticed_in_a_run_and_alone(run, plans, dataset):
    save(run.model, plans, dataset)
    (problem,) = foreign_folds(run, [0])
    assert "plans.json" in problem.where
    with pytest.raises(ProblemsFound, match=r"another plans\.json or dataset\.json"):
        ModelFolder(run.model, "3d_fullres").require_own_files([0])


def test_settings_that_may_change_between_folds_are_no_edit(run):
    training = PLANS["uncseg"]["training"] | {"loader_processes": 7}
    save(run.model, PLANS | {"uncseg": PLANS["uncseg"] | {"training": training, "estimators": {"dropout": 3}}}, DATASET)
    assert foreign_folds(run, [0]) == []
    ModelFolder(run.model, "3d_fullres").require_own_files([0])


def test_plans_of_nnunets_own_models_may_be_edited(run):
    arguments = {"plans": without_settings(), "dataset_json": DATASET}
    torch.save({"network_weights": {}, "init_args": arguments}, run.final_checkpoint(0))
    save(run.model, other_spacing(), DATASET)
    ModelFolder(run.model, "3d_fullres").require_own_files([0])


@pytest.mark.parametrize("content", ["{}", "[]", '{"labels": {}, "channel_names": {"0": "t1n"}}'])
def test_a_dataset_json_without_labels_is_damaged(run, content):
    (run.model / "dataset.json").write_text(content)
    with pytest.raises(DamagedFile, match=r"dataset\.json"):
        _ = ModelFolder(run.model, "3d_fullres").task
