"""Runs whose metrics are known, and what MLflow holds of them."""

import math

import torch

from uncseg.method.checkpoints import WEIGHTS_KEYS
from uncseg.tracking.record import MlflowRecord
from uncseg.tracking.spool import SpoolWriter

EXPERIMENT = {"name": "demo", "loss": {"unc_weight": 0.4}, "tracking": {"experiment": "uncseg", "uri": None}}
TAGS = {"uncseg.commit": "abc", "uncseg.split_digest": "def"}


def train(run, fold, epochs, first_epoch=0, finish=True, shift=0.0):
    """Write the records of a fold with known metrics: loss is fold + epoch / 10 + shift; only fold 0 has corr."""
    writer = SpoolWriter(run.spool, fold, first_epoch=first_epoch)
    for epoch in range(first_epoch, epochs):
        metrics = {"loss": fold + epoch / 10 + shift, "nothing": math.nan}
        writer.epoch(epoch, metrics | ({"corr": epoch / 100} if fold == 0 else {}))
    if finish:
        writer.state("finished")
    return writer


def save_final_checkpoint(run, fold):
    """Write a checkpoint that holds what every checkpoint holds, with numbers in place of a network."""
    run.final_checkpoint(fold).parent.mkdir(parents=True)
    content = {name: torch.full((1000,), float(fold)) for name in (*WEIGHTS_KEYS, "optimizer_state")}
    torch.save(content, run.final_checkpoint(fold))


def entries(run):
    """Return what a run's manifest remembers of its MLflow runs: of the parent, and of each fold."""
    record = MlflowRecord.read(run.manifest)
    return record.parent, record.folds


def rows(store, run_id, metric):
    """Return (step, value) of every row of a metric."""
    return sorted((row.step, row.value) for row in store.client.get_metric_history(run_id, metric))


def status(store, entry):
    """Return the status of an MLflow run."""
    return store.client.get_run(entry.run_id).info.status
