"""The run that an error network judges, or that teaches a head: what is checked before anything is trained."""

import shutil
from dataclasses import asdict, replace

import pytest

from uncseg.config.experiment import load_experiment, save_experiment
from uncseg.errors import ProblemsFound
from uncseg.files import json_text, write_text
from uncseg.layout import RunFolder
from uncseg.runs.needed_run import require_needed_run, require_same_data
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

    def make(model, folds=(0, 1), digests=None, error_network=None, members=1, **judge):
        first, prepared = prepared_experiment("judged", model=model, **(NO_WEIGHTS if model == REGIONS else {}))
        first = first.model_copy(update={"training": first.training.model_copy(update={"members": members})})
        run = RunFolder(first.run_folder)
        results = run.results / "Dataset" / "Trainer__Plans__Configuration"
        for fold in folds:
            (results / f"fold_{fold}").mkdir(parents=True)
        save_experiment(first, run.experiment)
        data = record_data(run, first, prepared)
        write_text(run.data, json_text(asdict(replace(data, digests=data.digests | (digests or {})))))
        shutil.copy(prepared.plans, results / "plans.json")
        shutil.copy(prepared.dataset / "dataset.json", results / "dataset.json")
        for fold in folds:
            (results / f"fold_{fold}" / "checkpoint_final.pth").touch()
        for number in range(1, members):
            shutil.copytree(run.results, run.member(number).results)
        if "memory" not in judge:
            judge["model"] = {"error_network": error_network or {"run": "judged"}}
        return prepared_experiment("judging", **judge)

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
        require_needed_run(experiment, [0, 1])


def test_a_run_of_another_task_is_refused(judged_run):
    """Its network may have as many channels, but its failures would be those of another region."""
    task = built_in("gli-2023").model_dump(mode="json") | {"main_region": "TC"}
    experiment, _ = judged_run({}, dataset={"task": task})
    with pytest.raises(ProblemsFound, match="task gli-2023 has other labels, regions or another main region"):
        require_needed_run(experiment, [0, 1])


def test_a_run_that_fits_is_accepted(judged_run):
    experiment, prepared = judged_run({})
    require_needed_run(experiment, [0, 1])
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
    require_needed_run(experiment, [1])
    require_same_data(experiment, [1], prepared)
    with pytest.raises(ProblemsFound, match="absent"):
        require_needed_run(experiment, [0, 1])


MEMBERS = {"source": "members", "run": "judged"}
CROSS_FITTED = {"source": "cross_fitted", "run": "judged"}


def learn(run, folds, **record):
    """Write the files of folds that have learnt from each other's failures."""
    for fold in folds:
        (run.fold(fold) / "failures.pth").touch()
        write_text(run.fold(fold) / "failures.json", json_text({"settings": {"trees": 0}, "losses": []} | record))


def run_beside(experiment):
    return RunFolder(experiment.run_folder.with_name("judged"))


def test_members_of_any_network_teach_a_head(judged_run):
    experiment, prepared = judged_run({}, memory=MEMBERS, members=3, plan={"base_features": 8})
    require_needed_run(experiment, [0, 1])
    require_same_data(experiment, [0, 1], prepared)


def test_all_members_are_needed(judged_run):
    experiment, _ = judged_run({}, memory=MEMBERS, members=3)
    member = run_beside(experiment).member(2)
    next(member.results.rglob("fold_1/checkpoint_final.pth")).unlink()
    require_needed_run(experiment, [0])
    with pytest.raises(ProblemsFound, match="without a finished fold 1"):
        require_needed_run(experiment, [0, 1])


def test_one_network_has_no_members_that_could_disagree(judged_run):
    experiment, _ = judged_run({}, memory=MEMBERS)
    with pytest.raises(ProblemsFound, match="judged, which has one network per fold"):
        require_needed_run(experiment, [0, 1])


def test_a_member_whose_folds_were_exchanged_does_not_teach(judged_run):
    """It has seen the cases that are new to the fold."""
    experiment, _ = judged_run({}, memory=MEMBERS, members=2)
    for number in (0, 1):
        for fold in (0, 1):
            folder = next(run_beside(experiment).member(number).results.rglob(f"fold_{fold}"))
            write_text(folder / "done.json", json_text({"fold": fold if number == 0 else 1 - fold, "epochs": 1}))
    with pytest.raises(ProblemsFound, match=r"(?s)members/1.*the training of fold 1"):
        require_needed_run(experiment, [0, 1])


@pytest.mark.parametrize(
    ("record", "is_enough"),
    [
        ({}, False),
        ({"settings": {"trees": 150}}, True),
        ({"settings": {"perceptron": 32}}, True),
        ({"losses": [0.7]}, True),
        ({"losses": [0.7], "fold": 7}, False),
    ],
)
def test_cross_fitted_failures_have_to_be_learnt(judged_run, record, is_enough):
    experiment, _ = judged_run({}, memory=CROSS_FITTED)
    with pytest.raises(ProblemsFound, match=r"(?s)learn from each other's failures 0, 1.*perceptron"):
        require_needed_run(experiment, [0, 1])
    learn(run_beside(experiment), (0, 1), **record)
    if is_enough:
        require_needed_run(experiment, [0, 1])
    else:
        with pytest.raises(ProblemsFound, match="failures 0, 1"):
            require_needed_run(experiment, [0, 1])


def test_a_head_is_taught_until_its_fold_has_ended(judged_run):
    experiment, _ = judged_run({}, memory=MEMBERS | {"run": "absent"})
    own = RunFolder(experiment.run_folder).results / "Dataset" / "Trainer__Plans__Configuration" / "fold_1"
    own.mkdir(parents=True)
    (own / "checkpoint_latest.pth").touch()
    with pytest.raises(ProblemsFound, match=r"memory\.run.*absent, and no such run"):
        require_needed_run(experiment, [1])
    (own / "checkpoint_final.pth").touch()
    require_needed_run(experiment, [1])


def test_a_teaching_run_on_another_split_is_refused(judged_run):
    """Its networks have seen the cases that are new to the fold."""
    experiment, prepared = judged_run({}, memory=MEMBERS, members=2, digests={"split": "other"})
    with pytest.raises(ProblemsFound, match="trained on split other"):
        require_same_data(experiment, [0, 1], prepared)


def test_a_teaching_run_with_other_voxels_is_refused(judged_run):
    experiment, prepared = judged_run({}, memory=MEMBERS, members=2, plan={"target_spacing_mm": [2, 1, 1]})
    with pytest.raises(ProblemsFound, match="another spacing than judged's"):
        require_same_data(experiment, [0, 1], prepared)
