"""The trials of a sweep as their folders record them: one row per trial, their order, the Pareto front."""

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import numpy as np
import pandas as pd

from uncseg.files import read_json
from uncseg.layout import RunFolder
from uncseg.studies.sweep.sweep_file import Objective, Sweep
from uncseg.tracking.spool import FoldHistory, read_history

VALUES = "values.json"
"""In a trial's folder: the values of the sweep's fields."""
REPORTED_FILE = "reported.jsonl"
"""In a trial's folder: the means over folds that were reported to search and scheduler, one line per epoch."""


@dataclass(frozen=True)
class Trial:
    """What a trial's folder records."""

    name: str
    values: Mapping[str, Any]
    """Values of the sweep's fields."""
    histories: tuple[FoldHistory, ...]

    @classmethod
    def read(cls, folder: Path, folds: Sequence[int]) -> "Trial":
        """Read a trial's folder; only these folds count, also those that have not begun."""
        histories = tuple(read_history(RunFolder(folder).spool, fold) for fold in folds)
        return cls(folder.name, read_values(folder), histories)

    @property
    def state(self) -> str:
        """finished, failed or stopped."""
        states = {history.state for history in self.histories}
        return "failed" if "failed" in states else "finished" if states == {"finished"} else "stopped"

    @property
    def epochs(self) -> int:
        """Epochs that all its folds have trained."""
        return min(history.last_epoch for history in self.histories) + 1

    def mean(self, metric: str, epoch: int) -> tuple[float, float]:
        """Return mean and population standard deviation over folds at an epoch, from 0; NaN where a fold has none."""
        records = [history.epochs.get(epoch) for history in self.histories]
        values = [math.nan if record is None else record.metrics.get(metric, math.nan) for record in records]
        return (fmean(values), pstdev(values)) if all(map(math.isfinite, values)) else (math.nan, math.nan)


def read_trials(folder: Path, sweep: Sweep) -> list[Trial]:
    """Return all trials below ``folder`` that have begun, also in earlier commands, with the folds of the screening."""
    return [Trial.read(file.parent, sweep.folds) for file in sorted(folder.glob(f"*/{VALUES}"))]


def read_values(folder: Path) -> dict[str, Any]:
    """Return the values of a trial's fields; raises :class:`~uncseg.errors.DamagedFile`."""
    values = read_json(folder / VALUES, "restore it from a copy; the trial's experiment.yaml holds the same values")
    return dict(values)


def reported_table(folder: Path) -> pd.DataFrame:
    """Return what was reported to search and scheduler, one row per trial and epoch, the last one after a kill.

    Returns:
        Columns ``trial``, ``epoch`` (trained, from 1), each metric's mean over folds and ``METRIC_std``.
    """
    rows = []
    for file in sorted(folder.glob(f"*/{REPORTED_FILE}")):
        for line in file.read_bytes().splitlines():
            with suppress(ValueError, TypeError, RecursionError):  # torn by a kill, or damaged
                if {"epoch"} <= (row := {**json.loads(line)}).keys():
                    rows.append({"trial": file.parent.name, **row})
    table = pd.DataFrame(rows, columns=None if rows else ["trial", "epoch"])
    return table.drop_duplicates(["trial", "epoch"], keep="last").sort_values(["trial", "epoch"], ignore_index=True)


def rank_trials(trials: Sequence[Trial], sweep: Sweep, promoted: Sequence[Trial] = ()) -> pd.DataFrame:
    """Return one row per trial, the best first.

    The order is by: whether a trial can be the best (:func:`can_be_best`); promoted or not; finished, stopped or
    failed; whether it satisfies the constraints; the Pareto front, with several objectives; the first objective.

    Args:
        trials: with the folds of the screening.
        promoted: trials that went on to more folds, and are judged by all of them.

    Returns:
        ``trial``; ``state``: finished, stopped or failed; ``epochs`` that all its folds have trained; ``folds``: their
        number; for each metric of objectives and constraints its mean over folds at the last of these epochs, and
        ``METRIC_std`` (population standard deviation); the values of the fields; with constraints ``feasible``; with
        several objectives ``front``; with promotion ``promoted``.
    """
    further = {trial.name: trial for trial in promoted}
    frame = pd.DataFrame([_row(further.get(trial.name, trial), sweep) for trial in trials])
    frame["promoted"] = frame["trial"].isin(list(further))
    frame["feasible"] = True
    for constraint in sweep.constraints:
        frame["feasible"] &= frame[constraint.metric] >= frame["promoted"].map(constraint.bound)
    frame["able"] = can_be_best(frame, sweep)
    promoted_able = frame["able"] & frame["promoted"]
    judged = promoted_able if promoted_able.any() else frame["able"]
    frame["front"] = pareto_front(frame[sweep.objective_metrics].to_numpy(), judged.to_numpy(), sweep.objectives)
    finished, valued = frame["state"] == "finished", has_values(frame, sweep)
    frame["tier"] = np.select([finished & valued, finished, frame["state"] == "stopped"], [0, 1, 2], 3)
    first = sweep.objectives[0]
    order = frame.sort_values(
        ["able", "promoted", "tier", "feasible", "front", first.metric, "trial"],
        ascending=[False, False, True, False, False, first.mode == "min", True],
        ignore_index=True,
    )
    asked = {"promoted": further, "feasible": sweep.constraints, "front": len(sweep.objectives) > 1}
    return order.drop(columns=["able", "tier", *(column for column, wanted in asked.items() if not wanted)])


def has_values(table: pd.DataFrame, sweep: Sweep) -> pd.Series:
    """(trials,) bool: whether a trial has a value of every objective."""
    return table[sweep.objective_metrics].notna().all(axis=1)


def can_be_best(table: pd.DataFrame, sweep: Sweep) -> pd.Series:
    """(trials,) bool: finished all epochs, has a value of every objective, and satisfies the constraints."""
    able = (table["state"] == "finished") & has_values(table, sweep)
    return able & table["feasible"] if sweep.constraints else able


def best_trial(table: pd.DataFrame, sweep: Sweep) -> str | None:
    """Return the first trial of :func:`rank_trials` that :func:`can_be_best`; None where there is none."""
    able = table["trial"][can_be_best(table, sweep)]
    return None if able.empty else str(able.iloc[0])


def can_be_promoted(table: pd.DataFrame, sweep: Sweep) -> pd.Series:
    """(trials,) bool: did not fail, has trained, has a value of the first objective, satisfies the constraints."""
    able = (table["state"] != "failed") & (table["epochs"] > 0) & table[sweep.objectives[0].metric].notna()
    return able & table["feasible"] if sweep.constraints else able


def _row(trial: Trial, sweep: Sweep) -> dict[str, Any]:
    row = {"trial": trial.name, "state": trial.state, "epochs": trial.epochs, "folds": len(trial.histories)}
    for metric in sweep.metrics:
        row[metric], row[f"{metric}_std"] = trial.mean(metric, trial.epochs - 1)
    return row | dict(trial.values)


def pareto_front(values: np.ndarray, judged: np.ndarray, objectives: Sequence[Objective]) -> np.ndarray:
    """Return (points,) bool, the points on the front: no other is as good in every objective and better in one.

    Args:
        values: (points, objectives).
        judged: (points,) bool; the others are neither on the front nor compared.
    """
    signs = np.array([1.0 if objective.mode == "max" else -1.0 for objective in objectives])
    front = np.zeros(len(values), bool)
    good = values[judged] * signs
    at_least = (good[:, None] >= good[None]).all(-1)
    better = (good[:, None] > good[None]).any(-1)
    front[judged] = ~(at_least & better).any(axis=0)
    return front
