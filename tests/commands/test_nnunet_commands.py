"""nnU-Net's own training command with our trainer, on what we prepared."""

import json
from pathlib import Path

from support.commands import assert_nnunet_runs
from uncseg.config.experiment import load_experiment
from uncseg.dataset.phantom import write_phantoms
from uncseg.dataset.preparation import nnunet_environment
from uncseg.files import read_json, write_json
from uncseg.method.settings import TrainerSettings
from uncseg.runs.preparation_tasks import prepare_cases


def test_nnunetv2_train_finds_the_trainer(local_ray, experiment_file, tmp_path):
    write_phantoms(tmp_path / "cases", cases=4, size=28, seed=0)
    training = {"epochs": 1, "iterations_per_epoch": 2, "val_iterations_per_epoch": 2}
    experiment = load_experiment(experiment_file(tmp_path / "cases", training=training, loss={"warmup_epochs": 0}))
    prepared = prepare_cases(experiment)
    write_json(prepared.plans, TrainerSettings.of(experiment).into_plans(read_json(prepared.plans)))
    results = tmp_path / "results"
    folders = nnunet_environment(prepared, results)
    assert_nnunet_runs(
        tmp_path, "nnUNetv2_train", 501, "3d_fullres", 0, "-tr", "UncertaintyTrainer", "-device", "cpu", **folders
    )
    (fold,) = results.rglob("fold_0")
    assert fold.parent.name == "UncertaintyTrainer__nnUNetPlans__3d_fullres"
    assert {"checkpoint_final.pth", "resume_epoch_0001.pt"} <= {file.name for file in fold.iterdir()}
    # nnU-Net's validation of the whole cases ran too
    summary = json.loads(Path(fold, "validation", "summary.json").read_text())
    assert len(summary["metric_per_case"]) == 2
