"""Importances of a sweep's fields: the share of an objective's variance that each field explains."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from uncseg.studies.sweep.space import LISTS, Domain, is_number, parse_domain
from uncseg.studies.sweep.sweep_file import Sweep
from uncseg.studies.sweep.trials import Trial

FEWEST_TRIALS = 4


def importances(trials: Sequence[Trial], sweep: Sweep) -> pd.DataFrame:
    """Compute how much of each objective's variance each field explains, at the last epoch that all trials reached.

    This is Optuna's functional ANOVA over a random forest (Hutter, Hoos and Leyton-Brown, 2014). Trials that failed or
    have no epoch are left out.

    Returns:
        Columns ``objective``, ``field``, ``importance`` (0 to 1, the sum over fields is 1; NaN where fewer than four
        trials have a value, all have the same, or no field takes two values), ``epoch`` (trained, from 1), ``trials``.
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
    unknown = dict.fromkeys(sweep.space, math.nan)
    columns = {field: [_as_choice(trial.values[field]) for trial in trials] for field in sweep.space}
    varied = any(len(set(values)) > 1 for values in columns.values())
    if len(trials) < FEWEST_TRIALS or len(set(scores)) < 2 or not varied:
        return unknown
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {field: _distribution(sweep.space[field], values) for field, values in columns.items()}
    study = optuna.create_study()
    for number, score in enumerate(scores):
        params = {field: values[number] for field, values in columns.items()}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=score))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=sweep.seed)
    try:
        return dict.fromkeys(sweep.space, 0.0) | optuna.importance.get_param_importances(study, evaluator=evaluator)
    except RuntimeError:  # no tree of the forest found a split between the scores
        return unknown


def _as_choice(value: Any) -> Any:
    """Return a value that Optuna can take as a choice: it takes no lists."""
    return str(value) if isinstance(value, list | tuple | dict) else value


def _distribution(domain: Domain, values: Sequence[Any]) -> Any:
    """Return Optuna's distribution of a field: an axis where all values are numbers, a choice otherwise.

    Only values that occur count from a list: trials whose values cannot be trained have failed and are left out.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    name, arguments = parse_domain(domain)
    ends = [*values] if name in LISTS else [*arguments[:2], *values]
    if all(map(is_number, ends)):
        return FloatDistribution(min(ends), max(ends), log="log" in name)
    return CategoricalDistribution(list(dict.fromkeys(values)))
