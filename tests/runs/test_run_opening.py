"""What is said of a run that is continued with another task."""

import yaml

from support.own_tasks import LIVER
from uncseg.config.experiment import Experiment, load_experiment, with_new_fields
from uncseg.config.training_sections import PublishedMemory
from uncseg.runs.run_opening import differing_settings
from uncseg.tasks.built_in_tasks import built_in, paper_task


def settings(tmp_path, task):
    file = tmp_path / "e.yaml"
    dataset = {"path": "cases", "task": task.model_dump(mode="json")}
    file.write_text(yaml.safe_dump({"name": "e", "dataset": dataset}, sort_keys=False))
    return load_experiment(file).model_dump(mode="json")


def test_another_task_is_one_problem(tmp_path):
    paper, met, liver = (settings(tmp_path, task) for task in (paper_task(), built_in("met"), LIVER))
    assert differing_settings(paper, paper) == []
    (problem,) = differing_settings(paper, met)
    assert (problem.where, problem.found, problem.expected.split(",")[0]) == ("dataset.task", "met", "gli-2023")
    (problem,) = differing_settings(paper, liver)
    assert problem.found.startswith("liver, digest ")


def test_fields_of_a_task_of_ones_own_are_named(tmp_path):
    changed = LIVER.model_copy(update={"lesions": LIVER.lesions.model_copy(update={"dilations": 1})})
    before, now = (settings(tmp_path, task) for task in (LIVER, changed))
    (problem,) = differing_settings(before, now)
    assert (problem.where, problem.found) == ("dataset.task.lesions.dilations", "1")


def test_regions_in_another_order_are_another_task(tmp_path):
    """With ``model.output: regions`` it is the order of the network's channels."""
    task = built_in("gli-2024")
    cavity_first = task.model_copy(update={"regions": {"RC": ("RC",), **task.regions}})
    before, now = (settings(tmp_path, each) for each in (task, cavity_first))
    (problem,) = differing_settings(before, now)
    assert (problem.where, problem.found) == ("dataset.task.regions", "RC, WT, TC, ET")


def test_fields_that_did_not_exist_yet_stand_at_their_defaults(tmp_path):
    """A run of an earlier version goes on, unless the new field asks for something else."""
    now = settings(tmp_path, paper_task())
    before = {name: dict(part) if isinstance(part, dict) else part for name, part in now.items()}
    del before["model"]["residual"], before["loss"]["unc_mean"], before["memory"]
    assert differing_settings(before, now) == []
    assert differing_settings(now, before) == []
    assert differing_settings(before | {"memory": now["memory"] | {"coordinates": "case"}}, now) == []
    assert differing_settings(before | {"memory": now["memory"] | {"coordinates": "patch"}}, now) != []
    (problem,) = differing_settings(before, now | {"model": now["model"] | {"residual": True}})
    assert (problem.where, problem.found, problem.expected) == (
        "model.residual",
        "True",
        "False, as the run was started",
    )


def test_a_memory_that_was_published_before_a_difference_was_known_does_not_have_it(tmp_path):
    now = settings(tmp_path, paper_task())
    every = PublishedMemory().model_dump()
    older = {name: value for name, value in every.items() if name not in ("inside_reference", "shifted_labels")}

    def with_memory(published):
        return now | {"memory": now["memory"] | {"published": published}}

    before = with_memory(older)
    assert differing_settings(before, with_memory(older | {"inside_reference": False, "shifted_labels": False})) == []
    problems = differing_settings(before, with_memory(every))
    assert {problem.where for problem in problems} == {
        "memory.published.inside_reference",
        "memory.published.shifted_labels",
    }
    read = Experiment.model_validate(with_new_fields(before)).memory.published
    assert (read.inside_reference, read.shifted_labels, read.slots) == (False, False, True)
