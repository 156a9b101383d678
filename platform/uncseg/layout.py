"""Where files lie: the folder of a run, the folder of a prepared dataset, and the files of a case."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uncseg.config.addresses import DATABASE, sqlite_address
from uncseg.errors import DamagedFile
from uncseg.estimators.registry import LEARNT, ONE_PASS, SEVERAL_PASS_MAPS
from uncseg.files import read_json
from uncseg.tasks.task import Task

FINAL_CHECKPOINT = "checkpoint_final.pth"
"""Of a fold whose training has ended."""
FAILURES = "failures.pth"
"""Of a fold that has learnt from failures of the other folds: calibrated p, and what it does not know."""
FAILURES_RECORD = "failures.json"
"""Beside it: what it was made from, and the loss of each step."""
DONE = "done.json"
"""In the folder of a fold whose training has ended: which fold it is, its epochs, and its final checkpoint."""


class Below:
    """A path below the ``root`` of the folder that declares it, in whose fields ``{field}`` is looked up."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __get__(self, folder: Any, _owner: type) -> Path:
        return Path(folder.root, self._path.format_map(vars(folder)))


STUDY_FILES = ("sweep.json", "benchmark.json")
"""JSON in the folder of a study, one for each kind: its file and its base experiment."""


def storage_of(root: Path) -> Path:
    """Return the storage that the folder of a run or a study lies in, wherever that is now.

    The runs of a study, and the members of an ensemble, belong to the storage of their study or run.
    """
    above = root.resolve().parents[1]
    if root.resolve().parent.name == "members" and RunFolder(above).experiment.is_file():
        return storage_of(above)
    of_study = any((above / name).is_file() for name in STUDY_FILES)
    return above.parent if of_study else root.resolve().parent


def own_database(root: Path) -> str:
    """Return the address of the database in the storage of a run or a study, which is the default."""
    return sqlite_address(storage_of(root) / DATABASE)


@dataclass(frozen=True)
class RunFolder:
    """Everything that belongs to one run. If MLflow is lost, nothing of this is."""

    root: Path

    experiment = Below("experiment.yaml")
    """The resolved experiment."""
    manifest = Below("manifest.json")
    """MLflow ids, digests and versions."""
    data = Below("data.json")
    """The cases by content, with patients and folds, and the settings that the run was begun with."""
    spool = Below("spool")
    """Metric records of every epoch, one JSONL file per fold."""
    results = Below("folds")
    """Value of the environment variable ``nnUNet_results``, so that nnU-Net's own commands find the model."""
    out_of_fold = Below("out_of_fold")
    """Predictions and maps of every case by the fold that did not see it, NIfTI in native space."""
    failures = Below("failures")
    """What each fold's network made of the cases that it did not see, on the preprocessed grid."""
    tables = Below("tables")
    """Parquet (the truth) and CSV (for reading)."""
    figures = Below("figures")
    """PNG overlays."""
    progress = Below("progress")
    """fold_{fold}_epoch_{epoch:04d}.png: a fold's output for one patch at each of its checkpoints."""

    @property
    def model(self) -> Path:
        """A valid nnU-Net model folder: plans.json, dataset.json, fold_0, fold_1, …

        nnU-Net names it results/DATASET/TRAINER__PLANS__CONFIGURATION; a run has one.
        """
        return next(iter(sorted(self.results.glob("*/*__*__*"))), self.results)

    def fold(self, fold: int) -> Path:
        """Checkpoints, error memory and log of one fold."""
        return self.model / f"fold_{fold}"

    def final_checkpoint(self, fold: int) -> Path:
        """The checkpoint of a fold whose training has ended."""
        return self.fold(fold) / FINAL_CHECKPOINT

    def learnt_failures(self, fold: int) -> Path:
        """What a fold has learnt from failures of the other folds."""
        return self.fold(fold) / FAILURES

    def member(self, number: int) -> "RunFolder":
        """A member of the run's deep ensemble; the first member is the run itself."""
        return self if number == 0 else RunFolder(self.root / "members" / str(number))


@dataclass(frozen=True)
class PreparedFolder:
    """A dataset prepared for training: nnU-Net's own folders, the split and the oracle maps.

    ``done`` exists only if everything else is complete.
    """

    root: Path
    dataset_name: str  # nnU-Net's, for example Dataset501_BraTS2023

    done = Below("prepared.json")
    """The digests of dataset, split and preparation, and the number of cases."""
    raw = Below("nnUNet_raw")
    """Value of the environment variable ``nnUNet_raw``."""
    preprocessed = Below("nnUNet_preprocessed")
    """Value of the environment variable ``nnUNet_preprocessed``."""
    raw_dataset = Below("nnUNet_raw/{dataset_name}")
    """imagesTr, labelsTr and dataset.json; files are links unless they had to be changed."""
    dataset = Below("nnUNet_preprocessed/{dataset_name}")
    """Plans, fingerprint, splits_final.json and dataset.json."""
    plans = Below("nnUNet_preprocessed/{dataset_name}/nnUNetPlans.json")
    """nnU-Net's plans, named nnUNetPlans."""
    splits = Below("nnUNet_preprocessed/{dataset_name}/splits_final.json")
    """nnU-Net's split file: a list of {train: [case], val: [case]}, one entry per fold."""
    records = Below("records")
    """CASE.json: which files of the case are prepared, with their sizes and digests."""
    oracle = Below("nnUNet_preprocessed/{dataset_name}/oracle")
    """Of phantoms only: CASE.npy, q on the preprocessed grid, (D, H, W) float16."""


def is_model_folder(folder: Path) -> bool:
    """Return whether nnU-Net would accept the folder as a model."""
    return (folder / "plans.json").is_file() and (folder / "dataset.json").is_file()


def folds_in(model: Path) -> list[int]:
    """Return the folds of a model folder with a final checkpoint, sorted."""
    numbers = (re.fullmatch(r"fold_(\d+)", file.parent.name) for file in model.glob(f"fold_*/{FINAL_CHECKPOINT}"))
    return sorted(int(number[1]) for number in numbers if number)


UNCERTAINTY, UNMASKED, BETWEEN_FOLDS = "uncertainty", "uncertainty_unmasked", "between_folds"
"""A case's uncertainty inside the dilated prediction, and everywhere; how far folds differ."""
MEMORY_MAPS = ("error", "variance_stable")
"""The error memory's two averages."""


def main_probability(task: Task) -> str:
    """Return the name of the map of the main region's probability."""
    return region_probabilities(task)[task.main_region]


def region_probabilities(task: Task) -> dict[str, str]:
    """Return the name of the map of each region's probability."""
    return {region: f"{key}_probability" for region, key in task.region_keys.items()}


def learnt_map(task: Task, region: str, estimator: str) -> str:
    """Return the name of a region's map by an estimator that learns from failures."""
    return estimator if region == task.main_region else f"{task.region_keys[region]}_{estimator}"


def case_maps(task: Task) -> tuple[str, ...]:
    """Return the names of the maps of a case out of fold, except those of estimators of several passes."""
    return (UNCERTAINTY, UNMASKED, main_probability(task), *MEMORY_MAPS)


def prediction_maps(task: Task) -> tuple[str, ...]:
    """Return the names of the maps of a new case."""
    of_regions = [learnt_map(task, region, name) for name in LEARNT for region in task.regions]
    maps = (UNCERTAINTY, BETWEEN_FOLDS, *region_probabilities(task).values(), *ONE_PASS, *SEVERAL_PASS_MAPS)
    return tuple(dict.fromkeys((*maps, *of_regions)))


def maps_beside_segmentation(task: Task) -> tuple[str, ...]:
    """Return the names of all maps that may lie beside a case's segmentation."""
    return tuple(dict.fromkeys((*case_maps(task), *prediction_maps(task))))


@dataclass(frozen=True)
class CaseFiles:
    """A case's outputs: CASE.nii.gz (labels), CASE_MAP.nii.gz, CASE.json (the record with its scores)."""

    root: Path
    case_id: str

    segmentation = Below("{case_id}.nii.gz")
    """Labels as the task numbers them, uint8."""
    overlay = Below("{case_id}.png")
    """PNG of a new case."""
    scores = Below("{case_id}.json")
    """The case's record; written last, so that it tells that the case is finished."""

    def map(self, name: str) -> Path:
        """One of :func:`maps_beside_segmentation`, float32 in [0, 1]."""
        return self.root / f"{self.case_id}_{name}.nii.gz"

    def remove(self, task: Task) -> None:
        """Remove all of them, and those that the record lists, which may be of a model with other regions.

        The record goes first, because it tells that the others are complete.
        """
        try:
            listed = list(read_json(self.scores).get("files") or ())
        except DamagedFile:  # also where there is none
            listed = []
        maps = (*map(self.map, maps_beside_segmentation(task)), *(self.root / Path(name).name for name in listed))
        for file in (self.scores, self.segmentation, self.overlay, *maps):
            file.unlink(missing_ok=True)
