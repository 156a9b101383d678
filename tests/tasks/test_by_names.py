"""Which task names of cases tell, and which tasks they refuse."""

import pytest

from uncseg.errors import ProblemsFound
from uncseg.tasks.built_in_tasks import built_in, require_names_fit, task_of_names
from uncseg.tasks.task import Task


@pytest.mark.parametrize(
    ("names", "task"),
    [
        (["BraTS-MET-00001-000", "patient7"], "met"),
        (["BraTS-MEN-00001-000"], "men"),
        (["BraTS-GLI-02062-100"], "gli-2024"),
        # the paper's task reads what these read
        (["BraTS-GLI-00001-000", "Brats18_2013_1_1", "BraTS-SSA-00001-000"], "gli-2023"),
        (["BraTS20_Training_001"], "gli-2023"),
    ],
)
def test_names_tell_a_task(names, task):
    assert task_of_names(names, "folder", "--task").name == task


def test_other_names_tell_none():
    assert task_of_names(["patient1", "BraTS-MET-1"], "folder", "--task") is None
    assert task_of_names([], "folder", "--task") is None


@pytest.mark.parametrize(
    ("names", "found", "advice"),
    [
        (["BraTS-PED-00001-000"], "ped-2023 and ped-2024", "set --task to ped-2023 or ped-2024"),
        (["BraTS-GLI-00001-000", "BraTS-MET-00001-000"], "gli-2023", "keep them in folders of their own"),
        (["BraTS-GLI-00001-000", "BraTS-GLI-02062-100"], "gli-2024", "keep them in folders of their own"),
    ],
)
def test_names_that_tell_several_tasks_are_refused(names, found, advice):
    with pytest.raises(ProblemsFound) as caught:
        task_of_names(names, "folder", "--task")
    (problem,) = caught.value.problems
    assert caught.value.exit_code == 2
    assert found in problem.found
    assert all(name in problem.found for name in names)
    assert problem.advice == advice


def test_names_of_another_task_do_not_tell_which_of_two_it_is():
    with pytest.raises(ProblemsFound) as caught:
        task_of_names(["BraTS-PED-00001-000", "BraTS-GLI-00001-000"], "folder", "--task")
    (problem,) = caught.value.problems
    assert "BraTS-PED-00001-000" in problem.found
    assert "ped-2023 (1 NC, 2 ED, 3 ET) or ped-2024 (1 ET, 2 NET, 3 CC, 4 ED)" in problem.expected


def test_a_task_that_names_contradict_is_refused():
    names = ["BraTS-MET-00001-000", "BraTS-MET-00002-000", "BraTS-GLI-02062-100", "BraTS-GLI-00001-000", "patient1"]
    with pytest.raises(ProblemsFound) as caught:
        require_names_fit(names, built_in("gli-2023"), "folder", "--task")
    assert sorted(problem.advice for problem in caught.value.problems) == [
        "set --task to gli-2024",
        "set --task to met",
    ]
    assert caught.value.exit_code == 2
    # the meaning of labels is the same, and the lesion rule another
    with pytest.raises(ProblemsFound):
        require_names_fit(["BraTS-MEN-00001-000"], built_in("met"), "folder", "--task")
    # what 1 means is not clear before one of two is chosen
    with pytest.raises(ProblemsFound, match="ped-2024"):
        require_names_fit(["BraTS-PED-00001-000"], built_in("gli-2023"), "folder", "--task")


def test_a_task_that_names_allow_is_taken():
    require_names_fit(["BraTS-PED-00001-000"], built_in("ped-2024"), "folder", "--task")
    require_names_fit(["BraTS-GLI-00001-000", "Brats18_1"], built_in("ssa"), "folder", "--task")
    own = Task.model_validate({"name": "mine", "modalities": ["ct"], "labels": {"liver": 1}})
    require_names_fit(["BraTS-MET-00001-000"], own, "folder", "--task")
    of_ones_own = built_in("men").model_copy(update={"lesions": built_in("met").lesions})
    require_names_fit(["BraTS-MET-00001-000"], of_ones_own, "folder", "--task")
