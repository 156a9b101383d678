"""The table of figures: what each one is called, which way is better, and where it is shown, logged and ranked.

A new final figure is one line of ``FIGURE_TABLE``, beside the code that computes it: every table, page, benchmark and
record in MLflow takes its figures from here.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from uncseg.estimators.registry import FLOORS, HEAD, NO_FURTHER_PASS, ORACLE
from uncseg.metric_keys import epoch_key, failure_key
from uncseg.tasks.task import Task

Place = Literal[
    "scores",  # scores per region: terminal, page, paired differences
    "models",  # scores per model and region
    "model_maps",  # scores per model, of the main region
    "card",  # the calibration in a model card
    "table2",
    "table3",  # the figures that lead: maps against the failure, union mask
    "verdict",  # sentences on the head and the best floor
    "comparison",  # Table 2 of several runs
    "progress",  # of a fold that trains
    "headline",  # the metrics that MLflow gets first
    "benchmark",  # a benchmark's table: file, page and, with a short label, terminal
    "benchmark_file",  # a benchmark's table, only as a file
    "benchmark_mlflow",
    "ranking",  # a benchmark's rankings, and the leads of its proposed method
    "plot",  # a benchmark's plot
    "cost",  # a benchmark's costs: tables and plot
]
HIGHER, LOWER = "higher", "lower"
KINDS = {"corr": "correlation", "rmsd": "RMSD"}
"""The two ways to compare a map with an error, in the order of tables."""
CONSTANT = "constant"
NO_PROBABILITIES = ("one_minus_p", "one_minus_max", "border_distance", ORACLE)
"""Maps whose RMSD MLflow does not show."""
Logged = Literal["", "main", "all"]
"""Of which regions MLflow gets a figure: of none, of the main region, or of each."""


def region_dices(task: Task) -> dict[str, str]:
    """Return the columns of each region's Dice, and their headings."""
    return {f"dice_{key}": f"Dice {region}" for region, key in task.region_keys.items()}


def dice_columns(task: Task) -> dict[str, str]:
    """Return the columns of Table 1 and of ``per_case``, and their headings."""
    return region_dices(task) | {"dice_mean": "mean"}


def is_informative(kind: str, estimator: str) -> bool:
    """Return whether MLflow shows an estimator's correlation or RMSD.

    A constant's correlation is 0 by definition. In RMSD a map is compared as it is, and these are no probabilities of
    a failure.
    """
    return estimator != CONSTANT if kind == "corr" else estimator not in NO_PROBABILITIES


@dataclass(frozen=True)
class Figure:
    """One figure: a column of scores, of Table 2 or of a benchmark, or a metric of the epochs."""

    key: str
    label: str
    better: str
    where: str = ""
    """Names of :data:`Place`, separated by spaces."""
    short: str = ""
    """Label where there is little room, in lines of at most 12 characters."""
    unit: str = ""
    regions: Logged = ""
    """Regions for which MLflow gets ``final/KEY_REGION``."""
    estimators: tuple[str, ...] = ()
    """Estimators for which MLflow gets ``final/PROTOCOL/KEY/ESTIMATOR``."""
    floor: bool = False
    """Whether the figure needs no model; tables mark it with *."""
    scaled: bool = False
    """Whether a benchmark computes it from the map times a fitted factor."""

    def logged_regions(self, task: Task) -> tuple[str, ...]:
        """Return the regions of a task for which MLflow gets ``final/KEY_REGION``."""
        return {"": (), "main": (task.main_region,), "all": tuple(task.regions)}[self.regions]

    @property
    def kind(self) -> str:
        """For a figure of Table 2: corr or rmsd."""
        return self.key.partition("_")[0]

    @property
    def row_kind(self) -> str:
        """The kind of its row in a :class:`~uncseg.page_table.PageTable`."""
        return "floor" if self.floor else ""

    @property
    def heading(self) -> str:
        """The label with the unit and the mark of a floor."""
        return f"{self.label}{f' ({self.unit})' if self.unit else ''}{' *' if self.floor else ''}"


CORR, RMSD = "correlation with the", "RMSD with the"
LOGGED = {kind: tuple(name for name in NO_FURTHER_PASS if is_informative(kind, name)) for kind in KINDS}
# fmt: off
FIGURE_TABLE = (
    # segmentations: scores per case and region
    Figure("dice", "Dice", HIGHER, "scores models"),
    Figure("hd95_mm", "HD95", LOWER, "scores models", unit="mm", regions="all"),
    Figure("lesionwise_dice", "lesion-wise Dice", HIGHER, "scores", regions="all"),
    Figure("lesionwise_hd95_mm", "lesion-wise HD95", LOWER, "scores", unit="mm"),
    Figure("sensitivity", "sensitivity", HIGHER, "scores"),
    Figure("specificity", "specificity", HIGHER, "scores"),
    Figure("failure_rate", "failure rate of the main region", LOWER, "scores"),
    # uncertainty maps: scores per case and region; in a benchmark per case, of the main region
    Figure("auprc_union", "AUPRC of failures, union mask", HIGHER, "benchmark benchmark_mlflow ranking plot",
           "AUPRC\nunion"),
    Figure("brier_union", "Brier score, union mask", LOWER, "benchmark benchmark_mlflow ranking", "Brier\nunion",
           scaled=True),
    Figure("ece_union", "ECE, union mask", LOWER, "benchmark benchmark_mlflow", "ECE\nunion", scaled=True),
    Figure("rmsd_reference", "RMSD, reference mask", LOWER, "benchmark", "RMSD\nref.", scaled=True),
    Figure("rmsd_union", "RMSD, union mask", LOWER, "benchmark benchmark_mlflow", scaled=True),
    Figure(failure_key("rmsd", "union"), f"{RMSD} failure, union mask", LOWER, "scores"),
    Figure("corr_oracle_reference", f"{CORR} oracle's P(failure), reference mask", HIGHER, "benchmark_file"),
    Figure("corr_oracle_union", f"{CORR} oracle's P(failure), union mask", HIGHER,
           "benchmark_file benchmark_mlflow ranking plot"),
    Figure(failure_key("corr", "reference"), f"{CORR} failure, reference mask", HIGHER,
           "scores benchmark", "corr\nref."),
    Figure(failure_key("corr", "union"), f"{CORR} failure, union mask", HIGHER,
           "scores model_maps benchmark benchmark_mlflow ranking", "corr\nunion"),
    Figure("qu_score", "QU-BraTS", HIGHER, "scores card benchmark benchmark_mlflow", "QU-\nBraTS",
           regions="main", scaled=True),
    Figure("qu_score_always_certain", "QU-BraTS of an always certain map", HIGHER, "scores card",
           regions="main", floor=True),
    Figure("auroc_brain", "AUROC of errors, brain", HIGHER, "card benchmark benchmark_mlflow"),
    Figure("auprc_brain", "AUPRC of errors, brain", HIGHER, "benchmark"),
    Figure("auroc_band", "AUROC of errors, band", HIGHER,
           "scores model_maps card benchmark", regions="main"),
    Figure("auprc_band", "AUPRC of errors, band", HIGHER, "scores benchmark"),
    Figure("fpr95_band", "FPR at 95 % TPR, band", LOWER, "scores"),
    Figure("ece", "ECE", LOWER, "scores card benchmark_file", regions="main", scaled=True),
    Figure("ace", "ACE", LOWER, "scores card benchmark", "ACE", scaled=True),
    Figure("mean_uncertainty", "mean uncertainty", LOWER, scaled=True),
    # cases in the order of their uncertainty: one value per region
    Figure("aurc", "AURC of cases", LOWER, "scores card benchmark", "AURC", regions="main"),
    Figure("e_aurc", "E-AURC of cases", LOWER, "scores card", regions="main"),
    Figure("spearman_uncertainty_dice", "Spearman, mean uncertainty and Dice", LOWER, "scores card", regions="main"),
    # Table 3, per estimator
    Figure("auprc_failure", "AUPRC of failures", HIGHER, "table3", "AUPRC", estimators=LOGGED["corr"]),
    Figure("brier_failure", "Brier score", LOWER, "table3", "Brier score", estimators=LOGGED["rmsd"]),
    Figure("ece_failure", "ECE of failures", LOWER, "table3", "ECE", estimators=LOGGED["rmsd"]),
    # Table 2, per protocol and estimator
    Figure("rmsd_ema_last", f"{RMSD} error memory, last epochs", LOWER, "table2 comparison", "RMSD\nerror memory"),
    Figure("corr_ema_last", f"{CORR} error memory, last epochs", HIGHER,
           "table2 verdict comparison", "corr\nerror memory"),
    Figure("rmsd_ema_final", f"{RMSD} error memory, final epoch", LOWER, "table2", "RMSD\nfinal epoch"),
    Figure("corr_ema_final", f"{CORR} error memory, final epoch", HIGHER, "table2", "corr\nfinal epoch"),
    Figure("rmsd_failure", f"{RMSD} failure", LOWER, "table2", "RMSD\nfailure", estimators=LOGGED["rmsd"]),
    Figure("corr_failure", f"{CORR} failure", HIGHER,
           "table2 table3 verdict comparison", "corr\nfailure", estimators=LOGGED["corr"]),
    # single metrics of the epochs
    Figure("train/loss", "loss", LOWER, "progress"),
    Figure("val_patch/dice_mean", "patch Dice", HIGHER, "progress headline"),
    Figure(epoch_key("reference", "corr", HEAD), "correlation", HIGHER, "progress"),
    Figure(epoch_key("union", "corr", HEAD), "correlation, union mask", HIGHER, "headline"),
    # costs of a benchmark's methods
    Figure("passes", "passes", LOWER, "cost", "pas-\nses"),
    Figure("models", "models", LOWER, "cost", "mo-\ndels"),
    Figure("training_cost", "training cost", LOWER, "cost", "train", unit="plain nnU-Net = 1"),
    Figure("inference_cost", "inference cost", LOWER, "cost", "infer", unit="plain nnU-Net = 1"),
)
# fmt: on


def figures_by_key() -> dict[str, Figure]:
    """Return all figures, in the order of the table."""
    return {figure.key: figure for figure in FIGURE_TABLE}


def shown_in(*places: Place) -> dict[str, Figure]:
    """Return the figures of one or several places by key, in the order of the table."""
    return {key: figure for key, figure in figures_by_key().items() if set(places) & set(figure.where.split())}


def shown_by_kind(place: Place) -> dict[str, list[Figure]]:
    """Return the figures of Table 2 that a place shows: correlations and RMSDs."""
    return {kind: [figure for figure in shown_in(place).values() if figure.kind == kind] for kind in KINDS}


def scaled_keys() -> list[str]:
    """Return the figures that a benchmark computes after it has scaled the maps."""
    return [key for key, figure in figures_by_key().items() if figure.scaled]


def best_floor(
    values: Mapping[Any, float], key: str, floors: Collection[str] = FLOORS, *, constant: bool = True
) -> str | None:
    """Return the floor whose value is best, the first of equal ones; None where no floor's value is known.

    Args:
        values: the figure ``key`` per estimator or method; NaN is unknown.
        floors: the names among ``values`` that count as floors.
        constant: whether the constant's correlation counts, which is 0 by definition.
    """
    lower = figures_by_key()[key].better == LOWER
    left_out = () if lower or constant else (CONSTANT,)
    known = {name: v for name, v in values.items() if name in floors and name not in left_out and not math.isnan(v)}
    return (min if lower else max)(known, key=known.__getitem__) if known else None
