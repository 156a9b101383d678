"""The ranking of methods and its uncertainty: all methods are resampled together, over the same patients."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from uncseg.estimators.registry import ORACLE
from uncseg.evaluation.figures import LOWER, best_floor, figures_by_key
from uncseg.evaluation.summary import FEWEST_PATIENTS, draw_patients
from uncseg.studies.benchmark.benchmark_table import LEAST_DICE, by_case, is_compared
from uncseg.tasks.task import Task

COLUMNS = ("method", "mean", "ci_low", "ci_high", "rank", "rank_low", "rank_high", "lead", "lead_low", "lead_high")


def ranking(
    rows: pd.DataFrame,
    task: Task,
    figure: str = "corr_oracle_union",
    segmentation: str = "shared",
    floors: Sequence[str] = (),
    least_dice: float = LEAST_DICE,
) -> pd.DataFrame:
    """Rank methods by a figure's mean over cases (per case the mean over seeds), the best first.

    Args:
        rows: as :func:`~uncseg.studies.benchmark.benchmark_table.benchmark_rows` returns them.
        task: whose main region decides what is compared.
        figure: key of a figure that every case has.
        segmentation: "own" or "shared".
        floors: methods that the others are to beat; those that are missing are ignored.
        least_dice: as :func:`~uncseg.studies.benchmark.benchmark_table.benchmark_summary` takes it.

    Returns:
        COLUMNS and floor, compared (bool). ``rank`` counts from 1, and equal means share the better rank; ``_low`` and
        ``_high`` are 95 % intervals over resamples of patients, NaN for fewer than 10, whole numbers for ranks.
        ``lead``: how much better the mean is than the best floor's (positive: better), with a paired interval (both in
        the same resamples); NaN without floors. The oracle is the first row, without a rank or a lead; methods that are
        not compared or do not have the figure are the last, without a mean or a rank.
    """
    chosen = rows[rows["segmentation"] == segmentation]
    allowed = is_compared(rows, task, least_dice)
    values = pd.DataFrame({method: by_case(part, figure)[0] for method, part in chosen.groupby("method", sort=False)})
    known = [method for method in values.columns if allowed[method] and values[method].notna().any()]
    left_out = [method for method in values.columns if method not in known]
    ranked = [method for method in known if method != ORACLE]
    patients = chosen.groupby("case")["patient"].first().reindex(values.index)
    sign = -1 if figures_by_key()[figure].better == LOWER else 1
    means, samples = values[known].mean(), _resampled(values[known], patients)
    table = pd.DataFrame(math.nan, index=pd.Index(known, name="method"), columns=list(COLUMNS[1:]))
    table["mean"] = means
    table[["ci_low", "ci_high"]] = _intervals(samples)
    table.loc[ranked, "rank"] = rankdata(-sign * means[ranked], method="min")
    if len(samples):
        ranks = rankdata(-sign * samples[ranked].to_numpy(float), method="min", axis=1)
        # whole numbers, rounded outwards
        table.loc[ranked, "rank_low"] = np.percentile(ranks, 2.5, axis=0, method="lower")
        table.loc[ranked, "rank_high"] = np.percentile(ranks, 97.5, axis=0, method="higher")
    best = best_floor(means[ranked].to_dict(), figure, floors)
    if best is not None:
        table.loc[ranked, "lead"] = sign * (means[ranked] - means[best])
        differences = sign * samples[ranked].sub(samples[best], axis=0)
        table.loc[ranked, ["lead_low", "lead_high"]] = _intervals(differences)
    table = pd.concat([table.loc[[m for m in known if m == ORACLE]], table.loc[ranked].sort_values("rank")])
    table = table.reindex([*table.index, *left_out]).rename_axis("method").reset_index()
    table = table.astype(dict.fromkeys(("rank", "rank_low", "rank_high"), "Int64"))
    return table.assign(floor=table["method"].isin(floors), compared=table["method"].map(allowed))


def _resampled(values: pd.DataFrame, patients: pd.Series) -> pd.DataFrame:
    """Return each method's means over cases, one row per resample; no rows for fewer than 10 patients."""
    sums, sizes = values.groupby(patients).sum(), values.groupby(patients).count()
    if len(sums) < FEWEST_PATIENTS:
        return values.iloc[:0]
    times = draw_patients(len(sums))
    with np.errstate(invalid="ignore"):
        means = (times @ sums.to_numpy(float)) / (times @ sizes.to_numpy(float))
    # in a resample in which a method has no case there are no ranks
    return pd.DataFrame(means, columns=values.columns).dropna()


def _intervals(samples: pd.DataFrame) -> np.ndarray:
    if not len(samples):
        return np.full((samples.shape[1], 2), math.nan)
    return np.percentile(samples.to_numpy(float), (2.5, 97.5), axis=0).T
