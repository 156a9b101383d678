"""``uncseg evaluate RUN --dataset FOLDER``: another cohort with references."""

from pathlib import Path

from uncseg.errors import ProblemsFound
from uncseg.layout import RunFolder
from uncseg.runs.cohort_evaluation import predict_cohort, write_cohort_tables
from uncseg.runs.model_sources import find_model


def evaluate_cohort(root: Path, dataset: Path, overrides: list[str] | None = None, trust: bool = False) -> int:
    """Predict and score another cohort with a run's folds, and write its tables.

    Args:
        root: the run's folder.
        dataset: BraTS folder with references.
        overrides: ``FIELD=VALUE`` of resources and evaluation.
        trust: let checkpoints run code of their own.

    Raises:
        ProblemsFound: naming every case that could not be predicted or scored; the others are finished.
    """
    run, dataset = RunFolder(root.resolve()), dataset.resolve()
    model = find_model(str(root), run.root, None, overrides, trust)
    records, problems = predict_cohort(run, model, dataset, trust)
    if records:
        write_cohort_tables(run, dataset.name, records)
    if problems:
        raise ProblemsFound("Some cases could not be evaluated.", problems, exit_code=1)
    return 0
