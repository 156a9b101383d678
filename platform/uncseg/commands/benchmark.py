"""``uncseg benchmark``: compare uncertainty maps of several trainings."""

from pathlib import Path

from uncseg.studies.benchmark.load_benchmark import load_benchmark


def benchmark_trainings(
    file: Path, overrides: list[str] | None = None, dry_run: bool = False, trust: bool = False
) -> int:
    """Run a benchmark file, or go on with it; return 0, or 1 where a fold failed.

    Args:
        file: YAML file.
        overrides: ``FIELD=VALUE`` for the base experiment.
        dry_run: check everything and print the plan, train nothing.
        trust: let checkpoints that exist already run code of their own.

    Raises:
        ProblemsFound: the file, a training or the cluster does not allow it, or a case cannot be scored.
    """
    benchmark, base, trainings = load_benchmark(file, overrides)
    from uncseg.studies.benchmark.run_benchmark import run_benchmark  # imports Ray: a wrong file is refused before

    return run_benchmark(benchmark, base, trainings, dry_run, trust)
