"""nnU-Net's training command with our trainer, on a dataset that we prepared."""

import json
from pathlib import Path

from support.commands import run_nnunet
from uncseg.config.experiment import load_experiment
from uncseg.dataset.preparation import nnunet_environment
from uncseg.files import read_json, write_json
from uncseg.method.settings import TrainerSettings
from uncseg.runs.preparation_tasks import prepare_cases


def test_nnunetv2_train_finds_the_trainer(local_ray, four_cases, experiment_file, tmp_path):
    training = {"epochs": 1, "iterations_per_epoch": 2, "val_iterations_per_epoch": 2}
    sections = {"loss": {"warmup_epochs": 0}, "storage": {"path": str(tmp_path / "own")}}
    experiment = load_experiment(experiment_file(four_cases, training=training, **sections))
    prepared = prepare_cases(experiment)
    write_json(prepared.plans, TrainerSettings.from_experiment(experiment).into_plans(read_json(prepared.plans)))
    results = tmp_path / "results"
    variables = nnunet_environment(prepared, results)
    variables |= {
        "nnUNet_def_n_proc": "1",
        "nnUNet_n_proc_DA": "0",
    }  # each process imports nnU-Net, which takes seconds
    run_nnunet(
        tmp_path, "nnUNetv2_train", 501, "3d_fullres", 0, "-tr", "UncertaintyTrainer", "-device", "cpu", **variables
    )
    (fold,) = results.rglob("fold_0")
    assert fold.parent.name == "UncertaintyTrainer__nnUNetPlans__3d_fullres"
    assert {"checkpoint_final.pth", "resume_epoch_0001.pt"} <= {file.name for file in fold.iterdir()}
    # nnU-Net's validation of the whole cases ran too
    summary = json.loads(Path(fold, "validation", "summary.json").read_text())
    assert len(summary["metric_per_case"]) == 2
