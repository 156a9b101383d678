"""The task of another cohort: its images and regions have to be the model's."""

import pytest

from uncseg.errors import ProblemsFound
from uncseg.runs.cohort_task import cohort_task
from uncseg.tasks.task import Task

MODEL = Task.model_validate({"name": "model", "modalities": ["t2", "adc"], "labels": {"lesion": 1}})


def cohort(modalities, **fields):
    return Task.model_validate({"name": "cohort", "modalities": modalities, "labels": {"lesion": 1}, **fields})


@pytest.mark.parametrize(
    "task",
    [
        cohort(["adc", "t2"], lesions={"dilations": 0}),
        cohort(["first", "second"], other_names={"first": ("adc",), "second": ("t2",)}),
    ],
)
def test_a_cohort_has_the_models_images_by_any_name_in_any_order(tmp_path, task):
    assert cohort_task(tmp_path, MODEL, task).task == task


@pytest.mark.parametrize("modalities", [["ct", "pet"], ["t2", "pet"], ["t2"], ["t2", "adc", "dwi"]])
def test_a_cohort_with_other_images_is_refused(tmp_path, modalities):
    with pytest.raises(ProblemsFound, match="the model's modalities: t2, adc") as caught:
        cohort_task(tmp_path, MODEL, cohort(modalities))
    assert caught.value.exit_code == 2
