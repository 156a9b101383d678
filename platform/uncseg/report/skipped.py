"""Sentences on the batches that a run's trainings have left out; none where there are none."""

import pandas as pd

from uncseg.config.experiment import Experiment
from uncseg.layout import RunFolder
from uncseg.metric_keys import SKIPPED_BATCHES, SKIPPED_BY_LOSS_SCALE, SKIPPED_STEPS
from uncseg.tracking.spool import epoch_table


def skipped_lines(run: RunFolder, experiment: Experiment) -> list[str]:
    """Return a sentence per fold, and member of a deep ensemble, on skipped steps, and one on validation batches.

    They count the epochs in the spool: what a fold has trained again after a fault counts once.
    """
    training, lines = experiment.training, []
    for member in range(training.members):
        folder = run.member(member)
        for fold, epochs in epoch_table(folder.spool).groupby("fold"):
            name = f"Fold {fold}" if member == 0 else f"Fold {fold} of member {member}"
            steps, scaled = _total(epochs, SKIPPED_STEPS), _total(epochs, SKIPPED_BY_LOSS_SCALE)
            log = f"{folder.fold(int(str(fold))).relative_to(run.root)}/console.log"
            if steps:
                share = _share(steps, len(epochs) * training.iterations_per_epoch, "training step")
                lines.append(f"{name}: {share} without effect, {_reasons(steps - scaled, scaled, log)}.")
            if batches := _total(epochs, SKIPPED_BATCHES):
                share = _share(batches, len(epochs) * training.val_iterations_per_epoch, "validation batch", "es")
                lines.append(f"{name}: {share} left out, because predictions were not finite (cases: {log}).")
    return lines


def _total(epochs: pd.DataFrame, key: str) -> int:
    return int(epochs[key].sum()) if key in epochs else 0


def _share(count: int, total: int, what: str, plural: str = "s") -> str:
    return f"{count} of {total} {what}{plural * (total != 1)} ({100 * count / total:.2g} %)"


def _reasons(unusable: int, scaled: int, log: str) -> str:
    reasons = [f"{unusable} because loss or gradient was not finite (cases: {log})"] if unusable else []
    reasons += [f"{scaled} while fp16 adapted its loss scale, as is usual when a training starts"] if scaled else []
    return "; ".join(reasons)
