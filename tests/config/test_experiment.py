"""Experiments: every problem at once, each with its field."""

import pytest
import yaml

from uncseg.config.experiment import load_experiment, save_experiment
from uncseg.errors import ProblemsFound

SMALL = {"name": "small", "dataset": {"path": "cases"}}


def write(tmp_path, content):
    file = tmp_path / "experiment.yaml"
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return file


def problems_of(tmp_path, content, overrides=()):
    with pytest.raises(ProblemsFound) as caught:
        load_experiment(write(tmp_path, content), list(overrides))
    assert caught.value.exit_code == 2
    return {field_of(problem.where): problem for problem in caught.value.problems}


def field_of(where):
    """Return the field that a problem is with, wherever it was set."""
    where = where.split(": ")[-1]
    return where.removeprefix("--set ").partition("=")[0] if "=" in where else where


def test_defaults_are_the_methods(tmp_path):
    loss = load_experiment(write(tmp_path, SMALL)).loss
    assert (loss.unc_weight, loss.rmsd_weight, loss.corr_weight) == (0.4, 0.5, 0.4)
    assert load_experiment(write(tmp_path, SMALL)).memory.alpha == pytest.approx(1 / 30)


def test_all_problems_at_once(tmp_path):
    content = SMALL | {"loss": {"unc_wieght": 0.2, "rmsd_weight": -1}, "training": {"epochs": 0}, "colour": "red"}
    problems = problems_of(tmp_path, content)
    assert set(problems) == {"loss.unc_wieght", "loss.rmsd_weight", "training.epochs", "colour"}
    assert problems["loss.unc_wieght"].found == "an unknown field"
    assert problems["training.epochs"].found == "0"


def test_fields_that_do_not_fit_together(tmp_path):
    content = SMALL | {
        "model": {"output": "regions"},
        "loss": {"weight_ce": [0.2, 1, 0.2, 1]},
        "plan": {"patch_size": [32, 32]},
    }
    assert set(problems_of(tmp_path, content)) == {"loss.weight_ce", "plan.patch_size"}


@pytest.mark.parametrize(
    ("settings", "where", "advice"),
    [
        (["evaluation.estimators.mc_dropout.samples=9"], "evaluation.estimators.mc_dropout", "`model.dropout` to 0.2"),
        (
            ["evaluation.estimators.deep_ensemble=true"],
            "evaluation.estimators.deep_ensemble",
            "`training.members` to 5",
        ),
        (
            ["evaluation.estimators.heteroscedastic.samples=9"],
            "evaluation.estimators.heteroscedastic",
            "`model.heteroscedastic` to true",
        ),
        (["evaluation.estimators.augmentation.samples=1"], "evaluation.estimators.augmentation.samples", ""),
        (["model.heteroscedastic=true"], "model.heteroscedastic", "`model.uncertainty` to false"),
        (["model.detached=true", "model.uncertainty=false"], "model.detached", "`model.uncertainty` to true"),
        (["memory.source=teacher", "model.uncertainty=false"], "memory.source", "`memory.source` to cases"),
        (["memory.source=visit", "model.uncertainty=false"], "memory.source", "`memory.source` to cases"),
        (["memory.source=members"], "memory.source", "name of a finished run in `memory.run`"),
        (["memory.source=visit", "memory.run=other"], "memory.run", "remove `memory.run`"),
        (
            [
                "memory={source: cross_fitted, run: other}",
                "plan={configuration: 2d, patch_size: [16, 16]}",
            ],
            "memory.source",
            "`plan.configuration` to 3d_fullres",
        ),
        (["model.head=decoder_stages", "model.uncertainty=false"], "model.head", "`model.uncertainty` to true"),
        (["model.residual=true", "model.error_network={run: other}"], "model.residual", "remove `model.residual`"),
        (
            ["model.backbone=transbts", "model.deep_supervision=false", "model.head=decoder_stages"],
            "model.head",
            "`model.head` to output_layer",
        ),
        (["training.averaged_epochs=1000"], "training.averaged_epochs", "`training.averaged_epochs` to"),
        (["failures={perceptron: 8, steps: 9}"], "failures.perceptron", "set one of them to 0"),
        (["failures={trees: 8, steps: 9}"], "failures.trees", "set one of them to 0"),
        (["memory={source: teacher, published: {}}"], "memory.published", "remove `memory.published`"),
        (["memory.published={}", "model.error_network={run: other}"], "memory.published", "remove `memory.published`"),
        (
            ["memory.published={}", "training.accumulate=2"],
            "memory.published",
            "`training.accumulate` to 1",
        ),
        (
            ["memory.published={}", "model.output=regions", "loss.weight_ce=null"],
            "memory.published.shifted_labels",
            "`memory.published.shifted_labels` to false",
        ),
        (
            ["memory.published={}", "resources.gpus_per_fold=2"],
            "memory.published",
            "`resources.gpus_per_fold` to 1",
        ),
        (["model.backbone=transbts"], "model.backbone", "`model.deep_supervision` to false"),
        (
            ["model.backbone=swin_unetr", "model.deep_supervision=false", "plan.patch_size=[48,32,40]"],
            "plan.patch_size",
            "[64, 32, 32]",
        ),
        (
            ["model.backbone=swin_unetr", "model.deep_supervision=false", "plan.patch_size=[32,32,32]"],
            "plan.patch_size",
            "[64, 32, 32]",
        ),
        (
            ["model.backbone=transbts", "model.deep_supervision=false", "model.transbts.heads=12"],
            "model.transbts.heads",
            "`model.transbts.heads` to 4",
        ),
        (
            ["model.backbone=swin_unetr", "model.deep_supervision=false", "model.swin_unetr.heads=[5,6,12,24]"],
            "model.swin_unetr.heads",
            "[1, 6, 12, 24]",
        ),
    ],
)
def test_networks_and_estimators_that_cannot_work_together(tmp_path, settings, where, advice):
    problem = problems_of(tmp_path, SMALL, settings)[where]
    assert advice in problem.advice


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ("name: [", "line"),
        ("just words", "experiment.yaml"),
        ({"name": "x"}, "dataset"),
        (SMALL | {"name": "a/b"}, "name"),
    ],
)
def test_files_that_are_no_experiment(tmp_path, content, where):
    assert any(where in place for place in problems_of(tmp_path, content))


def test_absent_file(tmp_path):
    with pytest.raises(ProblemsFound, match="No such file"):
        load_experiment(tmp_path / "absent.yaml")


def test_overrides(tmp_path):
    file = write(tmp_path, SMALL)
    experiment = load_experiment(file, ["loss.unc_weight=0.2", "loss.weight_ce=[1, 2, 3, 4]", "training.epochs=3"])
    assert experiment.loss.unc_weight == 0.2
    assert experiment.loss.weight_ce == (1, 2, 3, 4)
    assert experiment.training.epochs == 3
    assert set(problems_of(tmp_path, SMALL, ["loss.unc=1", "nonsense"])) == {"loss.unc", "--set nonsense"}


@pytest.mark.parametrize(
    ("overrides", "where"),
    [
        (["training.epochs=0"], "--set training.epochs=0"),
        (["training.epochs=0", "training.epochs=-1"], "--set training.epochs=-1"),
        (["trainig.epochs=3"], "--set trainig.epochs=3"),
        (["loss.weight_ce=[0, 0, 0, 0]"], "--set loss.weight_ce=[0, 0, 0, 0]"),
        (["loss.weight_ce.et=-1"], "--set loss.weight_ce.et=-1: loss.weight_ce.3"),
        (["model.swin_unetr={heads: [0, 1, 1, 1]}"], "--set model.swin_unetr={heads: [0, 1, 1, 1]}: model"),
        ([], "experiment.yaml: training.epochs"),
    ],
)
def test_a_problem_names_the_option_that_set_the_field(tmp_path, overrides, where):
    content = SMALL | {"training": {"epochs": 2 if overrides else 0}}
    with pytest.raises(ProblemsFound) as caught:
        load_experiment(write(tmp_path, content), overrides)
    assert where in caught.value.problems[0].where


def test_a_whole_section_would_lose_fields(tmp_path):
    file = write(tmp_path, {**SMALL, "loss": {"cancer_mask": "union", "unc_weight": 0.3}})
    with pytest.raises(ProblemsFound, match=r"cancer_mask, which would be lost.*write loss\.unc_weight"):
        load_experiment(file, ["loss={unc_weight: 0.2}"])
    whole = load_experiment(file, ["loss={unc_weight: 0.2, cancer_mask: reference}"])
    assert (whole.loss.unc_weight, whole.loss.cancer_mask) == (0.2, "reference")


def test_what_is_saved_loads_as_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    experiment = load_experiment(write(tmp_path, SMALL), ["plan.patch_size=[32, 32, 32]"])
    save_experiment(experiment, tmp_path / "resolved.yaml")
    again = load_experiment(tmp_path / "resolved.yaml")
    assert again.loss == experiment.loss
    assert again.plan == experiment.plan
    assert again.dataset.path == (tmp_path / "cases")
    assert again.run_folder == experiment.run_folder


def test_an_estimator_is_chosen_over_a_saved_experiment_that_has_none(tmp_path):
    file = tmp_path / "saved.yaml"
    save_experiment(load_experiment(write(tmp_path, SMALL)), file)
    chosen = load_experiment(file, ["evaluation.estimators.augmentation.samples=8"])
    assert chosen.evaluation.estimators.augmentation.samples == 8


def test_a_field_of_earlier_versions_is_read_at_its_default(tmp_path):
    assert load_experiment(write(tmp_path, SMALL | {"memory": {"coordinates": "case"}})).memory.published is None
    problems = problems_of(tmp_path, SMALL | {"memory": {"coordinates": "patch"}})
    assert set(problems) == {"memory.coordinates"}
