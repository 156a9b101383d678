"""The repository itself: shipped experiments, the rooms and arrows of docs/architecture.md, portable files."""

import ast
import graphlib
import platform
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from uncseg.config.experiment import load_experiment
from uncseg.config.task_files import require_task
from uncseg.errors import ProblemsFound
from uncseg.studies.benchmark.load_benchmark import load_benchmark
from uncseg.studies.sweep.load_sweep import load_sweep

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "platform" / "uncseg"
MAP = ROOT / "docs" / "architecture.md"


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
    elif file.parent.name == "tasks":
        task = require_task(str(file))
        assert task is not None
        assert task.name == file.stem
    elif file.parent.name != "sweeps":
        assert load_experiment(file).name == file.stem
    elif file.name == "pareto.yaml":  # compares with a run that has to be trained first
        with pytest.raises(ProblemsFound) as caught:
            load_sweep(file)
        assert ["constraints.0.baseline" in problem.where for problem in caught.value.problems] == [True]
    else:
        sweep, base = load_sweep(file)
        assert sweep.name not in {base.name, *(other.stem for other in (ROOT / "experiments").glob("*.yaml"))}


def test_the_example_of_a_task_is_the_one_that_docs_show():
    page = (ROOT / "docs" / "tasks.md").read_text()
    (shown,) = [block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if block.startswith("title:")]
    file = ROOT / "experiments" / "tasks" / "prostate.yaml"
    assert shown == "".join(line for line in file.read_text().splitlines(keepends=True) if line[0] != "#")


def test_the_papers_experiment_has_the_papers_settings():
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


@cache
def rooms():
    """Names in the table below the heading "Rooms" of docs/architecture.md, from top to bottom."""
    section = MAP.read_text(encoding="utf-8").partition("\n## Rooms\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", section, re.M)


@cache
def modules():
    """File of each module of the package, by its dotted name."""
    files = {}
    for file in PACKAGE.rglob("*.py"):
        parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return files


@cache
def imports(module):
    """Everything that a module imports, wherever in its file, by dotted names."""
    found = set()
    for node in ast.walk(ast.parse(modules()[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found.update(name if name in modules() else node.module for name in names)
    return found


def own_imports(module):
    return {name for name in imports(module) if name in modules() and name != "uncseg"}


def test_the_map_names_every_room_and_no_other():
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert sorted(rooms()) == sorted(there - {"__init__"})


def test_every_file_that_the_pages_name_exists():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    folders = {f"{parent}/" for file in tracked for parent in Path(file).parents if parent.parts}
    missing = set()
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        named = set(re.findall(r"`(?:python )?([\w/]+\.(?:py|sh))\b", text)) - {"tests/performance/NAME.py"}
        named |= set(re.findall(r"`(\w+/)`", text)) - {"src/"} if page == MAP else set()
        missing |= {f"{page.name}: {name}" for name in named if not _is_there(name, (*tracked, *folders))}
    assert not missing


def _is_there(name, paths):
    return any(f"/{path}".endswith(f"/{name}") for path in paths)


def test_no_import_runs_upward():
    height = {room: -number for number, room in enumerate(rooms())}
    upward = []
    for module in modules():
        for name in own_imports(module):
            above, below = (dotted.split(".")[1] for dotted in (module, name) if "." in dotted)
            if above != below and height.get(below, -99) > height.get(above, 99):
                upward.append(f"{module} imports {name}")
    assert not upward


def test_no_modules_import_each_other_in_a_circle():
    graph = {module: own_imports(module) - {module} for module in modules()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_parts_of_the_method_import_downward_too():
    text = MAP.read_text(encoding="utf-8")
    order = re.findall(r"`([\w.]+)`", re.search(r"Inside `method` the order is (.*?)\n\n", text, re.S)[1])
    files = [name.removesuffix(".py") for name in order if name.endswith(".py")]
    height = {name: -number for number, name in enumerate(order)} | dict.fromkeys(files, -len(order))
    upward = []
    for module in (name for name in modules() if name.startswith("uncseg.method.")):
        for name in own_imports(module):
            if name.startswith("uncseg.method."):
                above, below = (dotted.split(".")[2] for dotted in (module, name))
                if above != below and height.get(below, -999) > height.get(above, 999):
                    upward.append(f"{module} imports {name}")
    assert not upward


@pytest.mark.parametrize("room", ["method", "estimators", "evaluation", "dataset", "tracking.spool"])
def test_rooms_that_can_be_used_without_ray_and_mlflow(room):
    """Neither they nor anything that they import."""
    seen, left = set(), {name for name in modules() if f"{name}.".startswith(f"uncseg.{room}.")}
    assert left
    while left:
        seen |= left
        for module in left:
            assert not {"ray", "mlflow"} & {name.partition(".")[0] for name in imports(module)}, module
        left = {name for module in left for name in own_imports(module)} - seen


def test_an_experiment_is_read_without_torch():
    code = "import sys, uncseg.config.experiment; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_no_file_names_a_path_of_one_machine_or_a_registry():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in tracked:
        if name.endswith((".py", ".toml", ".yaml", ".md", ".txt", "Makefile", "run")):
            text = (ROOT / name).read_text(encoding="utf-8")
            for wrong in ("/" + "work/", "/" + "home/", "/" + "root/", "py" + "pi.org", "--index" + "-url"):
                assert wrong not in text, f"{name}: {wrong}"
