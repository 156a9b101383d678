"""The ranking of methods and its uncertainty: all methods are resampled together, over the same seeds and patients."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from uncseg.estimators.registry import ORACLE
from uncseg.evaluation.figures import LOWER, best_floor, figures_by_key
from uncseg.studies.benchmark.benchmark_table import LEAST_DICE, SEGMENTATIONS, by_case, is_compared
from uncseg.studies.benchmark.resampling import interval, resampled_means
from uncseg.tasks.task import Task

OWN, SHARED = SEGMENTATIONS
_LEAD = ("lead", "lead_low", "lead_high", "lead_seed_sd")
COLUMNS = ("method", "mean", "ci_low", "ci_high", "rank", "rank_low", "rank_high", "best_floor", *_LEAD)


@dataclass(frozen=True)
class _Compared:
    """What is known of the methods that are compared by a figure."""

    methods: list[str]
    allowed: dict[str, bool]
    """Whether each method's segmentations are good enough to compare its maps."""
    sign: int
    """1 where more is better, -1 where less is."""
    rows: dict[str, pd.DataFrame]
    """By method: seed, case, patient and the figure."""
    patients: pd.Index
    seeds: pd.Index
    figure: str

    @property
    def means(self) -> pd.Series:
        """By method: over cases, of each case's mean over seeds."""
        return pd.Series({name: by_case(self.rows[name], self.figure)[0].mean() for name in self.methods}, dtype=float)

    def samples(self, method: str) -> np.ndarray:
        """Return a method's mean in each resample; NaN in those where it has no value."""
        return resampled_means(self.rows[method], self.figure, self.patients, self.seeds)

    def lead(self, method: str, over: str) -> tuple[float, float, float, float]:
        """Return how much better a method is than another on the seeds and cases that both have.

        Beside the mean are the 95 % interval, and the sd over seeds (NaN for one).
        """
        both = self.rows[method].merge(self.rows[over], on=["seed", "case", "patient"], suffixes=("", "_over"))
        both[self.figure] = self.sign * (both[self.figure] - both[f"{self.figure}_over"])
        low, high = interval(resampled_means(both, self.figure, self.patients, self.seeds))
        by_seed = both.groupby("seed")[self.figure].mean()
        return float(by_case(both, self.figure)[0].mean()), low, high, float(by_seed.std(ddof=1))


def _compared(rows: pd.DataFrame, task: Task, figure: str, segmentation: str, least_dice: float) -> _Compared:
    chosen, allowed = rows[rows["segmentation"] == segmentation], is_compared(rows, task, least_dice)
    parts = {
        str(name): part[["seed", "case", "patient", figure]] for name, part in chosen.groupby("method", sort=False)
    }
    return _Compared(
        [name for name, part in parts.items() if allowed[name] and part[figure].notna().any()],
        {name: allowed[name] for name in parts},
        -1 if figures_by_key()[figure].better == LOWER else 1,
        parts,
        pd.Index(sorted(chosen["patient"].unique())),
        pd.Index(sorted(chosen["seed"].unique())),
        figure,
    )


def ranking(
    rows: pd.DataFrame,
    task: Task,
    figure: str = "corr_oracle_union",
    segmentation: str = SHARED,
    floors: Sequence[str] = (),
    least_dice: float = LEAST_DICE,
    deciding: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Rank methods by a figure's mean over cases (per case the mean over seeds), the best first.

    Args:
        rows: as :func:`~uncseg.studies.benchmark.benchmark_table.benchmark_rows` returns them.
        task: whose main region decides what is compared.
        figure: key of a figure that every case has.
        segmentation: "own" or "shared".
        floors: methods that the others are to beat; those that are missing are ignored. On their own segmentations,
            methods are held against those of their own training alone.
        least_dice: as :func:`~uncseg.studies.benchmark.benchmark_table.benchmark_summary` takes it.
        deciding: by method, the training whose network made its own segmentation, where that is not the method's own.

    Returns:
        COLUMNS and floor, compared (bool). ``rank`` counts from 1, and equal means share the better rank; ``_low`` and
        ``_high`` are 95 % intervals over resamples of seeds and patients, NaN for fewer than 10 patients, whole numbers
        for ranks. ``lead``: how much better it is than ``best_floor`` on the seeds and cases that both have (positive:
        better), with its interval and the sd over seeds; NaN without floors. The oracle is the first row,
        without a rank or a lead; methods that are not compared or do not have the figure are the last, without a mean
        or a rank.
    """
    found = _compared(rows, task, figure, segmentation, least_dice)
    ranked = [method for method in found.methods if method != ORACLE]
    table = pd.DataFrame(math.nan, index=pd.Index(found.methods, name="method"), columns=list(COLUMNS[1:]))
    table = table.astype({"best_floor": object})
    means, samples = found.means, {method: found.samples(method) for method in found.methods}
    table["mean"] = means
    table.loc[ranked, "rank"] = rankdata(-found.sign * means[ranked], method="min")
    for method in found.methods:
        table.loc[method, ["ci_low", "ci_high"]] = interval(samples[method])
    _add_ranks(table, ranked, np.array([-found.sign * samples[method] for method in ranked]))
    of = deciding or {}
    for method in ranked:
        own = [f for f in floors if segmentation != OWN or _training(f) == of.get(method, _training(method))]
        best = best_floor(means[ranked].to_dict(), figure, own)
        if best is not None:
            table.loc[method, "best_floor"] = best
            table.loc[method, list(_LEAD)] = found.lead(method, best)
    table = pd.concat([table.loc[[m for m in found.methods if m == ORACLE]], table.loc[ranked].sort_values("rank")])
    left_out = [method for method in found.allowed if method not in found.methods]
    table = table.reindex([*table.index, *left_out]).rename_axis("method").reset_index()
    table = table.astype(dict.fromkeys(("rank", "rank_low", "rank_high"), "Int64"))
    return table.assign(floor=table["method"].isin(floors), compared=table["method"].map(found.allowed))


def _training(method: str) -> str:
    return method.rpartition("/")[0]


def _add_ranks(table: pd.DataFrame, ranked: list[str], samples: np.ndarray) -> None:
    """Add the intervals of ranks; ``samples`` are (methods, resamples), smaller ones better."""
    known = [not np.isnan(own).all() for own in samples]  # the others have too few patients
    if not any(known):
        return
    names, samples = [name for name, is_known in zip(ranked, known, strict=True) if is_known], samples[known]
    # in a resample in which a method has no value there are no ranks
    samples = samples[:, ~np.isnan(samples).any(axis=0)]
    if samples.size:
        ranks = rankdata(samples, method="min", axis=0)
        # whole numbers, rounded outwards
        table.loc[names, "rank_low"] = np.percentile(ranks, 2.5, axis=1, method="lower")
        table.loc[names, "rank_high"] = np.percentile(ranks, 97.5, axis=1, method="higher")


def leads_over_all(
    rows: pd.DataFrame, task: Task, figure: str, proposed: str, least_dice: float = LEAST_DICE
) -> pd.DataFrame:
    """Return by how much one method is better than each other one on the shared segmentation.

    Args:
        rows, task, figure, least_dice: as :func:`ranking` takes them.
        proposed: the method that is proposed.

    Returns:
        Columns method, mean, lead, lead_low, lead_high, lead_seed_sd, as in :func:`ranking`, the best other method
        first; without the oracle, and no rows where the proposed method is not compared.
    """
    found = _compared(rows, task, figure, SHARED, least_dice)
    others = [name for name in found.methods if name not in (proposed, ORACLE)] if proposed in found.methods else []
    means = found.means
    records = [(name, means[name], *found.lead(proposed, name)) for name in others]
    return pd.DataFrame(records, columns=["method", "mean", *_LEAD]).sort_values("lead", ignore_index=True)
