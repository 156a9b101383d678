"""``uncseg prepare`` on Ray: one Ray task per case, resumable."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import ray.exceptions

from uncseg.cluster.tasks import Call, run_tasks, two_per_cpu
from uncseg.config.experiment import Experiment
from uncseg.console import show_warnings, warn
from uncseg.dataset import fingerprint
from uncseg.dataset import preparation as steps
from uncseg.dataset.cases import Case
from uncseg.dataset.check import check_case, none_of_main_region, same_cases
from uncseg.dataset.preprocessing import damaged_cases, preprocess_case
from uncseg.dataset.splits import Splits, given_splits, make_splits, splits_of_cases, write_splits_once
from uncseg.errors import Problem, ProblemsFound, listed, raise_if_any, storage_error
from uncseg.files import file_lock
from uncseg.layout import PreparedFolder
from uncseg.partial_files import remove_partial
from uncseg.provenance import describe_versions
from uncseg.tasks.task import Task

Progress = Callable[[str, int, int], None]
Surveys = dict[str, Mapping[str, Any]]
TITLE = "Some cases cannot be used."


def prepare_cases(
    experiment: Experiment,
    progress: Progress = lambda _what, _done, _total: None,
    kept: tuple[PreparedFolder, str] | None = None,
) -> PreparedFolder:
    """Check, link, fingerprint, plan, preprocess and split the experiment's cases; needs a connected Ray.

    A finished preparation is returned at once; one that was stopped goes on where it stopped.

    Args:
        experiment: its dataset, split, plan, model.output and storage are used.
        progress: called with (what, done, total).
        kept: a folder in which the same cases were prepared before, and its digest. It is used where it is finished,
            also if files were touched since.

    Raises:
        ProblemsFound: all problems of all cases at once, of the experiment's choice of cases, or of its plan.
    """
    cases, layout_problems = steps.chosen_cases(experiment)
    task = experiment.dataset.task
    if layout_problems:
        contents = _run("checked cases", [(case.case_id, check_case, (case, task)) for case in cases], progress)
        problems = layout_problems + [problem for check in contents.values() for problem in check.problems]
        raise ProblemsFound(TITLE, problems, exit_code=1)
    preparation = steps.preparation_digest(experiment, cases)
    prepared = steps.prepared_folder(experiment, preparation)
    if kept is not None and kept[0].done.is_file():
        prepared, preparation = kept
    # experiments on the same cases, with and without the head for example, share the folder: the second one waits
    with file_lock(prepared.root.parent / ".lock"):
        if steps.read_done(prepared, preparation) is None:
            _prepare(experiment, cases, preparation, prepared, progress)
        elif damaged := damaged_cases(prepared, cases):
            names = listed(case.case_id for case in damaged)
            warn(f"prepared again, because files were damaged or changed: {names}")
            _preprocess(experiment, damaged, prepared, progress)
    return prepared


def _prepare(
    experiment: Experiment, cases: Sequence[Case], preparation: str, prepared: PreparedFolder, progress: Progress
) -> None:
    survey_folder, task = steps.survey_folder(experiment, cases), experiment.dataset.task
    samples = max(1, (experiment.plan.foreground_samples or fingerprint.FOREGROUND_SAMPLES) // len(cases))
    surveys = _survey(survey_folder, cases, samples, task, progress)
    splits = _splits(experiment, cases, surveys)
    _fingerprint(survey_folder, surveys, task, progress)
    steps.write_raw_description(prepared, experiment.model.output, list(surveys), task)
    # in a worker, which has imported nnU-Net
    _run("plans", [("plans", steps.plan, (prepared, experiment, survey_folder, len(cases)))], progress)
    split = write_splits_once(prepared.splits, splits)
    _preprocess(experiment, cases, prepared, progress)
    steps.link_references(prepared, list(surveys))
    for folder in (prepared.root, survey_folder):
        remove_partial(folder)
    groups = None if experiment.split.given is None else experiment.split.given.groups
    digests = {"split": split, "preparation": preparation}
    steps.record_done(prepared, digests, cases, surveys, groups, describe_versions())


def _preprocess(experiment: Experiment, cases: Sequence[Case], prepared: PreparedFolder, progress: Progress) -> None:
    configuration, task = experiment.plan.configuration, experiment.dataset.task
    calls = [(case.case_id, preprocess_case, (prepared, case, configuration, task)) for case in cases]
    found = _run("preprocessed cases", calls, progress)
    raise_if_any([problem for problems in found.values() for problem in problems], TITLE, exit_code=1)


def _splits(experiment: Experiment, cases: Sequence[Case], surveys: Surveys) -> Splits:
    split, patients = experiment.split, {case.case_id: case.patient for case in cases}
    if split.given is not None:
        return given_splits(split.given, patients)
    if split.drawn == "cases":
        return splits_of_cases(patients, split.folds, split.seed)
    volumes = {name: survey["volume_ml"] for name, survey in surveys.items()}
    return make_splits(volumes, patients, split.folds, split.seed)


def _survey(folder: Path, cases: Sequence[Case], samples: int, task: Task, progress: Progress) -> Surveys:
    calls = [(case.case_id, fingerprint.survey_case, (folder, case, samples, task)) for case in cases]
    surveys: Surveys = _run("checked cases", calls, progress)
    problems = [problem for survey in surveys.values() for problem in survey["problems"]]
    if not problems and not any(survey["volume_ml"] for survey in surveys.values()):
        problems.append(none_of_main_region("dataset.path", task))
    if problems:
        # corrected files have other times, and so another folder: nothing in this one would be used again
        shutil.rmtree(folder, ignore_errors=True)
        raise ProblemsFound(TITLE, problems, exit_code=1)
    warnings = [Problem(**warning) for survey in surveys.values() for warning in survey["warnings"]]
    show_warnings(warnings + same_cases({case: survey["digest"] for case, survey in surveys.items()}))
    return surveys


def _fingerprint(folder: Path, surveys: Surveys, task: Task, progress: Progress) -> None:
    if fingerprint.kept_fingerprint(folder) is not None:
        return
    cases = list(surveys)
    channels = [
        (name, fingerprint.channel_statistics, (folder, cases, channel, name))
        for channel, name in enumerate(task.modalities)
    ]
    statistics = _run("fingerprint", channels, progress)
    fingerprint.write_fingerprint(folder, surveys, list(statistics.values()))


def _run(what: str, calls: Sequence[Call], progress: Progress) -> dict[str, Any]:
    """Run every call as a Ray task of one CPU and return the results by name, in the order of the calls.

    Raises:
        ProblemsFound: as the function raised it, or naming a file that could not be read or written; no further task
            is started.
    """
    results: dict[str, Any] = {}
    progress(what, 0, len(calls))

    def on_end(name: str, reference: Any) -> None:
        results[name] = _result(name, reference)
        progress(what, len(results), len(calls))

    run_tasks(calls, on_end, in_flight=two_per_cpu)
    return {name: results[name] for name, _, _ in calls}


def _result(name: str, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ProblemsFound):
            raise error.cause from None
        if isinstance(error.cause, OSError):
            if (found := storage_error(error.cause)) is not None:
                raise found from None
            advice = "repair the storage; the same command goes on from here"
            problem = Problem(name, str(error.cause), "storage that can be read and written", advice)
            raise ProblemsFound("The cases cannot be prepared.", [problem], exit_code=1) from error
        raise
