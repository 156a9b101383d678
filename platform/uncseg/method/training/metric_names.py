"""Names of the metrics that a fold reports every epoch, before it has trained one."""

from uncseg.config.experiment import Experiment
from uncseg.config.sections import PROTOCOLS
from uncseg.estimators.registry import ESTIMATORS, HEAD, ORACLE, SEVERAL_PASSES
from uncseg.method.training.validation import REGION_NAMES

MEMORY = ("mean_error_train", "mean_error_val", "visited_share")
SYSTEM = (
    "epoch_seconds",
    "training_seconds",
    "data_wait_seconds",
    "memory_bytes_per_case_training",
    "memory_bytes_per_case_validation",
)


def epoch_metric_names(experiment: Experiment) -> tuple[str, ...]:
    """Metrics that each fold of an experiment reports.

    An epoch leaves out those for which nothing could be measured; a phantom's oracle is not among them.
    """
    head, chosen, loss = experiment.model.uncertainty, experiment.evaluation.estimators, ["loss", "loss_seg"]
    if experiment.model.error_network is not None:
        loss.append("loss_error")
    elif head:
        loss += ["loss_unc", "loss_rmsd", "loss_one_minus_corr"]
    if experiment.loss.output_l2 > 0:
        loss.append("loss_output_l2")
    loss += ["learning_rate", "uncertainty_warmup"]
    patch = [f"{figure}_{region}" for figure in ("dice", "failure_rate") for region in REGION_NAMES]
    left_out = {ORACLE} if head else {ORACLE, HEAD}
    left_out |= {e.name for e in SEVERAL_PASSES if e.combines_members or e.name not in chosen.several_pass}
    maps = [name for e in ESTIMATORS.values() if e.name not in left_out for name in e.maps]
    return (
        *(f"train/{name}" for name in loss),
        *(f"val_patch/{name}" for name in ("dice_mean", *patch, "loss_seg")),
        *(f"uncertainty/{p}/{figure}_ema/{e}" for e in maps for p in PROTOCOLS for figure in ("corr", "rmsd")),
        *(f"uncertainty/memory/{what}_{p}" for what in MEMORY for p in PROTOCOLS),
        *(f"system/{name}" for name in SYSTEM),
    )
