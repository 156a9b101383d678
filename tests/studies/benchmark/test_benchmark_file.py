"""Benchmark files: what they are made of, and every problem at once."""

import pytest
import yaml

from uncseg.errors import ProblemsFound
from uncseg.studies.benchmark.load_benchmark import load_benchmark
from uncseg.studies.benchmark.methods import methods_of

PLAIN = {"set": {"model.uncertainty": False}, "maps": ["entropy", "constant"]}


@pytest.fixture
def benchmark_file(experiment_file, tmp_path):
    """Write a benchmark over the small experiment."""
    base = experiment_file(tmp_path / "cases")

    def write(trainings, **fields):
        content = {"name": "compared", "base": str(base), "seeds": [3, 5], "trainings": trainings} | fields
        file = tmp_path / "benchmark.yaml"
        file.write_text(yaml.safe_dump(content), encoding="utf-8")
        return file

    return write


def problems_of(file, overrides=()):
    with pytest.raises(ProblemsFound) as caught:
        load_benchmark(file, list(overrides))
    assert caught.value.exit_code == 2
    return {problem.where.partition(": ")[2]: problem for problem in caught.value.problems}


def test_each_training_is_run_once_per_seed_and_judges_the_segmentation_of_its_seed(benchmark_file):
    file = benchmark_file({"plain": PLAIN, "referee": {"set": {"model.error_network": {"run": "plain"}}}})
    benchmark, base, trainings = load_benchmark(file, ["training.iterations_per_epoch=7"])
    assert benchmark.folds is None
    assert [one.run_name for one in trainings] == [
        f"{name}_seed_{seed}" for seed in (3, 5) for name in ("plain", "referee")
    ]
    for one in trainings:
        assert one.experiment.training.seed == one.seed
        assert one.experiment.training.iterations_per_epoch == 7
        assert one.experiment.run_folder == base.storage.path.resolve() / "compared" / "trainings" / one.run_name
        assert one.experiment.tracking_uri == base.tracking_uri, "all in one MLflow"
    assert [one.experiment.model.error_network.run for one in trainings if one.name == "referee"] == [
        "plain_seed_3",
        "plain_seed_5",
    ]


def test_a_head_learns_from_the_run_of_its_seed(benchmark_file):
    learns = {"set": {"model.uncertainty": False, "failures.trees": 9, "training.members": 3}, "maps": ["cross_fitted"]}
    file = benchmark_file(
        {
            "plain": learns,
            "of_members": {"set": {"memory": {"source": "members", "run": "plain"}}},
            "of_failures": {"set": {"memory": {"source": "cross_fitted", "run": "plain"}}, "maps": ["entropy"]},
        }
    )
    _, _, trainings = load_benchmark(file)
    runs = [one.experiment.memory.run for one in trainings if one.name == "of_members"]
    assert runs == ["plain_seed_3", "plain_seed_5"]
    methods = {method.name: method for one in trainings for method in methods_of(one)}
    taught = {name: (method.learns_from, method.learns) for name, method in methods.items()}
    assert taught["of_members/uncertainty"] == ("plain", "members")
    assert taught["of_failures/entropy"] == (None, None), "its floors need no other run"
    assert taught["of_failures/uncertainty"] == ("plain", "cross_fitted")
    assert taught["plain/cross_fitted"] == (None, None)


def test_a_training_from_which_no_head_can_learn_is_refused(benchmark_file):
    file = benchmark_file(
        {
            "plain": PLAIN,
            "of_nobody": {"set": {"memory": {"source": "members", "run": "nobody"}}},
        }
    )
    assert set(problems_of(file)) == {"trainings.of_nobody, memory.run"}
    file = benchmark_file(
        {
            "plain": PLAIN,
            "first": {"set": {"memory": {"source": "members", "run": "plain"}}},
            "second": {"set": {"memory": {"source": "members", "run": "first"}}},
            "of_failures": {"set": {"memory": {"source": "cross_fitted", "run": "plain"}}},
        }
    )
    problems = problems_of(file)
    assert "needs another one itself" in problems["trainings.second, memory.run"].found
    assert "add cross_fitted to its maps" in problems["trainings.of_failures, memory.run"].advice


def test_methods_say_how_many_passes_and_networks_they_take(benchmark_file):
    file = benchmark_file(
        {
            "plain": {
                "set": {
                    "model.uncertainty": False,
                    "training.members": 4,
                    "evaluation.estimators": {"deep_ensemble": True, "augmentation": {"samples": 8}},
                },
                "maps": ["entropy"],
            },
            "head": {},
            "dropout": {"set": {"model.dropout": 0.1, "evaluation.estimators.mc_dropout.samples": 12}},
            "second": {"set": {"model.error_network": {"run": "plain", "kind": "image_and_prediction"}}},
        }
    )
    _, _, trainings = load_benchmark(file)
    rows = {method.name: method for one in trainings for method in methods_of(one)}
    taken = {name: (method.passes, method.models) for name, method in rows.items()}
    assert taken["plain/entropy"] == (1, 1)
    assert taken["plain/deep_ensemble_epistemic"] == (4, 4)
    assert taken["plain/augmentation_variance"] == (8, 1)
    assert taken["head/uncertainty"] == (1, 1)
    assert taken["dropout/uncertainty"] == (1, 1)
    assert taken["dropout/mc_dropout_aleatoric"] == (12, 1)
    assert taken["second/uncertainty"] == (2, 2)
    assert "plain/uncertainty" not in rows, "that network has no head"
    # a second opinion comes as the spread of the passes, and as their mean against the decision
    assert taken["plain/deep_ensemble_against_decision"] == (4, 4)
    assert taken["dropout/mc_dropout_against_decision"] == (12, 1)
    assert not any(method.floor for name, method in rows.items() if name.endswith("against_decision"))


def test_every_problem_of_every_training_is_named_at_once(benchmark_file):
    file = benchmark_file(
        {
            "plain": PLAIN | {"maps": ["entropie"]},
            "alone": {"set": {"model.uncertainty": False, "evaluation.estimators.deep_ensemble": True}},
            "dry": {"set": {"evaluation.estimators.mc_dropout.samples": 5}},
            "other": {"set": {"dataset.path": "elsewhere", "model.colour": "red"}},
            "referee": {"set": {"model.error_network": {"run": "nobody"}}},
        },
        shared="none",
        folds=[0, 7],
        seeds=[1, 1],
    )
    problems = problems_of(file)
    assert {"shared", "folds", "seeds", "trainings.plain.maps", "trainings.other.set"} <= set(problems)
    assert "trainings.referee, model.error_network.run" in problems
    advice = {where: problem.advice for where, problem in problems.items()}
    assert "training.members" in advice["trainings.alone, evaluation.estimators.deep_ensemble"]
    assert "model.dropout" in advice["trainings.dry, evaluation.estimators.mc_dropout"]
    assert problems["trainings.other, model.colour"].found == "an unknown field"


def test_trainings_that_cannot_be_compared_are_refused_before_they_are_trained(benchmark_file):
    judge = {"run": "plain", "kind": "features"}
    file = benchmark_file(
        {
            "plain": PLAIN,
            "headless": {"set": {"model.uncertainty": False}, "maps": ["uncertainty"]},
            "mute": {"set": {"model.uncertainty": False}},
            "noisy": {"set": {"model.uncertainty": False, "model.heteroscedastic": True}, "maps": ["entropy"]},
            "of_noisy": {"set": {"model.error_network": judge | {"run": "noisy"}}},
            "of_itself": {"set": {"model.error_network": judge | {"run": "of_itself"}}},
            "of_regions": {"set": {"model.error_network": judge, "model.output": "regions", "loss.weight_ce": None}},
        }
    )
    problems = problems_of(file)
    assert set(problems) == {
        "trainings.headless.maps",
        "trainings.mute.maps",
        "trainings.of_noisy, model.error_network.run",
        "trainings.of_itself, model.error_network.run",
        "trainings.of_regions, model.output",
    }
    assert "`model.uncertainty` to true" in problems["trainings.headless.maps"].advice


@pytest.mark.parametrize(
    ("fields", "field", "expected"),
    [
        ({"proposed": "plain/entropi"}, "proposed", "TRAINING/MAP"),
        ({"folds": [0]}, "folds", "two folds at least"),
        ({"folds": [0, 0]}, "folds", "each once"),
        ({"seeds": [0, 1000]}, "seeds", "nearer to each other"),
    ],
)
def test_folds_and_seeds_that_cannot_be_compared_are_refused(benchmark_file, fields, field, expected):
    members = {"set": {"model.uncertainty": False, "training.members": 2}, "maps": ["entropy"]}
    assert expected in problems_of(benchmark_file({"plain": members}, **fields))[field].expected


def test_an_error_network_without_settings_is_refused(benchmark_file):
    file = benchmark_file({"plain": PLAIN, "referee": {"set": {"model.error_network": "plain"}}})
    assert any("model.error_network" in where for where in problems_of(file))


def test_trainings_with_other_numbers_of_optimiser_steps_are_refused(benchmark_file):
    problems = problems_of(benchmark_file({"plain": PLAIN, "longer": {"set": {"training.epochs": 9}}}))
    assert problems["trainings.longer"].found == "36 optimiser steps"
    assert problems["trainings.longer"].expected == "16, as plain takes"


def test_a_section_that_would_lose_fields_is_refused(benchmark_file):
    problems = problems_of(benchmark_file({"plain": PLAIN, "other": {"set": {"loss": {"unc_weight": 0.2}}}}))
    assert "write loss.unc_weight" in problems["trainings.other, loss"].advice
