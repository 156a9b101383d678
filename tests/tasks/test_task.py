"""Tasks: what is built in, what follows where a field is left out, and every contradiction at once."""

import pytest
from pydantic import ValidationError

from uncseg.estimators.registry import ALL_MAPS
from uncseg.layout import maps_beside_segmentation
from uncseg.tasks.built_in_tasks import built_in, built_in_names, paper_task, tasks_by_names
from uncseg.tasks.nnunet_dataset import task_of_dataset_json
from uncseg.tasks.outputs import Outputs, drawn_labels
from uncseg.tasks.rules import problems_of_drawing
from uncseg.tasks.task import Task

SMALL = {"modalities": ["t2", "adc"], "labels": {"a": 1, "b": 2, "c": 3}}


def problems(**fields):
    with pytest.raises(ValidationError) as caught:
        Task.model_validate(SMALL | fields)
    return "\n".join(error["msg"] for error in caught.value.errors())


# labels as in the masks of the usual convention, regions and lesion rules as the challenges publish them
PUBLISHED = {
    "gli-2018": ({"NCR": 1, "ED": 2, "ET": 4}, {"WT": {1, 2, 4}, "TC": {1, 4}, "ET": {4}}, (3, 50)),
    "gli-2023": ({"NCR": 1, "ED": 2, "ET": 3}, {"WT": {1, 2, 3}, "TC": {1, 3}, "ET": {3}}, (3, 50)),
    "ssa": ({"NCR": 1, "ED": 2, "ET": 3}, {"WT": {1, 2, 3}, "TC": {1, 3}, "ET": {3}}, (3, 50)),
    "gli-2024": (
        {"NETC": 1, "SNFH": 2, "ET": 3, "RC": 4},
        {"WT": {1, 2, 3}, "TC": {1, 3}, "ET": {3}, "RC": {4}},
        (3, 50),
    ),
    "ped-2023": ({"NC": 1, "ED": 2, "ET": 3}, {"WT": {1, 2, 3}, "TC": {1, 3}, "ET": {3}}, (3, 50)),
    "ped-2024": (
        {"ET": 1, "NET": 2, "CC": 3, "ED": 4},
        {"WT": {1, 2, 3, 4}, "TC": {1, 2, 3}, "ET": {1}},
        (3, 50),
    ),
    "men": ({"NETC": 1, "SNFH": 2, "ET": 3}, {"WT": {1, 2, 3}, "TC": {1, 3}, "ET": {3}}, (1, 50)),
    "met": ({"NETC": 1, "SNFH": 2, "ET": 3}, {"WT": {1, 2, 3}, "TC": {1, 3}, "ET": {3}}, (1, 2)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_built_in_tasks_are_those_of_the_challenges(name):
    task, (values, regions, rule) = built_in(name), PUBLISHED[name]
    stored = task.values(task.convention)
    assert stored == values
    assert {region: {stored[label] for label in labels} for region, labels in task.regions.items()} == regions
    assert (task.lesions.dilations, task.lesions.smallest_mm3) == rule
    assert task.main_region == "WT"
    assert task.modalities == ("t1n", "t1c", "t2w", "t2f")


@pytest.mark.parametrize("name", [*maps_beside_segmentation(paper_task()), *ALL_MAPS])
def test_a_region_never_has_the_name_of_a_map(name):
    assert f"regions {name}" in problems(regions={name: ["a", "b", "c"]})


def test_all_built_in_tasks_are_published_ones():
    assert set(built_in_names()) == set(PUBLISHED)
    assert paper_task() == built_in("gli-2023")


@pytest.mark.parametrize(
    ("case", "tasks"),
    [
        ("BraTS-GLI-00012-001", {"gli-2023"}),
        ("BraTS-GLI-02062-100", {"gli-2024"}),
        ("brats-gli-02062-101", {"gli-2024"}),
        ("BraTS-MET-00001-000", {"met"}),
        ("BraTS-MEN-00001-000", {"men"}),
        ("BraTS-SSA-00001-000", {"ssa"}),
        ("BraTS-PED-00001-000", {"ped-2023", "ped-2024"}),
        ("Brats18_2013_10_1", {"gli-2018"}),
        ("BraTS20_Training_001", {"gli-2018"}),
        ("BraTS2021_00000", {"gli-2018"}),
    ],
)
def test_names_of_cases_tell_tasks(case, tasks):
    assert {task.name for task in tasks_by_names([case])[case]} == tasks


def test_other_names_tell_no_task():
    assert tasks_by_names(["patient1", "BraTS-GLI-00012", "sub-01_ses-02"]) == {}


def test_a_task_needs_only_modalities_and_labels():
    task = Task.model_validate(SMALL)
    assert task.regions == {"foreground": ("a", "b", "c"), "a": ("a",), "b": ("b",), "c": ("c",)}
    assert task.main_region == "foreground"
    assert task.conventions["files"].images == {"t2": "-t2", "adc": "-adc"}
    one = Task(modalities=("ct",), labels={"lesion": 1})
    assert (one.regions, one.main_region, one.classes) == ({"lesion": ("lesion",)}, "lesion", ("background", "lesion"))


def test_a_convention_may_be_called_by_a_year():
    convention = {"images": {"t2": "_t2", "adc": "_adc"}, "values": {"a": 10, "b": 20, "c": 255}}
    task = Task.model_validate(SMALL | {"conventions": {2018: convention}})
    assert task.convention == "2018"
    assert task.values("2018") == {"a": 10, "b": 20, "c": 255}


def test_every_contradiction_at_once():
    found = problems(
        labels={"a": 2, "b": 1, "c": 3},
        regions={"A": ["a", "b"], "B": ["b", "x"], "C": ["b", "c"]},
        main_region="D",
        shown="t1",
        patients="(",
    )
    for part in (
        "labels are a 2, b 1, c 3, and a network numbers them from 1",
        "regions.B names x",
        "regions A and C share b, and neither lies within the other",
        "main_region is D",
        "shown is t1",
        "patients is (, which is no regular expression",
    ):
        assert part in found
    assert len(found.splitlines()) == 6


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"regions": {"A": ["a"], "B": ["b"]}}, "no label c"),
        ({"regions": {"A": ["a", "b", "c"], "B": ["c", "b", "a"]}}, "regions A and B have the same labels"),
        ({"regions": {"A": ["a"], "B": ["a", "b", "c"]}}, "write B before A"),
        ({"regions": {"mean": ["a", "b", "c"]}}, "another meaning"),
        ({"regions": {"Entropy": ["a", "b", "c"]}}, "regions Entropy"),
        ({"regions": {"a": ["a", "b", "c"], "a_probability": ["b"]}}, "regions a_probability"),
        ({"regions": {"A": ["a", "b", "c"], "a": ["b"]}}, "regions a is there twice"),
        ({"labels": {"a": 1, "b": 2, "c": 4}}, "under conventions.NAME.values"),
        ({"labels": {"a": 0, "b": 1, "c": 2}}, "{a: 1, b: 2, c: 3}"),
        ({"labels": {"a": 3, "b": 1, "c": 2}}, "write {b: 1, c: 2, a: 3}, in this order"),
        ({"labels": {"a": 7, "b": 1, "c": 2}}, "write {b: 1, c: 2, a: 3}, and the values in masks"),
        ({"labels": {"a": 1, "background": 2, "c": 3}}, "background"),
        ({"labels": {f"l{number}": number for number in range(1, 257)}}, "masks hold at most 255"),
        ({"conventions": {"x": {"images": {"t2": "-t2"}}}}, "conventions.x.images lacks adc"),
        ({"conventions": {"x": {"images": {"t2": "-t2", "adc": "-T2"}}}}, "the ending -t2 twice"),
        ({"conventions": {"x": {"images": {"t2": "-t2", "adc": "-seg"}}}}, "the ending -seg twice"),
        ({"conventions": {"x": {"images": {"t2": "-t2", "adc": "-Q"}}}}, "which true probabilities of phantoms have"),
        (
            {"conventions": {"x": {"images": {"t2": "-t2", "adc": "-adc"}, "values": {"a": 1, "b": 1, "c": 2}}}},
            "values has 1 twice",
        ),
        ({"conventions": {"x": {"images": {"t2": "-t2", "adc": "-adc"}, "values": {"a": 1}}}}, "values lacks b"),
        (
            {
                "conventions": {
                    "x": {"images": {"t2": "-t2", "adc": "-adc"}},
                    "y": {"images": {"t2": "-adc", "adc": "-b1000"}},
                }
            },
            "conventions.y gives the ending -adc to t2, and conventions.x to adc",
        ),
        (
            {"conventions": {"x": {"images": {"t2": "-t2.nii", "adc": "-ADC.NII.GZ"}}}},
            ".nii or .nii.gz follows by itself",
        ),
        (
            {"conventions": {"x": {"images": {"t2": "-t2", "adc": "-adc"}, "values": {"a": 1, "b": 2, "c": 10**20}}}},
            str(2**24),
        ),
        ({"conventions": {2018: {"images": {}}, "2018": {"images": {}}}}, "valid string"),
        ({"patients": "patient"}, "has no group"),
        ({"phantom": {"cases": "{patient:300d}"}}, "names of 300 bytes"),
        ({"phantom": {"cases": "{patient:99999999999d}"}}, "cannot be filled in"),
        ({"phantom": {"cases": ".{patient}"}}, "names no case"),
        ({"lesions": {"dilations": -1}}, "greater than or equal to 0"),
        ({"regions": {"a b": ["a", "b", "c"]}}, "pattern"),
    ],
)
def test_refused(fields, found):
    assert found in problems(**fields)


def test_regions_that_draw_labels():
    assert drawn_labels(built_in("gli-2023")) == (2, 1, 3)  # WT as ED, TC as NCR, ET
    assert drawn_labels(built_in("gli-2024")) == (2, 1, 3, 4)
    assert problems_of_drawing(built_in("gli-2024")) == []
    (problem,) = problems_of_drawing(built_in("ped-2024"))  # TC without ET is NET and CC
    assert "TC" in problem
    assert "NET and CC" in problem
    (problem,) = problems_of_drawing(Task.model_validate(SMALL))
    assert "foreground has no label outside" in problem
    (problem,) = problems_of_drawing(Task.model_validate(SMALL | {"labels": {"a": 1}}))
    assert "nnU-Net takes regions of one label each for labels" in problem


def test_channels_of_a_network():
    labels = Outputs.of(built_in("gli-2024"), "labels")
    assert (labels.logits, labels.channels, labels.main_channels) == (4, 5, slice(1, 4))
    regions = Outputs.of(built_in("gli-2024"), "regions")
    assert (regions.logits, regions.channels, regions.main_channels) == (4, 4, slice(0, 1))
    apart = Task.model_validate(SMALL | {"regions": {"AC": ["a", "c"], "B": ["b"]}, "main_region": "AC"})
    assert Outputs.of(apart, "labels").main_channels == [1, 3]


def test_dataset_json_with_labels():
    content = {"channel_names": {"0": "T2", "1": "ADC"}, "labels": {"background": 0, "TZ": 2, "PZ zone": 1}}
    task, wrong = task_of_dataset_json(content, "dataset.json", "Dataset005_Prostate")
    assert wrong == []
    assert (task.name, task.modalities, task.labels) == ("Dataset005_Prostate", ("T2", "ADC"), {"PZ_zone": 1, "TZ": 2})
    assert task.regions == {"foreground": ("PZ_zone", "TZ"), "PZ_zone": ("PZ_zone",), "TZ": ("TZ",)}


def test_dataset_json_with_regions():
    content = {
        "channel_names": {"0": "T1", "1": "FLAIR"},
        "labels": {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing": 3},
        "regions_class_order": [1, 2, 3],
    }
    task, wrong = task_of_dataset_json(content, "dataset.json")
    assert wrong == []
    assert task.numbers == {"whole_tumor": (1, 2, 3), "tumor_core": (2, 3), "enhancing": (3,)}
    assert drawn_labels(task) == (1, 2, 3)  # as the file says


def test_dataset_json_of_the_decathlon():
    content = {"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "Anterior", "2": "Posterior"}}
    task, _ = task_of_dataset_json(content, "dataset.json")
    assert (task.modalities, task.labels) == (("MRI",), {"Anterior": 1, "Posterior": 2})


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {"channel_names": {"0": "T1"}},
        {"channel_names": {}, "labels": {"background": 0, "a": 1}},
        {"channel_names": {"0": "T1"}, "labels": {"background": 0}},
        {"channel_names": {"0": "T1"}, "labels": {"background": 0, "a": 1, "ignore": 2}},
        {"channel_names": {"0": "T1"}, "labels": {"background": 0, "a": 1, "b": 5}},
        {"channel_names": {"0": "T1"}, "labels": {"background": 0, "a": "one"}},
        {"channel_names": {"0": "T1", "1": "t1"}, "labels": {"background": 0, "a": 1}},
        {"channel_names": {"0": "T1"}, "labels": {"background": 0, "a": [1, 2], "b": [2, 3]}},
        {"channel_names": {"0": "T1"}, "labels": {"background": 0, "a": None}},
        {"channel_names": {"x": "T1"}, "labels": {"background": 0, "a": 1}},
        {"channel_names": {"0": "T1", "2": "T2"}, "labels": {"background": 0, "a": 1}},
        {"channel_names": {"1": "T1", "2": "T2"}, "labels": {"background": 0, "a": 1}},
    ],
)
def test_a_dataset_json_that_says_no_task(content):
    task, wrong = task_of_dataset_json(content, "folder/dataset.json")
    assert task is None
    assert all(problem.where == "folder/dataset.json" and problem.advice for problem in wrong)
    assert wrong


@pytest.mark.parametrize(
    ("channels", "labels", "found"),
    [
        ({"0": "CT", "1": "CT"}, {"a": 1}, "channels CT, of which one is there twice"),
        ({"0": "T 1", "1": "t-1"}, {"a": 1}, "channels T 1 and t-1, which both become t_1"),
        ({"0": "T1"}, {"Leber": 1, "肝": 2, "腫瘍": 3}, "labels 肝 and 腫瘍, which both become unnamed"),
    ],
)
def test_names_of_a_dataset_json_that_would_be_one_name(channels, labels, found):
    task, (problem,) = task_of_dataset_json({"channel_names": channels, "labels": {"background": 0, **labels}}, "file")
    assert task is None
    assert problem.found == found
