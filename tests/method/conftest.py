"""A trainer on real preprocessed phantoms."""

import contextlib
import copy

import pytest
import torch

from uncseg.config.experiment import load_experiment
from uncseg.dataset.preparation import nnunet_environment
from uncseg.files import read_json
from uncseg.method.settings import TrainerSettings
from uncseg.method.training.trainer import UncertaintyTrainer
from uncseg.runs.preparation_tasks import prepare_cases


@pytest.fixture
def trainer_for(local_ray, experiment_file, four_cases, tmp_path, monkeypatch):
    """A trainer of fold 0 for the small experiment with some fields replaced, and on other cases where given."""

    def make(results="results", cases=four_cases, **sections):
        experiment = load_experiment(experiment_file(cases, **sections))
        prepared = prepare_cases(experiment)
        for name, value in nnunet_environment(prepared, tmp_path / results).items():
            monkeypatch.setenv(name, value)
        plans = TrainerSettings.from_experiment(experiment).into_plans(read_json(prepared.plans))
        with contextlib.redirect_stdout(None):
            trainer = UncertaintyTrainer(
                copy.deepcopy(plans),
                experiment.plan.configuration,
                0,
                read_json(prepared.dataset / "dataset.json"),
                torch.device("cpu"),
            )
            trainer.initialize()
        trainer.experiment = experiment
        trainer.epochs = {}
        trainer.on_epoch = trainer.epochs.__setitem__
        return trainer

    return make
