"""Tasks that contradict themselves, the experiment or the files: one table, exit code 2, and nothing is trained."""

import pytest
import yaml

from support.commands import uncseg
from support.own_tasks import PROSTATE
from support.small_experiment import write_small_experiment
from uncseg.console import console
from uncseg.dataset.phantom import write_phantoms
from uncseg.tasks.built_in_tasks import built_in

WRONG = {
    "modalities": ["t1n", "t1c", "t2w", "t2f"],
    "labels": {"core": 1, "oedema": 2, "rim": 3, "cavity": 4},
    "regions": {"whole": ["core", "oedema", "rim"], "outer": ["oedema", "rim"], "inner": ["core", "rim"]},
    "main_region": "tumour",
}


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setattr(console, "width", 2000)


def refused(*arguments, code=2):
    """Return the printed table of a command that has to end with an exit code."""
    said = uncseg(*arguments, code=code)
    assert said.count("┏") == 1
    return " ".join(said.replace("│", " ").split())


@pytest.mark.parametrize("how", ["file", "fields"])
def test_every_contradiction_of_a_task_is_in_one_table(tmp_path, how):
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(WRONG, sort_keys=False))
    task = str(tmp_path / "wrong.yaml") if how == "file" else WRONG
    file = write_small_experiment(tmp_path, dataset={"task": task})
    said = refused("cross-validate", file)
    for found in (
        "regions outer and inner share rim, and neither lies within the other",
        "regions hold no label cavity, so it has no score",
        "main_region is tumour, which is no region",
    ):
        assert found in said
    assert not (tmp_path / "runs").exists()


def test_a_class_weight_too_few_is_refused_with_what_else_is_wrong(tmp_path):
    loss = {"weight_ce": [0.2, 1, 1, 1], "warmup_epochs": 9}
    file = write_small_experiment(tmp_path, dataset={"task": "gli-2024"}, loss=loss)
    said = refused("cross-validate", file)
    assert "loss.weight_ce has 4 weights, and task gli-2024 has 5 classes" in said
    assert "background, netc, snfh, et, rc" in said
    assert "loss.warmup_epochs (9) is longer than training.epochs (4)" in said


@pytest.mark.parametrize("command", ["prepare", "check"])
@pytest.mark.parametrize(
    ("drawn", "named", "found"),
    [("met", "gli-2023", "met"), ("gli-2024", "gli-2023", "gli-2024"), ("gli-2023", "ped-2024", "gli-2023")],
)
def test_a_task_that_does_not_fit_the_names_is_refused(tmp_path, command, drawn, named, found):
    write_phantoms(tmp_path / "cases", cases=3, size=24, seed=0, task=built_in(drawn))
    weights = [0.2, *[1] * len(built_in(named).labels)]
    file = write_small_experiment(tmp_path, dataset={"task": named}, loss={"weight_ce": weights})
    request = (file,) if command == "prepare" else (tmp_path / "cases", "--task", named)
    said = refused(command, *request)
    assert found in said
    assert named in said


def test_modalities_that_are_not_there_are_named(tmp_path):
    write_phantoms(tmp_path / "cases", cases=2, size=24, seed=0, task=PROSTATE)
    assert "prostate-00000-000-t1c" in refused("check", tmp_path / "cases", "--task", "met", code=1)


def test_a_task_that_is_not_there_is_refused(tmp_path):
    said = refused("phantom", tmp_path / "cases", "--task", "gli-2022")
    assert "gli-2022" in said
    assert "gli-2023" in said
    assert not (tmp_path / "cases").exists()
