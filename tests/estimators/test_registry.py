"""The registry: what it says of an estimator reaches settings, files, metrics, tables and benchmarks."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import uncseg
from uncseg.config.experiment import Experiment
from uncseg.config.rules import problems_of_estimators
from uncseg.config.sections import Evaluation
from uncseg.config.training_sections import Model, Training
from uncseg.estimators.registry import ESTIMATORS, FLOORS, SEVERAL_PASSES
from uncseg.layout import prediction_maps
from uncseg.method.training.epoch_names import epoch_metric_names
from uncseg.studies.benchmark.benchmark_file import SeededTraining as BenchmarkTraining
from uncseg.studies.benchmark.methods import methods_of
from uncseg.tasks.built_in_tasks import paper_task

ALL_CHOSEN = {
    "evaluation": {"estimators": {e.name: {} if e.settings else True for e in SEVERAL_PASSES}},
    "model": {"dropout": 0.2, "heteroscedastic": True, "uncertainty": False},
    "training": {"members": 3},
}
NEW = """
from collections.abc import Iterator
import torch
from uncseg.estimators.several_passes import Passes

def add_noise(passes: Passes) -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(passes.settings.seed)
    for _ in range(passes.settings.samples):
        yield passes.probabilities(passes.images + torch.randn(passes.images.shape, generator=generator))
"""
ENTRY = '    Estimator("noise", "noise.add_noise", parts=("variance",), settings=LogitSamples),\n'
USE = """
import json, sys
from pathlib import Path
from uncseg.config.experiment import load_experiment
from uncseg.evaluation.tables import ALL_MAPS
from uncseg.layout import prediction_maps
from uncseg.tasks.built_in_tasks import paper_task
from uncseg.method.training.epoch_names import epoch_metric_names
from uncseg.studies.benchmark.benchmark_file import SeededTraining
from uncseg.studies.benchmark.methods import methods_of
experiment = load_experiment(Path(sys.argv[1]), ["evaluation.estimators.noise.samples=3"])
import torch
from torch import nn
from uncseg.method.training.several_passes_on_patches import several_pass_maps
from uncseg.tasks.built_in_tasks import paper_task
from uncseg.tasks.outputs import Outputs
chosen = experiment.evaluation.estimators
torch.manual_seed(0)
maps = several_pass_maps(nn.Conv3d(4, 4, 1), torch.randn(2, 4, 5, 6, 7), chosen, Outputs.of(paper_task(), "labels"), [])
print(json.dumps({
    "several_pass": chosen.several_pass, "samples": chosen.noise.samples,
    "file": "noise_variance" in prediction_maps(paper_task()),
    "row": "noise_variance" in ALL_MAPS,
    "metric": "uncertainty/union/corr_ema/noise_variance" in epoch_metric_names(experiment),
    "methods": [[m.name, m.passes, m.models] for m in methods_of(SeededTraining("t", 0, experiment, ()))][1:],
    "shape": list(maps["noise_variance"].shape), "most": float(maps["noise_variance"].max()),
}))
"""


def experiment_of(**sections):
    return Experiment.model_validate({"name": "a", "dataset": {"path": "cases"}, **sections})


def test_every_map_of_several_passes_is_a_file_a_row_of_a_benchmark_and_a_metric():
    experiment = experiment_of(**ALL_CHOSEN)
    metrics = epoch_metric_names(experiment)
    rows = {method.map: method for method in methods_of(BenchmarkTraining("t", 0, experiment, ()))}
    for estimator in SEVERAL_PASSES:
        for name in estimator.maps:
            assert name in prediction_maps(paper_task())
            assert rows[name].estimator == estimator.name
            metric = f"uncertainty/reference/corr_ema/{name}"
            assert (metric in metrics) == (not estimator.combines_members), name
    costs = {method.estimator: (method.passes, method.models) for method in rows.values()}
    assert costs == {
        "mc_dropout": (20, 1),
        "deep_ensemble": (3, 3),
        "augmentation": (16, 1),
        "heteroscedastic": (1, 1),
    }


def test_every_map_of_one_pass_is_a_file_and_a_metric():
    metrics = epoch_metric_names(experiment_of())
    for estimator in ESTIMATORS.values():
        if estimator.source == "p_main" and not estimator.parts:
            assert estimator.name in prediction_maps(paper_task())
            assert f"uncertainty/union/rmsd_ema/{estimator.name}" in metrics


def test_there_is_one_list_of_floors():
    baselines = [name for name, estimator in ESTIMATORS.items() if estimator.role == "baseline"]
    assert baselines == ["variance_stable", "one_minus_max"]
    assert FLOORS == ("var1shot", "entropy", "calibrated", "min_p", "one_minus_p", "border_distance", "constant")


@pytest.mark.parametrize("name", [e.name for e in ESTIMATORS.values()])
def test_every_function_is_found_and_documented(name):
    assert ESTIMATORS[name].resolve().__doc__


@pytest.mark.parametrize(
    ("name", "model", "training", "mirroring", "fields"),
    [
        ("mc_dropout", {}, {}, False, ["model.dropout"]),
        ("deep_ensemble", {}, {}, False, ["training.members"]),
        ("deep_ensemble", {"error_network": {"run": "a"}}, {"members": 2}, False, ["error network"]),
        ("augmentation", {}, {}, True, ["evaluation.mirroring"]),
        ("heteroscedastic", {}, {}, False, ["model.heteroscedastic", "model.uncertainty"]),
    ],
)
def test_what_an_estimator_lacks_is_named(name, model, training, mirroring, fields):
    chosen = {} if ESTIMATORS[name].settings else True
    evaluation = Evaluation.model_validate({"estimators": {name: chosen}, "mirroring": mirroring})
    (line,) = problems_of_estimators(evaluation, Model.model_validate(model), Training.model_validate(training))
    assert line.startswith(f"evaluation.estimators.{name} ")
    assert all(field in line for field in fields)
    assert "{" not in line


def test_experiments_are_checked_without_torch(tmp_path):
    file = tmp_path / "experiment.yaml"
    file.write_text("{name: a, dataset: {path: cases}, model: {dropout: 0.1}}", encoding="utf-8")
    code = (
        "import sys, pathlib; from uncseg.config.experiment import load_experiment; "
        "load_experiment(pathlib.Path(sys.argv[1]), ['evaluation.estimators.mc_dropout.samples=3']); "
        "sys.exit(' '.join({'torch', 'ray', 'mlflow', 'pandas', 'nnunetv2'} & set(sys.modules)) or None)"
    )
    subprocess.run([sys.executable, "-c", code, str(file)], check=True)


def test_a_new_estimator_is_one_file_and_one_entry(tmp_path):
    """In a copy of the package, since an entry is read when the registry is imported."""
    package = tmp_path / "uncseg"
    shutil.copytree(Path(uncseg.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "estimators" / "noise.py").write_text(NEW, encoding="utf-8")
    registry = package / "estimators" / "registry.py"
    lines = registry.read_text(encoding="utf-8").splitlines(keepends=True)
    lines.insert(next(n for n, line in enumerate(lines) if '"one_minus_p"' in line), ENTRY)
    registry.write_text("".join(lines), encoding="utf-8")
    file = tmp_path / "experiment.yaml"
    file.write_text("{name: a, dataset: {path: cases}}", encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", USE, str(file)], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert 0 < found.pop("most") <= 1
    assert found == {
        "several_pass": ["noise"],
        "samples": 3,
        "file": True,
        "row": True,
        "metric": True,
        "methods": [["t/noise_variance", 1, 1], ["t/noise_against_decision", 1, 1]],
        "shape": [2, 1, 5, 6, 7],
    }
