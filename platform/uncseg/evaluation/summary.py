"""Scores of many cases summarized with confidence intervals, and two sets of scores compared.

Intervals are 95 % percentile bootstraps over patients, because scans of the same patient are alike. NaN values are left
out.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy import stats

RESAMPLES, SEED = 2000, 0
FEWEST_PATIENTS = 10
"""Fewest patients for an interval; resampling fewer gives little more than their range."""
KEYS = ["case", "patient", "region", "fold", "model"]
"""Columns of scores that are not figures."""


def summarize(scores: pd.DataFrame) -> pd.DataFrame:
    """Return means over cases, one row per region and figure.

    Args:
        scores: one row per case and region: case, patient, region and figures.

    Returns:
        Columns region, figure, cases (number that have it), mean, sd (sample), median, ci_low, ci_high. Where the
        scores have ``mean_uncertainty``, also the figures of :data:`ACROSS_CASES`, whose value is in the column
        ``mean``. They are NaN with fewer than 10 patients, as intervals are.
    """
    rows: list[dict[str, object]] = []
    for region, part in scores.groupby("region", sort=False):
        for figure in scores.columns.drop(KEYS, errors="ignore"):
            values = part[figure].astype(float)
            low, high = bootstrap_mean(values, part["patient"])
            row: dict[str, object] = {"region": region, "figure": figure, "cases": values.count()}
            row |= {"mean": values.mean(), "sd": values.std(ddof=1), "median": values.median()}
            rows.append(row | {"ci_low": low, "ci_high": high})
        if "mean_uncertainty" in scores.columns:
            rows += _across_cases(str(region), part)
    return pd.DataFrame(rows)


def _across_cases(region: str, scores: pd.DataFrame) -> list[dict[str, object]]:
    known = scores.dropna(subset=["mean_uncertainty", "dice"])
    u, risk = known["mean_uncertainty"].to_numpy(float), 1 - known["dice"].to_numpy(float)
    patients = [np.asarray(places) for places in known.groupby(known["patient"].to_numpy()).indices.values()]
    drawn = np.random.default_rng(SEED).integers(len(patients), size=(RESAMPLES // 4, len(patients)))
    enough = len(patients) >= FEWEST_PATIENTS
    samples = [np.concatenate([patients[n] for n in numbers]) for numbers in drawn] if enough else []
    rows = []
    for figure, compute in ACROSS_CASES.items():
        row: dict[str, object] = {"region": region, "figure": figure, "cases": len(known), "mean": math.nan}
        if enough:
            low, high = _percentiles(np.array([compute(u[chosen], risk[chosen]) for chosen in samples]))
            row |= {"mean": compute(u, risk), "ci_low": low, "ci_high": high}
        rows.append(row)
    return rows


def risk_curve(uncertainty: np.ndarray, risk: np.ndarray) -> np.ndarray:
    """Return the mean risk of the k most certain cases for k from 1 to N; arguments as in :func:`risk_coverage`.

    Cases of equal uncertainty are taken as if in random order.
    """
    groups = pd.Series(risk).groupby(uncertainty)
    expected = np.repeat(groups.mean().to_numpy(), groups.size().to_numpy())
    return np.cumsum(expected) / np.arange(1, len(risk) + 1)


def risk_coverage(uncertainty: np.ndarray, risk: np.ndarray) -> tuple[float, float]:
    """Return AURC and E-AURC of N cases from their uncertainty and their risk, 1 − Dice; NaN without cases.

    AURC is the mean risk of the k most certain cases, averaged over k (Geifman et al. 2019). E-AURC is by how much it
    exceeds that of the best order.
    """
    if not len(risk):
        return math.nan, math.nan
    area = float(risk_curve(uncertainty, risk).mean())
    return area, area - float(risk_curve(risk, risk).mean())


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Return the rank correlation in [−1, 1]; NaN where a or b is constant or there are fewer than three pairs."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(stats.spearmanr(a, b).statistic)


ACROSS_CASES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "aurc": lambda uncertainty, risk: risk_coverage(uncertainty, risk)[0],
    "e_aurc": lambda uncertainty, risk: risk_coverage(uncertainty, risk)[1],
    "spearman_uncertainty_dice": lambda uncertainty, risk: spearman(uncertainty, 1 - risk),
}
"""Figures of all cases of a region together, from their mean uncertainty and their risk, 1 − Dice."""


def bootstrap_mean(values: pd.Series, patients: pd.Series) -> tuple[float, float]:
    """Return the 95 % interval of the mean over cases, drawing patients with replacement; NaN with fewer than 10."""
    known = values.notna()
    by_patient = values[known].groupby(patients[known], sort=True).agg(["sum", "size"])
    count = len(by_patient)
    if count < FEWEST_PATIENTS:
        return math.nan, math.nan
    times = draw_patients(count)
    return _percentiles(times @ by_patient["sum"].to_numpy() / (times @ by_patient["size"].to_numpy()))


@lru_cache(maxsize=4)
def draw_patients(count: int) -> np.ndarray:
    """Return how often each of ``count`` patients is drawn in each resample, (2000, count), always the same."""
    times = np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    times.setflags(write=False)
    return times


def compare(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """Return paired differences, B − A, of the cases that both have, one row per region and figure.

    Args:
        a, b: scores as for :func:`summarize`.

    Returns:
        Columns region, figure, cases, mean_a, mean_b, difference, ci_low, ci_high, p_value: Wilcoxon's signed-rank
        test of the patients' mean differences, two-sided, not corrected for the number of figures; 1 where no patient
        differs, NaN where no difference is known.
    """
    figures = [column for column in a.columns.drop(KEYS, errors="ignore") if column in b.columns]
    both = a.merge(b, on=["case", "region"], suffixes=("_a", "_b"))
    rows = []
    for region, pairs in both.groupby("region", sort=False):
        for figure in figures:
            first, second = pairs[f"{figure}_a"].astype(float), pairs[f"{figure}_b"].astype(float)
            difference = (second - first).dropna()
            patients = pairs["patient_a"].loc[difference.index]
            low, high = bootstrap_mean(difference, patients)
            row = {"region": region, "figure": figure, "cases": len(difference)}
            row |= {"mean_a": first[difference.index].mean(), "mean_b": second[difference.index].mean()}
            row |= {"difference": difference.mean(), "ci_low": low, "ci_high": high}
            rows.append(row | {"p_value": _signed_rank(difference.groupby(patients).mean())})
    return pd.DataFrame(rows)


def _signed_rank(differences: pd.Series) -> float:
    if differences.empty:
        return math.nan
    return float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0


def _percentiles(samples: np.ndarray) -> tuple[float, float]:
    known = samples[~np.isnan(samples)]
    low, high = np.percentile(known, (2.5, 97.5)) if len(known) else (math.nan, math.nan)
    return float(low), float(high)
