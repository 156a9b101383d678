"""``uncseg evaluate RUN [--dataset FOLDER]``: the last part of ``uncseg cross-validate``, or another cohort."""

from pathlib import Path

from uncseg.cluster.autoscaler import connected_cluster
from uncseg.cluster.environment import refuse_kept_address
from uncseg.cluster.resources import plan_slots
from uncseg.cluster.session import ray_session
from uncseg.config.task_files import require_task
from uncseg.console import console, counting
from uncseg.dataset.patients import as_patients
from uncseg.errors import Problem, ProblemsFound, raise_if_any
from uncseg.layout import RunFolder
from uncseg.report.run_figures import page_outputs
from uncseg.runs.cohort_evaluation import cohort_files, predict_cohort, write_cohort_tables
from uncseg.runs.cohort_task import cohort_task
from uncseg.runs.cross_fitting import MISSING
from uncseg.runs.fold_request import RunRequest
from uncseg.runs.model_sources import find_model
from uncseg.runs.preflight import require_storage
from uncseg.runs.preparation_tasks import prepare_cases
from uncseg.runs.run_data import changed_split, kept_preparation
from uncseg.runs.run_opening import open_existing_run, recorded_folds, require_unchanged
from uncseg.runs.run_tables import evaluate_and_write_tables, require_own_files


def evaluate_run(root: Path, overrides: list[str] | None = None, trust: bool = False) -> int:
    """Predict and score a run's finished folds, and write its tables and figures.

    Args:
        overrides: ``FIELD=VALUE`` of the run's experiment, except for fields that change what it computes.
        trust: let checkpoints run code of their own.
    """
    run, experiment = open_existing_run(root, overrides)
    refuse_kept_address(run.root, experiment.resources.ray_address, overrides)
    require_own_files(run)
    folds = recorded_folds(experiment, run)
    if not folds:
        problem = Problem(str(root), "no finished fold", "at least one", "run uncseg cross-validate first")
        raise ProblemsFound("There is nothing to evaluate.", [problem])
    require_unchanged(run, experiment)
    with ray_session(experiment.resources.ray_address) as own_ray:
        require_storage(experiment, own_ray)
        slots = plan_slots(experiment.resources, len(folds), connected_cluster(experiment.resources, own_ray))
        with counting() as progress:
            prepared = prepare_cases(experiment, progress, kept_preparation(run, experiment))
        raise_if_any(changed_split(run, prepared), f"The split of the run {run.root} changed.")
        problems = evaluate_and_write_tables(RunRequest(experiment, prepared, run, slots, trust), folds)
    console.print(f"tables:  {run.tables}\nmaps:    {run.out_of_fold}", soft_wrap=True)
    raise_if_any(problems, MISSING, exit_code=1)
    return 0


def evaluate_cohort(
    root: Path,
    dataset: Path,
    overrides: list[str] | None = None,
    trust: bool = False,
    convention: str | None = None,
    patients: str | None = None,
    task: str | None = None,
) -> int:
    """Predict and score another cohort, a folder of cases with references, with a run's folds, and write its tables.

    Args:
        convention: of the cohort's task, for its references; None: as its files are named.
        overrides, trust: see :func:`evaluate_run`.
        patients: who is a patient in the cohort, see :func:`~uncseg.dataset.patients.as_patients`.
        task: of the cohort, see :func:`~uncseg.runs.cohort_task.cohort_task`.

    Raises:
        ProblemsFound: naming every case that could not be predicted or scored; the others are finished. Or naming
            tables of the cohort that someone has edited (exit code 2).
    """
    wanted, setting = require_task(task), as_patients(patients)
    run, dataset = RunFolder(root.resolve()), dataset.resolve()
    outputs, names = page_outputs(run), cohort_files(dataset.name)
    outputs.adopt_older(names, run.tables / f"external_{dataset.name}.parquet")
    outputs.require_own(names)
    model = find_model(str(root), run.root, None, overrides, trust)
    chosen = cohort_task(dataset, model.task, wanted)
    records, problems = predict_cohort(run, model, dataset, chosen, trust, convention, setting)
    if records:
        with outputs.noting(among=names):
            write_cohort_tables(run, dataset.name, records, chosen.task)
    raise_if_any(problems, "Some cases could not be evaluated.", exit_code=1)
    return 0
