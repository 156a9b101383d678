"""Scores of many cases as figures with confidence intervals, and two sets of scores compared.

Intervals are 95 % percentile bootstraps over patients, since scans of one patient are alike; NaN is left out.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy import stats

RESAMPLES = 2000
FEWEST_PATIENTS = 10
"""For an interval; of fewer, resampling gives little more than their range."""
KEYS = ("case", "patient", "region", "fold", "model")


def figure_columns(scores: pd.DataFrame) -> list[str]:
    """Columns of scores that are figures, in order."""
    return [column for column in scores.columns if column not in KEYS]


def summarize(scores: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Means over cases, a row for each region and figure.

    Args:
        scores: a row for each case and region: case, patient, region and figures.
        seed: of the bootstrap.

    Returns:
        Columns region, figure, cases (that have it), mean, sd (sample), median, ci_low, ci_high. Where the
        scores have ``mean_uncertainty``, also ``aurc`` and ``e_aurc`` of :func:`risk_coverage` and the rank correlation
        of a case's mean uncertainty with its Dice, in the column ``mean``. NaN with fewer than 10 patients, as
        intervals are.
    """
    rows: list[dict[str, object]] = []
    for region, of_region in scores.groupby("region", sort=False):
        for figure in figure_columns(scores):
            values = of_region[figure].astype(float)
            low, high = bootstrap_mean(values, of_region["patient"], seed)
            spread = {"mean": values.mean(), "sd": values.std(ddof=1), "median": values.median()}
            rows.append(
                {"region": region, "figure": figure, "cases": values.count(), **spread, "ci_low": low, "ci_high": high}
            )
        if "mean_uncertainty" in scores.columns:
            rows += _case_level(str(region), of_region, seed)
    return pd.DataFrame(rows)


def _case_level(region: str, scores: pd.DataFrame, seed: int) -> list[dict[str, object]]:
    known = scores.dropna(subset=["mean_uncertainty", "dice"])
    u, risk = known["mean_uncertainty"].to_numpy(float), 1 - known["dice"].to_numpy(float)
    patients = _members(known["patient"])
    drawn = np.random.default_rng(seed).integers(len(patients), size=(RESAMPLES // 4, len(patients)))

    def row(figure: str, of: Callable[[np.ndarray], float]) -> dict[str, object]:
        if len(patients) < FEWEST_PATIENTS:
            return {"region": region, "figure": figure, "cases": len(known), "mean": math.nan}
        samples = [of(np.concatenate([patients[n] for n in numbers])) for numbers in drawn]
        low, high = _percentiles(np.array(samples, dtype=float))
        value = of(np.arange(len(known)))
        return {"region": region, "figure": figure, "cases": len(known), "mean": value, "ci_low": low, "ci_high": high}

    return [
        row("aurc", lambda chosen: risk_coverage(u[chosen], risk[chosen])[0]),
        row("e_aurc", lambda chosen: risk_coverage(u[chosen], risk[chosen])[1]),
        row("spearman_uncertainty_dice", lambda chosen: spearman(u[chosen], 1 - risk[chosen])),
    ]


def risk_curve(uncertainty: np.ndarray, risk: np.ndarray) -> np.ndarray:
    """Mean risk of the k most certain cases, (N,), k from 1 to N; equal uncertainties as if in random order.

    Args:
        uncertainty, risk: as :func:`risk_coverage` takes them.
    """
    groups = pd.Series(risk).groupby(uncertainty)
    expected = np.repeat(groups.mean().to_numpy(), groups.size().to_numpy())
    return np.cumsum(expected) / np.arange(1, len(risk) + 1)


def risk_coverage(uncertainty: np.ndarray, risk: np.ndarray) -> tuple[float, float]:
    """AURC and E-AURC: mean risk of the k most certain cases, averaged over k (Geifman et al. 2019).

    Args:
        uncertainty: (N,), of cases.
        risk: (N,), 1 − Dice.

    Returns:
        AURC, and what of it exceeds the best order's. NaN without cases.
    """
    if not len(risk):
        return math.nan, math.nan
    area = float(risk_curve(uncertainty, risk).mean())
    return area, area - float(risk_curve(risk, risk).mean())


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation in [−1, 1]; NaN where either side is constant or there are fewer than three pairs."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(stats.spearmanr(a, b).statistic)


def bootstrap_mean(values: pd.Series, patients: pd.Series, seed: int) -> tuple[float, float]:
    """95 % interval of the mean over cases, patients drawn with replacement; NaN where there are fewer than 10."""
    known = values.notna()
    by_patient = values[known].groupby(patients[known], sort=True).agg(["sum", "size"])
    count = len(by_patient)
    if count < FEWEST_PATIENTS:
        return math.nan, math.nan
    times = draw_patients(count, seed)
    return _percentiles(times @ by_patient["sum"].to_numpy() / (times @ by_patient["size"].to_numpy()))


@lru_cache(maxsize=4)
def draw_patients(count: int, seed: int) -> np.ndarray:
    """How often each of so many patients is drawn in each resample, (2000, count); the same for the same arguments."""
    times = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    times.setflags(write=False)
    return times


def compare(a: pd.DataFrame, b: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Paired differences, B − A, of the cases that both have; a row for each region and figure.

    Args:
        a, b: scores, as :func:`summarize` takes them.
        seed: of the bootstrap.

    Returns:
        Columns region, figure, cases, mean_a, mean_b, difference, ci_low, ci_high, p_value: Wilcoxon's signed-rank
        test of the patients' mean differences, two-sided, not corrected for the number of figures; 1 where none
        differs, NaN where nothing is known.
    """
    figures = [column for column in figure_columns(a) if column in b.columns]
    both = a.merge(b, on=["case", "region"], suffixes=("_a", "_b"))
    rows = []
    for region, pairs in both.groupby("region", sort=False):
        for figure in figures:
            first, second = pairs[f"{figure}_a"].astype(float), pairs[f"{figure}_b"].astype(float)
            difference = (second - first).dropna()
            patients = pairs["patient_a"]
            low, high = bootstrap_mean(difference, patients.loc[difference.index], seed)
            rows.append(
                {
                    "region": region,
                    "figure": figure,
                    "cases": len(difference),
                    "mean_a": first[difference.index].mean(),
                    "mean_b": second[difference.index].mean(),
                    "difference": difference.mean(),
                    "ci_low": low,
                    "ci_high": high,
                    "p_value": _signed_rank(difference.groupby(patients.loc[difference.index]).mean()),
                }
            )
    return pd.DataFrame(rows)


def _signed_rank(differences: pd.Series) -> float:
    if differences.empty:
        return math.nan
    if not differences.any():
        return 1.0
    return float(stats.wilcoxon(differences).pvalue)


def _members(patients: pd.Series) -> list[np.ndarray]:
    return [
        np.asarray(numbers) for numbers in patients.reset_index(drop=True).groupby(patients.to_numpy()).indices.values()
    ]


def _percentiles(samples: np.ndarray) -> tuple[float, float]:
    samples = samples[~np.isnan(samples)]
    if not len(samples):
        return math.nan, math.nan
    low, high = np.percentile(samples, (2.5, 97.5))
    return float(low), float(high)
