"""What became of a sweep's trials: a row each, their order, the Pareto front, which field mattered."""

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import numpy as np
import pandas as pd

from uncseg.files import read_json
from uncseg.layout import RunFolder
from uncseg.sweeps.file import Objective, Sweep
from uncseg.sweeps.space import LISTS, word_of
from uncseg.tracking.spool import FoldHistory, read_history, spooled_folds

VALUES = "values.json"
"""In a trial's folder: the values of the sweep's fields."""
HEARD = "heard.jsonl"
"""Beside it: for each epoch the means over folds that search and scheduler heard."""
FEWEST_FOR_IMPORTANCES = 4


@dataclass(frozen=True)
class Trial:
    """A trial as its folder tells it."""

    name: str
    values: Mapping[str, Any]
    """Of the sweep's fields."""
    histories: tuple[FoldHistory, ...]

    @classmethod
    def read(cls, folder: Path, folds: Sequence[int]) -> "Trial":
        """Args: a trial's folder; the folds that count."""
        spool = RunFolder(folder).spool
        return cls(folder.name, read_json(folder / VALUES), tuple(read_history(spool, fold) for fold in folds))

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
        """Mean and spread (population standard deviation) over folds; NaN where a fold has no value there.

        Args:
            epoch: counted from 0.
        """
        records = [history.epochs.get(epoch) for history in self.histories]
        values = [math.nan if record is None else record.metrics.get(metric, math.nan) for record in records]
        whole = all(map(math.isfinite, values))
        return (fmean(values), pstdev(values)) if whole else (math.nan, math.nan)


def read_trials(folder: Path, sweep: Sweep) -> list[Trial]:
    """All that have begun, those of earlier commands too; of each the folds of the screening.

    Args:
        folder: in which a folder for each trial lies.
        sweep: what they are trials of.
    """
    return [Trial.read(file.parent, sweep.folds) for file in sorted(folder.glob(f"*/{VALUES}"))]


def read_promoted(folder: Path, names: Sequence[str]) -> list[Trial]:
    """Trials with all the folds that they have trained."""
    return [Trial.read(folder / name, spooled_folds(RunFolder(folder / name).spool)) for name in names]


def heard_table(folder: Path) -> pd.DataFrame:
    """What search and scheduler heard, one row a trial and epoch; of one that was trained again after a kill, the last.

    Columns: ``trial``, ``epoch`` (trained, from 1), each metric's mean over folds and ``METRIC_std``, the spread.
    """
    rows = []
    for file in sorted(folder.glob(f"*/{HEARD}")):
        for line in file.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):  # torn by a kill
                rows.append({"trial": file.parent.name, **json.loads(line)})
    table = pd.DataFrame(rows, columns=None if rows else ["trial", "epoch"])
    return table.drop_duplicates(["trial", "epoch"], keep="last").sort_values(["trial", "epoch"], ignore_index=True)


def rank_trials(trials: Sequence[Trial], sweep: Sweep, promoted: Sequence[Trial] = ()) -> pd.DataFrame:
    """One row a trial, the best first.

    First those that were promoted, then those that ended all epochs, then those that were stopped, then those that
    failed; among these those that satisfy the constraints; among these the Pareto front, where there are several
    objectives; then by the first objective.

    Args:
        trials: with the folds of the screening.
        sweep: what they are trials of.
        promoted: those that went on to more folds, which are judged by all of them.

    Returns:
        ``trial``; ``state``: finished, stopped or failed; ``epochs`` that all its folds have trained; ``folds``: how
        many; for each metric of objectives and constraints its mean over folds at the last of these epochs, and
        ``METRIC_std``, the spread (population standard deviation); the values of the fields; with constraints
        ``feasible``; with several objectives ``front``; with promotion ``promoted``.
    """
    further = {trial.name: trial for trial in promoted}
    frame = pd.DataFrame([_row(further.get(trial.name, trial), sweep) for trial in trials])
    frame["promoted"] = frame["trial"].isin(list(further))
    frame["feasible"] = _feasible(frame, sweep)
    objectives = frame[[one.metric for one in sweep.objectives]]
    whole = (frame["state"] == "finished") & objectives.notna().all(axis=1)
    judged = whole & frame["feasible"]
    if further:
        judged &= frame["promoted"]
    frame["front"] = pareto_front(objectives.to_numpy(), judged.to_numpy(), sweep.objectives)
    ended = frame["state"]
    frame["tier"] = np.select([whole, ended == "finished", ended == "stopped"], [0, 1, 2], 3)
    first = sweep.objectives[0]
    order = frame.sort_values(
        ["promoted", "tier", "feasible", "front", first.metric, "trial"],
        ascending=[False, True, False, False, first.mode == "min", True],
        ignore_index=True,
    )
    unasked = [
        *([] if further else ["promoted"]),
        *([] if sweep.constraints else ["feasible"]),
        *([] if len(sweep.objectives) > 1 else ["front"]),
    ]
    return order.drop(columns=["tier", *unasked])


def _row(trial: Trial, sweep: Sweep) -> dict[str, Any]:
    row = {"trial": trial.name, "state": trial.state, "epochs": trial.epochs, "folds": len(trial.histories)}
    for metric in sweep.metrics:
        row[metric], row[f"{metric}_std"] = trial.mean(metric, trial.epochs - 1)
    return row | dict(trial.values)


def _feasible(frame: pd.DataFrame, sweep: Sweep) -> pd.Series:
    feasible = pd.Series(True, index=frame.index)
    for constraint in sweep.constraints:
        bounds = np.where(frame["promoted"], constraint.promoted_bound, constraint.bound)
        feasible &= frame[constraint.metric] >= bounds
    return feasible


def pareto_front(values: np.ndarray, judged: np.ndarray, objectives: Sequence[Objective]) -> np.ndarray:
    """Which points no other one is at least as good as in every objective and better in one.

    Args:
        values: (points, objectives).
        judged: (points,) bool; the others are not on the front and keep nobody from it.
        objectives: their directions.

    Returns:
        (points,) bool.
    """
    signs = np.array([1.0 if one.mode == "max" else -1.0 for one in objectives])
    front = np.zeros(len(values), bool)
    good = values[judged] * signs
    at_least = (good[:, None] >= good[None]).all(-1)
    better = (good[:, None] > good[None]).any(-1)
    front[judged] = ~(at_least & better).any(axis=0)
    return front


def importances(trials: Sequence[Trial], sweep: Sweep) -> pd.DataFrame:
    """How much of an objective's variance each field explains, at the last epoch that all trials reached.

    Functional ANOVA over a random forest (Hutter, Hoos and Leyton-Brown, 2014), as Optuna has it. Trials that failed
    are left out; so are those without any epoch.

    Returns:
        ``objective``, ``field``, ``importance`` (0 to 1, they sum to 1; NaN where fewer than four trials have a value,
        or all have the same), ``epoch`` (trained, from 1), ``trials``.
    """
    compared = [trial for trial in trials if trial.state != "failed" and trial.epochs > 0]
    epoch = min((trial.epochs for trial in compared), default=0)
    rows = []
    for objective in sweep.objectives:
        scores = {trial.name: trial.mean(objective.metric, epoch - 1)[0] for trial in compared}
        finite = [trial for trial in compared if math.isfinite(scores[trial.name])]
        found = _importances(finite, [scores[trial.name] for trial in finite], sweep)
        rows += [
            {"objective": objective.metric, "field": field, "importance": share, "epoch": epoch, "trials": len(finite)}
            for field, share in sorted(found.items(), key=lambda pair: -pair[1])
        ]
    return pd.DataFrame(rows)


def _importances(trials: Sequence[Trial], scores: Sequence[float], sweep: Sweep) -> dict[str, float]:
    if len(trials) < FEWEST_FOR_IMPORTANCES or len(set(scores)) < 2:
        return dict.fromkeys(sweep.space, math.nan)
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    columns = {field: [_as_optuna_takes_it(trial.values[field]) for trial in trials] for field in sweep.space}
    distributions = {field: _distribution(sweep.space[field], values) for field, values in columns.items()}
    study = optuna.create_study()
    for number, score in enumerate(scores):
        params = {field: values[number] for field, values in columns.items()}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=score))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=sweep.seed)
    return dict.fromkeys(sweep.space, 0.0) | optuna.importance.get_param_importances(study, evaluator=evaluator)


def _as_optuna_takes_it(value: Any) -> Any:
    return str(value) if isinstance(value, list | tuple | dict) else value


def _distribution(words: Mapping[str, Any], values: Sequence[Any]) -> Any:
    """Numbers lie on an axis, whatever word drew them; anything else is a choice."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    word, given = word_of(words)
    listed = given if word in LISTS else given[:2]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in [*listed, *values]):
        return FloatDistribution(min([*listed, *values]), max([*listed, *values]), log="log" in word)
    return CategoricalDistribution([_as_optuna_takes_it(value) for value in given])
