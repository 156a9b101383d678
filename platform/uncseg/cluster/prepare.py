"""``prepare`` spread over Ray: one task a case on warm workers, a bounded number in flight, resumable."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
import ray.exceptions

from uncseg.config import Experiment
from uncseg.dataset import prepare as steps
from uncseg.dataset.brats import BratsCase
from uncseg.dataset.planner import plan_dataset
from uncseg.dataset.splits import make_splits, write_splits_once
from uncseg.errors import ProblemsFound
from uncseg.layout import PreparedFolder

Progress = Callable[[str, int, int], None]
IN_FLIGHT_PER_CPU = 3


def prepare(experiment: Experiment, progress: Progress = lambda _what, _done, _all: None) -> PreparedFolder:
    """Check, link, fingerprint, plan, preprocess and split the experiment's cases; needs a connected Ray.

    A finished preparation is returned at once; one that was stopped goes on where it was.

    Args:
        progress: called with (what, done, all).

    Raises:
        ProblemsFound: all problems of all cases at once, or of the experiment's choice of cases.
    """
    cases = steps.chosen_cases(experiment)
    preparation = steps.preparation_digest(experiment, cases)
    prepared = steps.prepared_folder(experiment, preparation)
    if prepared.done.is_file():
        return prepared
    surveys = _survey(prepared, cases, progress)
    names = [case.case_id for case in cases]
    volumes = {name: survey["volume_ml"] for name, survey in surveys.items()}
    patients = {name: survey["patient"] for name, survey in surveys.items()}
    splits = make_splits(volumes, patients, experiment.split.folds, experiment.split.seed)
    steps.write_dataset_json(prepared, experiment.model.head, len(cases))
    steps.write_fingerprint(prepared, names)
    _plan(prepared, experiment)
    split = write_splits_once(prepared.splits, splits)
    configuration = experiment.plan.configuration
    _spread(cases, "preprocessed cases", progress, steps.preprocess_case, prepared, configuration=configuration)
    steps.link_references(prepared, names)
    steps.record_done(prepared, preparation, split, surveys)
    return prepared


def _plan(prepared: PreparedFolder, experiment: Experiment) -> None:
    # in a worker: nnU-Net's planner starts processes and reads its folders from the environment
    environment = steps.nnunet_environment(prepared)
    remote = ray.remote(plan_dataset).options(num_cpus=1)
    try:
        ray.get(remote.remote(prepared.dataset_name, experiment.plan, environment))
    except ray.exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, ProblemsFound) else error) from None


def _survey(prepared: PreparedFolder, cases: Sequence[BratsCase], progress: Progress) -> dict[str, Mapping[str, Any]]:
    surveys = _spread(cases, "checked cases", progress, steps.survey_case, prepared, number_of_cases=len(cases))
    problems = [problem for survey in surveys.values() for problem in survey["problems"]]
    if problems:
        raise ProblemsFound("Some cases cannot be used.", problems, exit_code=1)
    return surveys


def _spread(
    cases: Sequence[BratsCase],
    what: str,
    progress: Progress,
    work: Callable[..., Any],
    prepared: PreparedFolder,
    **settings: Any,
) -> dict[str, Any]:
    """``work(prepared, case, **settings)`` for every case; results by case id in the order of cases."""
    remote = ray.remote(work).options(num_cpus=1)
    most = IN_FLIGHT_PER_CPU * max(1, int(ray.cluster_resources().get("CPU", 1)))
    waiting = list(reversed(cases))
    running: dict[Any, str] = {}
    results: dict[str, Any] = {}
    progress(what, 0, len(cases))
    while waiting or running:
        while waiting and len(running) < most:
            case = waiting.pop()
            running[remote.remote(prepared, case, **settings)] = case.case_id
        (done,), _ = ray.wait(list(running), num_returns=1)
        results[running.pop(done)] = ray.get(done)
        progress(what, len(results), len(cases))
    return {case.case_id: results[case.case_id] for case in cases}
