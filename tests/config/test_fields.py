"""Fields by their dotted names: set, read, compared and written as text, the same way everywhere."""

import pytest
import yaml

from uncseg.config.experiment import Experiment
from uncseg.config.fields import (
    apply_overrides,
    as_assignments,
    differences,
    flatten,
    get_field,
    is_within,
    set_field,
)
from uncseg.tasks.built_in_tasks import built_in


def test_a_field_that_is_set_is_the_one_that_is_read():
    content = {"loss": None}
    set_field(content, "loss.unc_weight", 0.2)
    set_field(content, "evaluation.estimators.mc_dropout.samples", 9)
    assert content == {
        "loss": {"unc_weight": 0.2},
        "evaluation": {"estimators": {"mc_dropout": {"samples": 9}}},
    }
    assert get_field(content, "evaluation.estimators.mc_dropout.samples") == 9
    with pytest.raises(KeyError):
        get_field(content, "loss.unc_weight.deeper")
    with pytest.raises(KeyError, match="unc_weight"):
        set_field(content, "loss.unc_weight.deeper", 1)


def test_a_class_weight_is_named_by_its_class():
    content = {"loss": {"weight_ce": None}}
    assert get_field(content, "loss.weight_ce.ed") is None
    set_field(content, "loss.weight_ce.ed", 0.2)
    set_field(content, "loss.weight_ce.background", 0)
    assert content == {"loss": {"weight_ce": [0, 1, 0.2, 1]}}
    assert get_field(content, "loss.weight_ce.ed") == 0.2
    for content in ({}, {"loss": None}, {"loss": {"weight_ce": None}}):
        set_field(content, "loss.weight_ce.et", 3)
        assert content == {"loss": {"weight_ce": [1, 1, 1, 3]}}
    with pytest.raises(KeyError, match="loss"):
        set_field({"loss": 3}, "loss.weight_ce.et", 3)
    with pytest.raises(KeyError, match="weight_ce"):
        set_field(content, "loss.weight_ce.tumour", 1)


def test_sections_are_told_from_names_that_begin_alike():
    assert is_within("storage.path", ("storage",))
    assert is_within("storage", ("storage",))
    assert not is_within("storages.path", ("storage",))


def test_assignments_are_read_back():
    path = "/a b #1/&c !d  é/" + "long " * 40 + "'\" "
    fields = {"plan.patch_size": [32, 32, 32], "model.error_network": {"run": "a: b"}, "loss.warmup_epochs": 3}
    fields |= {"dataset.path": path, "storage.path": "runs", "tracking.uri": None}
    content = {}
    assert apply_overrides(content, as_assignments(fields)) == []
    assert "storage.path=runs" in as_assignments(fields)
    assert content == {
        "dataset": {"path": path},
        "storage": {"path": "runs"},
        "tracking": {"uri": None},
        "plan": {"patch_size": [32, 32, 32]},
        "model": {"error_network": {"run": "a: b"}},
        "loss": {"warmup_epochs": 3},
    }


@pytest.mark.parametrize(
    ("assignment", "found"),
    [
        ("nonsense", "no FIELD=VALUE"),
        ("=1", "no FIELD=VALUE"),
        ("loss.unc_weight=[1", "a value that is not YAML"),
        ("name.first=1", "name is not a section"),
        ("loss.weight_ce.tumour=1", "weight_ce is not a section"),
    ],
)
def test_an_assignment_that_cannot_be_applied_is_a_problem(assignment, found):
    content = {"name": "a", "loss": {"weight_ce": [1, 1, 1, 1]}}
    (problem,) = apply_overrides(content, [assignment])
    assert (problem.where, problem.found) == (f"--set {assignment}", found)
    assert content == {"name": "a", "loss": {"weight_ce": [1, 1, 1, 1]}}


def test_differences_name_the_deepest_field_that_both_have():
    before = {"loss": {"a": 1, "b": 2}, "model": {"error_network": None}, "name": "x"}
    now = {"loss": {"a": 1, "b": 3}, "model": {"error_network": {"run": "r"}}, "extra": 0, "name": "x"}
    assert list(differences(before, now)) == [
        ("loss.b", 2, 3),
        ("model.error_network", None, {"run": "r"}),
        ("extra", None, 0),
    ]
    assert list(differences(before, before)) == []


def test_texts_are_yaml_that_gives_the_values_back():
    experiment = Experiment.model_validate(
        {"name": "a", "dataset": {"path": "cases"}, "loss": {"weight_ce": [0.2, 1, 0.25, 1]}}
    )
    content = experiment.model_dump(mode="json")
    texts = flatten(content)
    assert texts["loss.weight_ce_ed"] == "0.25"
    assert texts["model.error_network"] == "null"
    assert texts["model.uncertainty"] == "true"
    assert texts["model.swin_unetr.heads"] == "3, 6, 12, 24"
    for name, text in texts.items():
        if name == "dataset.task":
            assert get_field(content, name) == built_in(text).model_dump(mode="json")
        elif not name.startswith("loss.weight_ce"):
            value = get_field(content, name)
            known = value if isinstance(value, list) else [value]
            read = yaml.safe_load(f"[{text}]")
            assert [float(r) if isinstance(k, float) else r for r, k in zip(read, known, strict=True)] == known, name
