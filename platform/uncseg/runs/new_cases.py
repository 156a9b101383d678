"""New cases predicted on Ray: three tasks per case, several cases in flight, finished cases only read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from uncseg.cluster.autoscaler import connected_cluster
from uncseg.cluster.resources import plan_slots
from uncseg.cluster.session import ray_session
from uncseg.cluster.tasks import map_cases, start_as_task
from uncseg.cluster.workers import Workers
from uncseg.console import counting
from uncseg.dataset.brats import BratsCase
from uncseg.errors import Problem, ProblemsFound
from uncseg.estimators.registry import ESTIMATORS, NOT_MIRRORED
from uncseg.files import kept_record, remove_partial
from uncseg.layout import PREDICTION_MAPS, CaseFiles
from uncseg.runs.model_sources import PredictionModel
from uncseg.runs.new_case_tasks import PredictionOptions, PredictionTask, Record, predict_case, read_case, write_case
from uncseg.runs.preflight import require_folders

IN_FLIGHT = 3  # cases per worker: one is read, one predicted, one written


def predict_new_cases(
    model: PredictionModel,
    cases: Sequence[BratsCase],
    output: Path,
    options: PredictionOptions,
    trust: bool,
    reads: Mapping[str, Path],
    writes: Mapping[str, Path],
) -> tuple[dict[str, Record], list[Problem]]:
    """Predict every case that is not finished yet, on the Ray that the model's resources name.

    Per case it writes CASE.nii.gz, CASE_uncertainty.nii.gz (if the networks have the head), with several folds
    CASE_between_folds.nii.gz, what else the options ask for, and, last, CASE.json.

    Args:
        cases: images in the order of the model's channels.
        reads, writes: folders that every node has to see, by the names that the user knows them under.

    Returns:
        The contents of CASE.json by case, and the problems of the cases that could not be predicted.

    Raises:
        ProblemsFound: the options exclude each other, the labels' meaning is unknown, or a node does not see a folder.
    """
    chosen = model.evaluation.estimators.several_pass if options.mirroring else ()
    if mirrors := [name for name in chosen if NOT_MIRRORED in ESTIMATORS[name].needs]:
        expected = "one of the two: mirrored copies of mirrored copies are all the same"
        found = f"with evaluation.estimators.{' and '.join(mirrors)}"
        problem = Problem("--mirroring", found, expected, "leave --mirroring out")
        raise ProblemsFound("The options exclude each other.", [problem])
    with ray_session(model.resources.ray_address) as own_ray:
        require_folders(writes, reads, own_ray)
        slots = plan_slots(model.resources, max(1, len(cases)), connected_cluster(model.resources, own_ray))
        _ = model.folder.meaning  # raises unless the labels are those of BraTS
        task = PredictionTask(model, options, output.resolve(), slots.cpus_per_process, trust)
        task.output.mkdir(parents=True, exist_ok=True)
        sources = task.sources(cases)
        records = {name: _finished_record(CaseFiles(task.output, name), source) for name, source in sources.items()}
        finished = {name: record for name, record in records.items() if record is not None}
        todo = [case for case in cases if case.case_id not in finished]
        with counting() as progress, Workers(slots, len(todo)) as workers:
            progress("predicted cases", len(finished), len(cases))
            calls = [(case.case_id, _start_tasks, (task, case, sources[case.case_id], workers)) for case in todo]
            predicted, problems = map_cases(
                calls,
                lambda ended, _: progress("predicted cases", len(finished) + ended, len(cases)),
                lambda: IN_FLIGHT * workers.count(),
                "a prediction",
                start=lambda function, arguments: function(*arguments),
            )
    remove_partial(task.output)
    return finished | predicted, problems


def _finished_record(files: CaseFiles, source: str) -> Record | None:
    """Return a case's record if all of its files are there; otherwise remove those that are."""
    record = kept_record(files.scores, source)
    if record is None:
        # a map of other folds or options would lie beside labels that it does not belong to
        for file in (files.scores, files.segmentation, files.overlay, *map(files.map, PREDICTION_MAPS)):
            file.unlink(missing_ok=True)
    return record


def _start_tasks(task: PredictionTask, case: BratsCase, source: str, workers: Workers) -> Any:
    """Start a case's three tasks and return the reference of the last one's result."""
    data, properties = start_as_task(1.0, returns=2)(read_case, (task, case))
    predictions = workers.start(predict_case, (task, data))
    return start_as_task(1.0)(write_case, (task, case, source, properties, predictions))
