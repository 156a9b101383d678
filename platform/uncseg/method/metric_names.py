"""Names of the metrics that a fold reports every epoch, before it has trained one."""

from uncseg.config import Experiment
from uncseg.method.validation import REGION_NAMES
from uncseg.names import BASELINES, FLOORS, HEAD, PROTOCOLS


def epoch_metric_names(experiment: Experiment) -> tuple[str, ...]:
    """Metrics of training, patches and estimators that each fold of an experiment reports.

    An epoch leaves out those for which nothing could be measured; a phantom's oracle is not among them.
    """
    head, loss = experiment.model.uncertainty, ["loss", "loss_seg"]
    if head:
        loss += ["loss_unc", "loss_rmsd", "loss_one_minus_corr"]
    if experiment.loss.output_l2 > 0:
        loss.append("loss_output_l2")
    patch = [f"{figure}_{region}" for figure in ("dice", "failure_rate") for region in REGION_NAMES]
    estimators = [*([HEAD] if head else []), *BASELINES, *FLOORS]
    return (
        *(f"train/{name}" for name in loss),
        *(f"val_patch/{name}" for name in ("dice_mean", *patch, "loss_seg")),
        *(f"uncertainty/{e}/{p}/{figure}_ema" for e in estimators for p in PROTOCOLS for figure in ("corr", "rmsd")),
    )
