"""Means of a benchmark's methods in many resamples of seeds and patients, the same ones for all methods.

Both are drawn with replacement and together: a mean over a few trainings is uncertain by its trainings as well.
"""

from functools import lru_cache

import numpy as np
import pandas as pd

from uncseg.evaluation.summary import FEWEST_PATIENTS, RESAMPLES, SEED, draw_patients


@lru_cache(maxsize=4)
def draw_seeds(count: int) -> np.ndarray:
    """Return how often each of ``count`` seeds is drawn in each resample, (2000, count), always the same."""
    times = np.random.default_rng(SEED + 1).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    times.setflags(write=False)
    return times


def resampled_means(rows: pd.DataFrame, figure: str, patients: pd.Index, seeds: pd.Index) -> np.ndarray:
    """Return the mean of a figure over cases and seeds in each resample, (2000,).

    Args:
        rows: of one method and segmentation: seed, patient and the figure; NaN is left out.
        figure: its column.
        patients, seeds: what is drawn from; pairs of methods need the same.

    Returns:
        NaN for a resample without a value, and for all where fewer than 10 patients have one.
    """
    known = rows.dropna(subset=[figure])
    if known["patient"].nunique() < FEWEST_PATIENTS:
        return np.full(RESAMPLES, np.nan)
    grouped = known.groupby(["seed", "patient"])[figure]
    sums, sizes = (
        part.unstack(fill_value=0).reindex(index=seeds, columns=patients, fill_value=0).to_numpy(float)
        for part in (grouped.sum(), grouped.size())
    )
    times, weights = draw_patients(len(patients)), draw_seeds(len(seeds))
    with np.errstate(invalid="ignore"):
        means: np.ndarray = ((times @ sums.T) * weights).sum(1) / ((times @ sizes.T) * weights).sum(1)
    return means


def interval(samples: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of resampled means; NaN where there are none."""
    known = samples[~np.isnan(samples)]
    low, high = np.percentile(known, (2.5, 97.5)) if len(known) else (np.nan, np.nan)
    return float(low), float(high)
