"""A dataset.json that does not belong to the task that is trained."""

import pytest
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from uncseg.config.training_sections import Model
from uncseg.dataset.preparation import dataset_description
from uncseg.errors import ProblemsFound
from uncseg.method.settings import TrainerSettings
from uncseg.method.training.reproducible_trainer import require_fitting_labels
from uncseg.tasks.built_in_tasks import built_in

TASK = built_in("gli-2024")


def require(description, output):
    labels = LabelManager(description["labels"], description.get("regions_class_order"))
    require_fitting_labels(description, labels, TrainerSettings(task=TASK, model=Model(output=output)))


@pytest.mark.parametrize("output", ["labels", "regions"])
def test_the_description_of_a_task_fits_it(output):
    require(dataset_description(output, 4, TASK), output)


def test_regions_in_another_order_are_refused():
    """Their order is that of the network's channels: the head would learn the errors of another region."""
    description = dataset_description("regions", 4, TASK)
    moved = {**description, "labels": dict(sorted(description["labels"].items()))}
    with pytest.raises(ProblemsFound, match=r"the regions of task gli-2024"):
        require(moved, "regions")


@pytest.mark.parametrize("output", ["labels", "regions"])
def test_fewer_labels_and_another_output_are_refused(output):
    for description in (
        dataset_description(output, 4, built_in("gli-2023")),
        dataset_description("regions" if output == "labels" else "labels", 4, TASK),
    ):
        with pytest.raises(ProblemsFound, match=rf"the {output} of task gli-2024"):
            require(description, output)
