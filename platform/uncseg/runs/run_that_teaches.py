"""What another run teaches a head: its networks, or what its folds have learnt from each other's failures."""

from uncseg.config.experiment import Experiment
from uncseg.layout import RunFolder
from uncseg.method.failures.cross_fitted_source import CrossFitted
from uncseg.method.failures.failure_model import FailureModel
from uncseg.method.inference.model_folder import ModelFolder
from uncseg.method.inference.predictor import loaded_predictor
from uncseg.method.training.error_sources import ErrorSource, Members
from uncseg.runs.fold_request import FoldRequest
from uncseg.runs.run_opening import read_experiment
from uncseg.tasks.outputs import Outputs


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
    members = Experiment.model_validate(read_experiment(run)).training.members
    models = [ModelFolder(run.member(n).model, experiment.plan.configuration) for n in range(members)]
    loaded = [loaded_predictor(model, fold, 0.5, False, request.trust) for model in models]
    return Members([predictor.network.to(predictor.device) for predictor in loaded], loaded[0].outputs)
