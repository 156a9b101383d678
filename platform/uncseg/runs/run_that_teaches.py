"""What another run teaches a head: its networks, or what its folds have learnt from each other's failures."""

from uncseg.config.experiment import saved_experiment
from uncseg.errors import Problem, ProblemsFound, listed
from uncseg.files import file_digest, read_json, write_json
from uncseg.layout import FAILURES, RunFolder
from uncseg.method.failures.cross_fitted_source import CrossFitted
from uncseg.method.failures.failure_model import FailureModel
from uncseg.method.inference.model_folder import ModelFolder
from uncseg.method.inference.predictor import loaded_predictor
from uncseg.method.training.error_sources import ErrorSource, Members
from uncseg.runs.fold_request import FoldRequest
from uncseg.runs.own_folds import checkpoint_digest
from uncseg.runs.run_opening import read_experiment
from uncseg.tasks.outputs import Outputs

LEARNS_FROM = "learns_from.json"
"""Beside a fold's checkpoints: digests of the files that teach its head."""


def error_source(run: RunFolder, source: str, request: FoldRequest) -> ErrorSource:
    """Return what a finished run teaches the head of a fold.

    Its networks of this fold have not seen the fold's own cases, and what the fold has learnt from the failures of the
    others holds nothing of their references.

    Args:
        source: as in ``memory.source``: members, or cross_fitted.
        request: the fold that is trained.

    Raises:
        ProblemsFound: a file of the run cannot be read.
    """
    experiment, fold = request.experiment, request.fold
    if source == "cross_fitted":
        outputs = Outputs.of(experiment.dataset.task, experiment.model.output)
        return CrossFitted(FailureModel.load(run.learnt_failures(fold)), outputs)
    models = [ModelFolder(run.member(n).model, experiment.plan.configuration) for n in range(_members_of(run))]
    loaded = [loaded_predictor(model, fold, 0.5, False, request.trust) for model in models]
    return Members([predictor.network.to(predictor.device) for predictor in loaded], loaded[0].outputs)


def keep_what_taught(run: RunFolder, source: str, request: FoldRequest, begun: bool) -> None:
    """Note which files of the other run teach the head of a fold, or refuse to go on with others.

    Args:
        begun: whether the fold goes on from a checkpoint.

    Raises:
        ProblemsFound: the files are others than those from which the fold has learnt so far.
    """
    fold, record = request.fold, request.run.fold(request.fold) / LEARNS_FROM
    if source == "cross_fitted":
        found = {FAILURES: file_digest(run.learnt_failures(fold))}
    else:
        found = {f"member {n}": checkpoint_digest(run.member(n), fold) for n in range(_members_of(run))}
    if begun and record.is_file() and (before := read_json(record)) != found:
        changed = sorted(name for name in {**before, **found} if before.get(name) != found.get(name))
        advice = f"restore them, or move {record.parent} away: the same command trains the fold again"
        problem = Problem(
            f"{run.root}, fold {fold}", f"another {listed(changed)}", "what the head has learnt so far", advice
        )
        raise ProblemsFound("The run from which the head learns has changed.", [problem], exit_code=1)
    write_json(record, found)


def _members_of(run: RunFolder) -> int:
    return saved_experiment(read_experiment(run)).training.members
