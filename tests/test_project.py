"""The house itself."""

import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from uncseg.config.experiment import load_experiment
from uncseg.errors import ProblemsFound
from uncseg.studies.benchmark.benchmark_file import load_benchmark
from uncseg.studies.sweep.sweep_file import load_sweep

ROOT = Path(__file__).resolve().parents[1]


def test_platform_is_never_a_package():
    # with an __init__.py it would shadow the standard library in every process started in the repository
    assert not (ROOT / "platform" / "__init__.py").exists()
    assert platform.python_version()
    code = "import platform, sys; sys.exit('uncseg' in (platform.__file__ or '') or not platform.system())"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("file", sorted((ROOT / "experiments").rglob("*.yaml")), ids=lambda file: file.name)
def test_shipped_experiments_load(file, monkeypatch):
    monkeypatch.chdir(ROOT)
    if file.parent.name == "benchmarks":
        benchmark, base, trainings = load_benchmark(file)
        assert benchmark.name != base.name
        assert {one.seed for one in trainings} == set(benchmark.seeds)
    elif file.parent.name != "sweeps":
        assert load_experiment(file).name == file.stem
    elif file.name == "pareto.yaml":  # compares with a run that has to be trained first
        with pytest.raises(ProblemsFound) as caught:
            load_sweep(file)
        assert ["constraints.0.baseline" in problem.where for problem in caught.value.problems] == [True]
    else:
        sweep, base = load_sweep(file)
        assert sweep.name not in {base.name, *(other.stem for other in (ROOT / "experiments").glob("*.yaml"))}


def test_the_papers_experiment():
    paper = load_experiment(ROOT / "experiments" / "brats2023.yaml")
    assert paper.split.folds == 5
    assert paper.training.epochs == 500
    assert paper.plan.batch_size == 2
    assert (paper.loss.unc_weight, paper.loss.rmsd_weight, paper.loss.corr_weight) == (0.4, 0.5, 0.4)
    assert paper.loss.weight_ce == (0.2, 1, 0.2, 1)
    assert paper.loss.warmup_epochs == 0
    assert paper.loss.cancer_mask == "reference"
    assert paper.dataset.expected_cases == 1248
    assert not load_experiment(ROOT / "experiments" / "brats2023_baseline.yaml").model.uncertainty
    assert load_experiment(ROOT / "experiments" / "brats2023_union.yaml").loss.cancer_mask == "union"


@pytest.mark.parametrize("room", ["method", "estimators", "evaluation", "dataset", "tracking/spool.py"])
def test_rooms_that_know_nothing_of_ray_or_mlflow(room):
    path = ROOT / "platform" / "uncseg" / room
    files = [path] if path.is_file() else sorted(path.rglob("*.py"))
    assert files
    for file in files:
        lines = file.read_text(encoding="utf-8").splitlines()
        imports = {line.split()[1].split(".")[0] for line in map(str.strip, lines) if re.match("import |from ", line)}
        assert not {"ray", "mlflow"} & imports, file


def test_no_path_of_one_machine_and_no_registry():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in tracked:
        if name.endswith((".py", ".toml", ".yaml", ".md", ".txt", "Makefile", "run")):
            text = (ROOT / name).read_text(encoding="utf-8")
            for wrong in ("/" + "work/", "/" + "home/", "/" + "root/", "py" + "pi.org", "--index" + "-url"):
                assert wrong not in text, f"{name}: {wrong}"
