"""Keys of the metrics that compare an uncertainty map with an error.

``KIND`` is ``corr`` (Pearson correlation) or ``rmsd``; of failures also ``auprc``, ``brier`` and ``ece``. An epoch
compares maps with the error memory (``ema``: an exponential moving average of errors), the out-of-fold evaluation with
the failure, which is 1 where the segmentation is wrong and 0 elsewhere.

    uncertainty/PROTOCOL/KIND_ema/ESTIMATOR     per epoch
    ESTIMATOR/PROTOCOL/KIND_failure             per case, in ``per_case``
    second_opinion/NAME/union/KIND_failure      per case, in ``per_case``: of several passes, on the run's own decision
    KIND_failure_PROTOCOL                       per case and region, in ``scores``, and per case in a benchmark
    final/PROTOCOL/KIND_failure/ESTIMATOR       per run and per fold, in MLflow
    failures/KIND, failures/KIND_lead           per fold of a trial that learns from failures: of the learnt map, and by
                                                how much it is better than calibrated p
"""

import re

SKIPPED_STEPS = "train/skipped_steps"
"""Steps of an epoch without effect, because a loss or a gradient was not finite."""
SKIPPED_BY_LOSS_SCALE = "train/skipped_steps_loss_scale"
"""Those of them whose gradient was too large for fp16's loss scale, which then falls: usual when a training starts."""
SKIPPED_BATCHES = "val_patch/skipped_batches"
"""Validation batches of an epoch that no metric counts, because their predictions were not finite."""


def epoch_key(protocol: str, kind: str, estimator: str) -> str:
    """Return the key of an epoch's comparison with the error memory."""
    return f"uncertainty/{protocol}/{kind}_ema/{estimator}"


def learnt_key(kind: str, lead: bool = False) -> str:
    """Return the metric by which a trial of a sweep over what folds learn from failures is judged."""
    return f"failures/{kind}{'_lead' if lead else ''}"


def parse_epoch_key(key: str) -> tuple[str, str, str] | None:
    """Inverse of :func:`epoch_key`: protocol, kind and estimator; None for the key of any other metric."""
    found = re.fullmatch(r"uncertainty/(\w+)/(corr|rmsd)_ema/(\w+)", key)
    return (found[1], found[2], found[3]) if found else None


def case_key(estimator: str, protocol: str, kind: str) -> str:
    """Return the column of ``per_case`` that compares an estimator with the failure."""
    return f"{estimator}/{protocol}/{kind}_failure"


def opinion_key(name: str, kind: str) -> str:
    """Return the column of ``per_case`` that compares a second opinion with the failure of the run's own decision, in
    the union mask."""
    return f"second_opinion/{name}/union/{kind}_failure"


def failure_key(kind: str, protocol: str) -> str:
    """Return the column of ``scores`` that compares the scored map with the failure."""
    return f"{kind}_failure_{protocol}"


def final_key(protocol: str, kind: str, estimator: str) -> str:
    """Return the name in MLflow of a run's or fold's comparison with the failure."""
    return f"final/{protocol}/{kind}_failure/{estimator}"
