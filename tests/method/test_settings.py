"""The settings that travel in nnU-Net's plans."""

import json

import pytest

from uncseg.method.settings import TrainerSettings
from uncseg.tasks.built_in_tasks import built_in, built_in_names


@pytest.mark.parametrize("name", built_in_names())
def test_a_task_survives_plans_that_are_written_again_with_sorted_keys(name):
    """Tools of nnU-Net's write JSON with sorted keys, and the order of regions is that of the network's channels."""
    settings = TrainerSettings(task=built_in(name))
    plans = json.loads(json.dumps(settings.into_plans({"plans_name": "p"}), sort_keys=True))
    back = TrainerSettings.from_plans(plans)
    assert back == settings
    assert list(back.task.regions) == list(settings.task.regions)
    assert list(back.task.labels) == list(settings.task.labels)
