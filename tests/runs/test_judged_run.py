"""The run that an error network judges: what is checked before anything is trained."""

import shutil
from dataclasses import asdict, replace

import pytest

from uncseg.config.experiment import load_experiment, save_experiment
from uncseg.errors import ProblemsFound
from uncseg.files import json_text, write_text
from uncseg.layout import RunFolder
from uncseg.runs.judged_run import require_judged_run, require_same_data
from uncseg.runs.preparation_tasks import prepare_cases
from uncseg.runs.run_data import record_data
from uncseg.tasks.built_in_tasks import built_in

REGIONS = {"output": "regions"}
NO_WEIGHTS = {"loss": {"weight_ce": None}}


@pytest.fixture
def judged_run(local_ray, experiment_file, four_cases):
    """A run, and what beside it is to judge it: (the judge's experiment, its prepared folder)."""

    def prepared_experiment(name, **sections):
        file = experiment_file(four_cases, **sections)
        experiment = load_experiment(file, [f"name={name}"])
        return experiment, prepare_cases(experiment)

    def make(model, folds=(0, 1), digests=None, error_network=None, **judge):
        first, prepared = prepared_experiment("judged", model=model, **(NO_WEIGHTS if model == REGIONS else {}))
        run = RunFolder(first.run_folder)
        results = run.results / "Dataset" / "Trainer__Plans__Configuration"
        for fold in folds:
            (results / f"fold_{fold}").mkdir(parents=True)
        save_experiment(first, run.experiment)
        data = record_data(run, first, prepared)
        write_text(run.data, json_text(asdict(replace(data, digests=data.digests | (digests or {})))))
        for fold in folds:
            (results / f"fold_{fold}" / "checkpoint_final.pth").touch()
        shutil.copy(prepared.plans, results / "plans.json")
        return prepared_experiment("judging", model={"error_network": error_network or {"run": "judged"}}, **judge)

    return make


@pytest.mark.parametrize(
    ("model", "folds", "error_network", "found"),
    [
        ({}, (0, 1), {"run": "absent"}, "absent, and no such run"),
        ({}, (0, 1), {"run": "judging"}, "judging, and no such run"),
        ({}, (0,), {"run": "judged"}, "without a finished fold 1"),
        (REGIONS, (0, 1), {"run": "judged"}, "found labels; expected regions, as in judged"),
        ({"uncertainty": False, "heteroscedastic": True}, (0, 1), {"run": "judged"}, "heteroscedastic logits"),
        ({"error_network": {"run": "other"}}, (0, 1), {"run": "judged"}, "an error network itself"),
    ],
    ids=["no such run", "itself", "unfinished", "another head", "heteroscedastic", "an error network"],
)
def test_a_run_that_does_not_fit_is_refused(judged_run, model, folds, error_network, found):
    experiment, _ = judged_run(model, folds, error_network=error_network)
    with pytest.raises(ProblemsFound, match=found):
        require_judged_run(experiment, [0, 1])


def test_a_run_of_another_task_is_refused(judged_run):
    """Its network may have as many channels, but its failures would be those of another region."""
    task = built_in("gli-2023").model_dump(mode="json") | {"main_region": "TC"}
    experiment, _ = judged_run({}, dataset={"task": task})
    with pytest.raises(ProblemsFound, match="task gli-2023 has other labels, regions or another main region"):
        require_judged_run(experiment, [0, 1])


def test_a_run_that_fits_is_accepted(judged_run):
    experiment, prepared = judged_run({})
    require_judged_run(experiment, [0, 1])
    require_same_data(experiment, [0, 1], prepared)


def test_a_run_on_another_split_is_refused(judged_run):
    experiment, prepared = judged_run({}, digests={"split": "other"})
    with pytest.raises(ProblemsFound, match="trained on split other"):
        require_same_data(experiment, [0, 1], prepared)


def test_a_run_of_another_plan_is_refused(judged_run):
    experiment, prepared = judged_run({}, plan={"base_features": 8})
    with pytest.raises(ProblemsFound, match="another architecture than judged's"):
        require_same_data(experiment, [0, 1], prepared)


def test_a_fold_that_has_begun_no_longer_needs_the_judged_run(judged_run):
    experiment, prepared = judged_run({}, error_network={"run": "absent"})
    own = RunFolder(experiment.run_folder).results / "Dataset" / "Trainer__Plans__Configuration" / "fold_1"
    own.mkdir(parents=True)
    (own / "checkpoint_latest.pth").touch()
    require_judged_run(experiment, [1])
    require_same_data(experiment, [1], prepared)
    with pytest.raises(ProblemsFound, match="absent"):
        require_judged_run(experiment, [0, 1])
