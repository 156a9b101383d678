"""Sweeps and benchmarks, loaded and checked before torch, Ray or MLflow are imported."""

from pathlib import Path

from uncseg.commands.early_checks import check_cases, check_tracking
from uncseg.config.experiment import Experiment
from uncseg.studies.benchmark.benchmark_file import Benchmark, SeededTraining
from uncseg.studies.benchmark.load_benchmark import load_benchmark
from uncseg.studies.benchmark.load_benchmark import require_place as require_place_of_benchmark
from uncseg.studies.load_study import load_study
from uncseg.studies.study_folder import BenchmarkFolder, SweepFolder
from uncseg.studies.sweep.failure_sweep import require_finished_run
from uncseg.studies.sweep.load_sweep import load_sweep
from uncseg.studies.sweep.load_sweep import require_place as require_place_of_sweep
from uncseg.studies.sweep.sweep_file import Sweep


def checked_sweep(file: Path, overrides: list[str] | None) -> tuple[Sweep, Experiment]:
    """Return a sweep and its base, as :func:`load_sweep` does, whose dataset and folders can be used.

    Raises:
        ProblemsFound: they cannot.
    """
    sweep, base = load_study(file, Sweep, overrides)
    begun = SweepFolder(base.storage.path / sweep.name).content.is_file()
    check_cases(base, begun)
    sweep, base = load_sweep(file, overrides)
    require_place_of_sweep(sweep, base)
    require_finished_run(sweep, base)
    check_tracking(base, begun)
    return sweep, base


def checked_benchmark(file: Path, overrides: list[str] | None) -> tuple[Benchmark, Experiment, list[SeededTraining]]:
    """Return a benchmark, its base and its trainings, as :func:`load_benchmark` does, that can be run.

    Raises:
        ProblemsFound: their dataset or folders cannot be used.
    """
    benchmark, base, trainings = load_benchmark(file, overrides)
    require_place_of_benchmark(benchmark, base, trainings)
    begun = BenchmarkFolder(base.storage.path / benchmark.name).content.is_file()
    check_cases(base, begun)
    check_tracking(base, begun)
    return benchmark, base, trainings
