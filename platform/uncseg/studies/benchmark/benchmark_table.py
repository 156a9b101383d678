"""The benchmark's figures: a fitted scale per method, one row per case, means with intervals, and one wide table.

KEYS identify a row: a ``method`` is scored on its "own" segmentation and on a "shared" one (``segmentation``), with
several ``seed``s, in every ``fold``.
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from uncseg.evaluation.figures import region_dices, scaled_keys, shown_in
from uncseg.evaluation.summary import FEWEST_PATIENTS, draw_patients, risk_coverage
from uncseg.studies.benchmark.map_scores import scaled_figures
from uncseg.studies.benchmark.resampling import draw_seeds, interval, resampled_means
from uncseg.tasks.task import Task

KEYS = ("method", "segmentation", "seed", "fold", "case", "patient")
SEGMENTATIONS = ("own", "shared")
LEAST_DICE = 0.85
ENDS = {"mean": "", "ci_low": "_low", "ci_high": "_high"}
_FITTED = ("sum_ue", "sum_uu")
_NOT_FIGURES = (*KEYS, *_FITTED, "factor")


def benchmark_rows(cases: pd.DataFrame, counts: Iterable[Mapping[str, np.ndarray]]) -> pd.DataFrame:
    """Compute all figures of every method and case, after scaling.

    Args:
        cases: KEYS and the figures of :class:`~uncseg.studies.benchmark.map_scores.MethodCase`.
        counts: its counts, one per row in the same order; may be read as they are needed.

    Returns:
        KEYS, the figures, ``factor`` of :func:`fitted_factors` and the figures that depend on it.

    Raises:
        ValueError: a case has more than one row, or there are more or fewer counts than rows.
    """
    twice = cases.duplicated([key for key in KEYS if key not in ("fold", "patient")])
    if twice.any():
        raise ValueError(f"more than one row of {cases.loc[twice, list(KEYS)].iloc[0].to_dict()}")
    factors = fitted_factors(cases)
    scaled = [scaled_figures(count, factor) for count, factor in zip(counts, factors, strict=True)]
    after = pd.DataFrame(scaled, index=cases.index, columns=scaled_keys())
    return pd.concat([cases.drop(columns=list(_FITTED)), factors.rename("factor"), after], axis=1)


def fitted_factors(cases: pd.DataFrame) -> pd.Series:
    """Fit the factor of each row's map by least squares to the failures of its fold's training cases.

    a = Σ u·e / Σ u² over the union mask's voxels of the other folds' cases, with the same method, segmentation and
    seed; 0 where Σ u² is 0, NaN where there is no other fold. A map of ones becomes their mean failure, which is the
    constant floor.

    Args:
        cases: as :func:`benchmark_rows` takes them.
    """
    factors = pd.Series(math.nan, index=cases.index)
    for _, rows in cases.groupby(["method", "segmentation", "seed"], sort=False):
        for fold, own in rows.groupby("fold"):
            others = rows[rows["fold"] != fold]
            squares = others["sum_uu"].sum()
            if len(others):
                factors[own.index] = others["sum_ue"].sum() / squares if squares > 0 else 0.0
    return factors


def benchmark_summary(rows: pd.DataFrame, task: Task, least_dice: float = LEAST_DICE) -> pd.DataFrame:
    """Compute means over cases, one row per method, segmentation and figure.

    Args:
        rows: as :func:`benchmark_rows` returns them.
        task: what the regions are.
        least_dice: a method whose own segmentations have a lower mean Dice of the main region is not compared.

    Returns:
        Columns method, segmentation, figure, mean (of each case's mean over seeds), ci_low, ci_high (95 %, seeds and
        patients resampled, NaN for fewer than 10 patients), cases and patients (that have the figure), seeds, seed_sd
        (sample sd of the seeds' means over cases; NaN for one seed), compared (bool). If a method is not compared, all
        but Dice is NaN.
        ``aurc`` is the area under the risk-coverage curve of each seed (risk 1 − its Dice, in the order of the cases'
        mean uncertainty), averaged over seeds; NaN, as all figures across cases, for fewer than 10 patients.
    """
    figures = [column for column in rows.columns if column not in _NOT_FIGURES]
    compared, dices = is_compared(rows, task, least_dice), region_dices(task)
    records = []
    for (name, segmentation), own in rows.groupby(["method", "segmentation"], sort=False):
        method = str(name)
        found = [{"figure": figure} | _mean_of_cases(own, figure) for figure in figures]
        found.append({"figure": "aurc"} | _aurc(own, main_dice(task)))
        for record in found:
            if not compared[method] and record["figure"] not in dices:
                record |= dict.fromkeys(("mean", "ci_low", "ci_high", "seed_sd"), math.nan)
            keys = {"method": method, "segmentation": segmentation}
            records.append(keys | record | {"compared": bool(compared[method])})
    order = ["method", "segmentation", "figure", "mean", "ci_low", "ci_high", "cases", "patients", "seeds", "seed_sd"]
    return pd.DataFrame(records, columns=[*order, "compared"])


def main_dice(task: Task) -> str:
    """Return the name of the column with the main region's Dice."""
    return f"dice_{task.main_key}"


def is_compared(rows: pd.DataFrame, task: Task, least_dice: float) -> dict[str, bool]:
    """Return whether each method's own segmentations reach a mean Dice of the main region.

    Methods without any are compared.
    """
    own = rows[rows["segmentation"] == "own"].groupby("method")[main_dice(task)].mean()
    return {method: not own.get(method, math.inf) < least_dice for method in rows["method"].unique()}


def by_case(rows: pd.DataFrame, figure: str) -> tuple[pd.Series, pd.Series]:
    """Return, by case, a figure's mean over seeds, and the patient."""
    grouped = rows.groupby("case")
    return grouped[figure].mean(), grouped["patient"].first()


def _mean_of_cases(rows: pd.DataFrame, figure: str) -> dict[str, object]:
    values, patients = by_case(rows, figure)
    known, seed_means = pd.Index(sorted(patients[values.notna()].unique())), rows.groupby("seed")[figure].mean()
    low, high = interval(resampled_means(rows, figure, known, seed_means.index))
    return {
        "mean": values.mean(),
        "ci_low": low,
        "ci_high": high,
        "cases": int(values.count()),
        "patients": len(known),
        "seeds": int(seed_means.count()),
        "seed_sd": seed_means.std(ddof=1),
    }


def _aurc(rows: pd.DataFrame, dice: str) -> dict[str, object]:
    known = rows.dropna(subset=["mean_uncertainty", dice])
    patients = np.sort(known["patient"].unique())
    counted: dict[str, object] = {
        "cases": known["case"].nunique(),
        "patients": len(patients),
        "seeds": known["seed"].nunique(),
    }
    if len(patients) < FEWEST_PATIENTS:
        return counted | dict.fromkeys(("mean", "ci_low", "ci_high", "seed_sd"), math.nan)
    times = draw_patients(len(patients))
    areas, samples = [], []
    for _, own in known.groupby("seed"):
        u, risk = own["mean_uncertainty"].to_numpy(float), 1 - own[dice].to_numpy(float)
        areas.append(risk_coverage(u, risk)[0])
        samples.append(aurc_of_draws(u, risk, times[:, np.searchsorted(patients, own["patient"])]))
    low, high = interval((draw_seeds(len(samples)).T * samples).mean(axis=0))
    seed_sd = float(np.std(areas, ddof=1)) if len(areas) > 1 else math.nan
    return counted | {"mean": float(np.mean(areas)), "ci_low": low, "ci_high": high, "seed_sd": seed_sd}


def aurc_of_draws(uncertainty: np.ndarray, risk: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Compute the AURC of :func:`~uncseg.evaluation.summary.risk_coverage` for many resamples at once.

    Behind n cases of summed risk s, m cases of equal uncertainty and mean risk r add Σ (s + j·r) / (n + j) over j from
    1 to m, which is (s − n·r)·(H(n + m) − H(n)) + m·r, where H(n) are the harmonic numbers.

    Args:
        uncertainty, risk: one per case, (N,).
        times: how often each case is in a resample, (R, N), integers.

    Returns:
        (R,); NaN for a resample without cases.
    """
    order = np.argsort(uncertainty, kind="stable")
    firsts = np.unique(uncertainty[order], return_index=True)[1]
    weights = times[:, order]
    m = np.add.reduceat(weights, firsts, axis=1)
    total = np.add.reduceat(weights * risk[order], firsts, axis=1)
    n, s = np.cumsum(m, axis=1) - m, np.cumsum(total, axis=1) - total
    r = total / np.maximum(m, 1)
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, times.sum(axis=1).max(initial=0) + 1))])
    area = ((s - n * r) * (harmonic[n + m] - harmonic[n]) + total).sum(axis=1)
    cases = m.sum(axis=1)
    return np.where(cases > 0, area / np.maximum(cases, 1), math.nan)


def wide_table(summary: pd.DataFrame, costs: pd.DataFrame, task: Task, floors: Sequence[str] = ()) -> pd.DataFrame:
    """Return one row per method.

    Args:
        summary: as :func:`benchmark_summary` returns it.
        costs: method and costs, multiples of plain nnU-Net; a method may be missing.
        task: what the regions are.
        floors: methods that need no training, and are to be beaten.

    Returns:
        Columns method, floor, compared, cases, seeds; the Dice of each region of its own segmentations; the benchmark's
        figures, as ``SEGMENTATION_FIGURE``, for both SEGMENTATIONS; each of these also with ``_low`` and ``_high``; the
        costs. NaN where unknown.
    """
    known = {(row["method"], row["segmentation"], row["figure"]): row for row in summary.to_dict("records")}
    columns = {("own", name): name for name in region_dices(task)}
    for segmentation in SEGMENTATIONS:
        columns |= {(segmentation, key): f"{segmentation}_{key}" for key in shown_in("benchmark", "benchmark_file")}
    records = []
    for method, rows in summary.groupby("method", sort=False):
        dices = rows[rows["figure"] == main_dice(task)]
        record = {"method": method, "floor": method in floors, "compared": bool(rows["compared"].iloc[0])}
        record |= {"cases": int(dices["cases"].max()), "seeds": int(dices["seeds"].max())}
        for (segmentation, figure), column in columns.items():
            row: Mapping[Hashable, Any] = known.get((method, segmentation, figure), {})
            record |= {f"{column}{end}": float(row.get(name, math.nan)) for name, end in ENDS.items()}
        records.append(record)
    return pd.DataFrame(records).merge(costs[["method", *shown_in("cost")]], on="method", how="left")
