"""What nnU-Net is told about a task, and which volumes count."""

import json

import numpy as np
import pytest

from uncseg.config.experiment import Experiment
from uncseg.dataset.fingerprint import survey_case
from uncseg.dataset.phantom import write_phantoms
from uncseg.dataset.preparation import chosen_cases, dataset_description, preparation_digest, survey_folder
from uncseg.dataset.scan import scan_folder
from uncseg.dataset.volumes import read_volume
from uncseg.tasks.built_in_tasks import built_in
from uncseg.tasks.task import Task


@pytest.mark.parametrize(
    ("task", "labels", "regions", "order"),
    [
        (
            "gli-2023",
            {"NCR": 1, "ED": 2, "ET": 3},
            {"WT": [1, 2, 3], "TC": [1, 3], "ET": [3]},
            [2, 1, 3],  # nnU-Net's example for BraTS: whole tumour, tumour core, enhancing tumour
        ),
        (
            "gli-2024",
            {"NETC": 1, "SNFH": 2, "ET": 3, "RC": 4},
            {"WT": [1, 2, 3], "TC": [1, 3], "ET": [3], "RC": [4]},
            [2, 1, 3, 4],
        ),
    ],
)
def test_dataset_json_has_the_tasks_labels_or_regions(task, labels, regions, order):
    channels = {"0": "T1n", "1": "T1c", "2": "T2w", "3": "T2f"}
    described = dataset_description("labels", 7, built_in(task))
    assert described["labels"] == {"background": 0, **labels}
    assert (described["channel_names"], described["numTraining"]) == (channels, 7)
    assert "regions_class_order" not in described
    described = dataset_description("regions", 7, built_in(task))
    assert described["labels"] == {"background": 0, **regions}
    assert described["regions_class_order"] == order


def test_names_of_channels_keep_nnunets_normalisation():
    from nnunetv2.preprocessing.normalization.default_normalization_schemes import CTNormalization
    from nnunetv2.preprocessing.normalization.map_channel_name_to_normalization import get_normalization_scheme

    for name in ("CT", "ct"):
        task = Task.model_validate({"modalities": [name, "PET"], "labels": {"a": 1}})
        names = dataset_description("labels", 1, task)["channel_names"]
        assert get_normalization_scheme(names["0"]) is CTNormalization
        assert names["1"] == "PET"


def test_volumes_are_those_of_the_main_region(tmp_path):
    task = built_in("gli-2024")
    write_phantoms(tmp_path / "cases", cases=1, size=28, seed=2, task=task)
    (case,) = scan_folder(tmp_path / "cases", task=task).cases
    stored = read_volume(case.reference).voxels
    assert (stored == 4).any()
    survey = survey_case(tmp_path, case, 100, task)
    # voxels of 1 mm³; the resection cavity is no tumour
    assert survey["volume_ml"] == np.count_nonzero((stored > 0) & (stored < 4)) / 1000


def test_a_preparation_depends_on_the_task(tmp_path):
    cases = tmp_path / "cases"
    write_phantoms(cases, cases=2, size=24, seed=2, task=built_in("gli-2023"))
    dataset = {"path": cases}
    content = {"name": "a", "storage": {"path": tmp_path}, "split": {"folds": 2}}
    fields = built_in("gli-2023").model_dump(mode="json", exclude={"meanings"})
    images = {"t1n": "-t1c", "t1c": "-t1n", "t2w": "-t2w", "t2f": "-t2f"}
    swapped = {**fields["conventions"]["2023"], "images": images}
    without_tc = {region: labels for region, labels in fields["regions"].items() if region != "TC"}
    others = {
        "task": {"task": fields},
        "named": {"task": "gli-2023"},
        "regions": {"task": {**fields, "regions": without_tc}},
        "order": {"task": {**fields, "modalities": ["t1c", "t1n", "t2w", "t2f"]}},
        "swapped": {"task": {**fields, "conventions": {"2023": swapped}}},
        "main": {"task": {**fields, "main_region": "TC"}},
        "convention": {"convention": "2018"},
    }
    digests = {}
    for name, change in others.items():
        experiment = Experiment.model_validate({**content, "dataset": {**dataset, **change}})
        found, problems = chosen_cases(experiment)
        assert problems == []
        digests[name] = preparation_digest(experiment, found), survey_folder(experiment, found)
    assert digests["task"] == digests["named"]
    assert len({digest for digest, _ in digests.values()}) == 6
    # the fingerprint of all labels does not depend on regions, but on who has a tumour of which volume
    assert digests["regions"][1] == digests["task"][1]
    assert len({survey for _, survey in digests.values()}) == 5


def test_files_of_an_nnunet_dataset_may_lie_elsewhere(tmp_path):
    task, raw = Task.model_validate({"modalities": ["t2"], "labels": {"a": 1}}), tmp_path / "raw"
    write_phantoms(tmp_path / "elsewhere", cases=2, size=24, seed=2, task=task)
    for name in ("imagesTr", "labelsTr"):
        (raw / name).mkdir(parents=True)
    listed = {
        case.name: {"images": [str(case / f"{case.name}-t2.nii.gz")], "label": str(case / f"{case.name}-seg.nii.gz")}
        for case in (tmp_path / "elsewhere").iterdir()
        if case.is_dir()
    }
    described = {"channel_names": {"0": "t2"}, "labels": {"background": 0, "a": 1}, "dataset": listed}
    (raw / "dataset.json").write_text(json.dumps(described))
    content = {"name": "a", "split": {"folds": 2}, "dataset": {"path": raw, "task": task.model_dump(mode="json")}}
    experiment = Experiment.model_validate(content)
    cases, problems = chosen_cases(experiment)
    assert (len(cases), problems) == (2, [])
    before = preparation_digest(experiment, cases)
    cases[0].images[0].touch()
    assert preparation_digest(experiment, cases) != before


def test_a_preparation_depends_on_the_order_of_regions(tmp_path):
    """It is that of nnU-Net's channels with ``model.output: regions``; two orders must not share one dataset.json."""
    write_phantoms(tmp_path / "cases", cases=2, size=24, seed=2, task=built_in("gli-2024"))
    fields = built_in("gli-2024").model_dump(mode="json")
    orders = fields["regions"], {"RC": ["RC"], **fields["regions"]}
    dataset = {"path": tmp_path / "cases"}
    content = {"name": "a", "storage": {"path": tmp_path}, "split": {"folds": 2}, "model": {"output": "regions"}}
    experiments = [
        Experiment.model_validate({**content, "dataset": {**dataset, "task": {**fields, "regions": regions}}})
        for regions in orders
    ]
    digests = [preparation_digest(experiment, chosen_cases(experiment)[0]) for experiment in experiments]
    assert digests[0] != digests[1]
