"""``uncseg sweep``: search an experiment's fields."""

from pathlib import Path

from uncseg.studies.sweep.load_sweep import load_sweep


def sweep_experiment(file: Path, overrides: list[str] | None = None) -> int:
    """Run a sweep file, or go on with it; return 0, or 1 where there is no best trial.

    Raises:
        ProblemsFound: the file, the base experiment or the cluster does not allow it.
    """
    sweep, base = load_sweep(file, overrides)
    from uncseg.studies.sweep.run_sweep import run_sweep  # imports Ray: a wrong file is refused before

    return run_sweep(sweep, base)
