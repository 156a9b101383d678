"""``uncseg predict``: new cases, by the finished folds of a run."""

from collections.abc import Sequence
from pathlib import Path

from uncseg.cluster.autoscaler import connected_cluster
from uncseg.cluster.inference import run_cases
from uncseg.cluster.new_cases import PredictionTask, predict_new_case
from uncseg.cluster.node_checks import require_places
from uncseg.cluster.ray_session import ray_session
from uncseg.cluster.resources import plan_slots
from uncseg.commands.evaluate import finished_folds, run_to_use
from uncseg.console import console, counting
from uncseg.dataset.brats import scan_folder
from uncseg.errors import Problem, ProblemsFound


def predict_cases(
    model: Path,
    source: Path,
    output: Path,
    folds: Sequence[int] | None = None,
    overrides: list[str] | None = None,
    trust: bool = False,
) -> int:
    """Predict every case of a BraTS folder; what is there already is not done again.

    Args:
        model: folder of a run.
        source: BraTS folder, of one case or many; references are not needed.
        output: folder for CASE.nii.gz, CASE_uncertainty.nii.gz and CASE.json.
        folds: folds to average; None: all that are finished.
        overrides: ``FIELD=VALUE`` for the experiment that the run was started with; what it computes can't change.
        trust: let checkpoints run code of their own.

    Raises:
        ProblemsFound: naming every case that could not be predicted; the others are done.
    """
    run, experiment = run_to_use(model, overrides)
    folds = _chosen(folds, finished_folds(experiment, run), model)
    settings = experiment.evaluation
    with ray_session(experiment.resources.ray_address) as own_ray:
        require_places({"OUTPUT": output}, {"INPUT": source, "MODEL": model}, own_ray)
        cases, problems = scan_folder(source.resolve(), require_reference=False)
        slots = plan_slots(experiment.resources, max(1, len(cases)), connected_cluster(experiment.resources, own_ray))
        task = PredictionTask(
            run.model,
            tuple(folds),
            experiment.plan.configuration,
            output.resolve(),
            slots.cpus,
            settings.tile_step,
            settings.mirroring,
            trust,
        )
        with counting() as progress:
            work = [(case.case_id, predict_new_case, (task, case)) for case in cases]
            rows, failed = run_cases(work, slots, lambda done, of: progress("predicted cases", done, of))
    console.print(f"{len(rows)} cases by folds {', '.join(map(str, folds))} in {output}")
    if problems + failed:
        raise ProblemsFound("Some cases could not be predicted.", problems + failed, exit_code=1)
    return 0


def _chosen(folds: Sequence[int] | None, finished: list[int], model: Path) -> list[int]:
    wrong = [fold for fold in folds or () if fold not in finished]
    if not finished or wrong:
        found = f"fold {', '.join(map(str, wrong))}" if wrong else "no finished fold"
        expected = f"finished folds: {', '.join(map(str, finished)) or 'at least one'}"
        problem = Problem(str(model), found, expected, "finish them with uncseg cross-validate")
        raise ProblemsFound("There is nothing to predict with.", [problem])
    return sorted(set(folds)) if folds else finished
