"""How an experiment names its task, and what is refused before anything runs."""

import json
from pathlib import Path

import pytest
import yaml

from uncseg.config.experiment import load_experiment, save_experiment
from uncseg.config.fields import flatten
from uncseg.errors import ProblemsFound
from uncseg.tasks.built_in_tasks import built_in, paper_task

SMALL = {"name": "small", "dataset": {"path": "cases"}}
LESION = {"modalities": ["t2", "adc"], "labels": {"lesion": 1}}


def write(tmp_path, task=None, **sections):
    dataset = {"path": str(tmp_path / "cases")} | ({} if task is None else {"task": task})
    file = tmp_path / "experiment.yaml"
    file.write_text(yaml.safe_dump(SMALL | {"dataset": dataset} | sections), encoding="utf-8")
    return file


def problems_of(file, overrides=()):
    with pytest.raises(ProblemsFound) as caught:
        load_experiment(file, list(overrides))
    assert caught.value.exit_code == 2
    return {problem.where.split(": ")[-1]: problem for problem in caught.value.problems}


def nnunet_folder(folder: Path, content):
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    (folder / "dataset.json").write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def test_without_a_name_it_is_the_papers_task(tmp_path):
    assert load_experiment(write(tmp_path)).dataset.task == paper_task()


def test_a_built_in_task_by_its_name(tmp_path):
    assert load_experiment(write(tmp_path, "met")).dataset.task == built_in("met")
    assert load_experiment(write(tmp_path), ["dataset.task=met"]).dataset.task == built_in("met")


def test_a_task_of_ones_own_in_the_experiment_or_in_a_file(tmp_path):
    inside = load_experiment(write(tmp_path, LESION)).dataset.task
    (tmp_path / "lesion.yaml").write_text(yaml.safe_dump(LESION), encoding="utf-8")
    named = load_experiment(write(tmp_path, str(tmp_path / "lesion.yaml"))).dataset.task
    assert (inside.name, named.name) == ("own", "lesion")
    assert inside == named.model_copy(update={"name": "own"})


def test_a_saved_experiment_needs_no_file_of_a_task(tmp_path):
    (tmp_path / "lesion.yaml").write_text(yaml.safe_dump(LESION), encoding="utf-8")
    experiment = load_experiment(write(tmp_path, str(tmp_path / "lesion.yaml")))
    (tmp_path / "lesion.yaml").unlink()
    save_experiment(experiment, tmp_path / "saved.yaml")
    assert load_experiment(tmp_path / "saved.yaml").dataset.task == experiment.dataset.task


def test_the_task_of_an_nnunet_dataset(tmp_path):
    nnunet_folder(tmp_path / "cases", {"channel_names": {"0": "T2"}, "labels": {"background": 0, "gland": 1}})
    task = load_experiment(write(tmp_path)).dataset.task
    assert (task.name, task.modalities, task.labels) == ("cases", ("T2",), {"gland": 1})
    # a name in the experiment counts more
    assert load_experiment(write(tmp_path, "met")).dataset.task == built_in("met")
    assert load_experiment(write(tmp_path, str(tmp_path / "cases" / "dataset.json"))).dataset.task == task


def test_an_nnunet_dataset_that_says_no_task(tmp_path):
    nnunet_folder(tmp_path / "cases", "{")
    (problem,) = problems_of(write(tmp_path)).values()
    assert "dataset.json" in problem.where
    assert "no JSON" in problem.found


def test_a_class_weight_too_few(tmp_path):
    (problem,) = problems_of(write(tmp_path, "gli-2024", loss={"weight_ce": [0.2, 1, 0.2, 1]})).values()
    assert "loss.weight_ce has 4 weights, and task gli-2024 has 5 classes" in problem.found
    assert "background, netc, snfh, et, rc" in problem.advice
    assert load_experiment(write(tmp_path, LESION, loss={"weight_ce": [0.2, 1]})).loss.weight_ce == (0.2, 1)


def test_class_weights_by_name(tmp_path):
    weights = load_experiment(write(tmp_path, "gli-2024"), ["loss.weight_ce.rc=0.5"]).loss.weight_ce
    assert weights == (1, 1, 1, 1, 0.5)
    overrides = ["dataset.task=ped-2024", "loss.weight_ce.cc=0.5"]
    assert load_experiment(write(tmp_path), overrides).loss.weight_ce == (1, 1, 1, 0.5, 1)
    with pytest.raises(ProblemsFound, match=r"--set loss\.weight_ce\.rc=0\.5") as caught:
        load_experiment(write(tmp_path), ["loss.weight_ce.rc=0.5"])
    assert len(caught.value.problems) == 1


def test_regions_that_do_not_tell_labels(tmp_path):
    (problem,) = problems_of(write(tmp_path, "ped-2024", model={"output": "regions"})).values()
    assert "cannot tell NET and CC apart" in problem.found
    load_experiment(write(tmp_path, "gli-2024", model={"output": "regions"}))


def test_every_contradiction_of_a_task_with_its_field(tmp_path):
    task = LESION | {"labels": {"a": 1, "b": 3}, "regions": {"A": ["a"]}, "shown": "t1"}
    found = problems_of(write(tmp_path, task, training={"epochs": 0}))
    assert set(found) == {
        "dataset.task.labels",
        "dataset.task.regions",
        "dataset.task.shown",
        "training.epochs",
    }


def test_a_class_weight_too_few_beside_a_wrong_task(tmp_path):
    task = LESION | {"labels": {"a": 1, "b": 2}, "regions": {"A": ["a"]}}
    found = problems_of(write(tmp_path, task, loss={"weight_ce": [1, 1]}))
    assert set(found) == {"dataset.task.regions", "loss.weight_ce"}
    assert "2 weights, and task own has 3 classes" in found["loss.weight_ce"].found
    assert set(problems_of(write(tmp_path, task, loss={"weight_ce": [1, 1, 1]}))) == {"dataset.task.regions"}


@pytest.mark.parametrize("value", ["glioma", "absent.yaml", 5, ["met"], ""])
def test_a_name_of_no_task(tmp_path, value):
    assert problems_of(write(tmp_path, value))


def test_an_unknown_convention(tmp_path):
    file = write(tmp_path, "met")
    (problem,) = problems_of(file, ["dataset.convention=2018"]).values()
    assert "dataset.convention is 2018, and task met knows 2023" in problem.found


def test_settings_show_the_name_of_a_task(tmp_path):
    shown = [
        flatten(load_experiment(write(tmp_path, task)).model_dump(mode="json"))["dataset.task"]
        for task in ("met", LESION, LESION | {"labels": {"tumour": 1}})
    ]
    assert shown[0] == "met"
    assert shown[1].startswith("own, digest ")
    assert shown[1] != shown[2]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"modalities: [t2]\nlabels: {a: 1, b: 2, a: 3}\n", "a a second time"),
        ("title: Möhre\nmodalities: [t2]\nlabels: {a: 1}\n".encode("latin-1"), "text that is not UTF-8"),
        (b"modalities: [t2]\nlabels: {a: 1}\ntitle: 2026-13-01\n", "month must be in 1..12"),
    ],
)
def test_a_file_of_a_task_that_cannot_be_read(tmp_path, text, found):
    (tmp_path / "own.yaml").write_bytes(text)
    (problem,) = problems_of(write(tmp_path, str(tmp_path / "own.yaml"))).values()
    assert problem.found == found


def test_a_field_may_come_from_another_mapping_too(tmp_path):
    file = tmp_path / "own.yaml"
    lesions = "{<<: {dilations: 5, smallest_mm3: 7}, dilations: 1}"
    file.write_text(f"modalities: [t2]\nlabels: {{a: 1}}\nlesions: {lesions}\n")
    lesions = load_experiment(write(tmp_path, str(file))).dataset.task.lesions
    assert (lesions.dilations, lesions.smallest_mm3) == (1, 7)
