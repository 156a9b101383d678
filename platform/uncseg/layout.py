"""Where things lie: the folder of a run, and the folder of a prepared dataset."""

from dataclasses import dataclass
from pathlib import Path

from uncseg.estimators.registry import ONE_PASS, SEVERAL_PASS_MAPS


@dataclass(frozen=True)
class RunFolder:
    """Everything of one run. Losing MLflow loses nothing that lies here."""

    root: Path

    @property
    def experiment(self) -> Path:
        """The experiment as resolved, YAML."""
        return self.root / "experiment.yaml"

    @property
    def manifest(self) -> Path:
        """MLflow ids, digests and versions, JSON."""
        return self.root / "manifest.json"

    @property
    def spool(self) -> Path:
        """Metric records of every epoch, one JSONL file a fold."""
        return self.root / "spool"

    @property
    def results(self) -> Path:
        """Value of the environment variable ``nnUNet_results``, so that nnU-Net's own commands find the model."""
        return self.root / "folds"

    @property
    def model(self) -> Path:
        """A valid nnU-Net model folder: plans.json, dataset.json, fold_0, fold_1, …

        nnU-Net names it results/DATASET/TRAINER__PLANS__CONFIGURATION; a run holds one.
        """
        return next(iter(sorted(self.results.glob("*/*__*__*"))), self.results)

    def fold(self, fold: int) -> Path:
        """Checkpoints, error memory and log of one fold."""
        return self.model / f"fold_{fold}"

    def final_checkpoint(self, fold: int) -> Path:
        """Of a fold whose training has ended."""
        return self.fold(fold) / "checkpoint_final.pth"

    def member(self, number: int) -> "RunFolder":
        """A member of the run's ensemble; the first one is the run itself."""
        return self if number == 0 else RunFolder(self.root / "members" / str(number))

    @property
    def out_of_fold(self) -> Path:
        """Predictions and maps of every case by the fold that did not see it, NIfTI in native space."""
        return self.root / "out_of_fold"

    @property
    def tables(self) -> Path:
        """Parquet (the truth) and csv (for reading)."""
        return self.root / "tables"

    @property
    def figures(self) -> Path:
        """PNG overlays."""
        return self.root / "figures"

    @property
    def progress(self) -> Path:
        """fold_{fold}_epoch_{epoch:04d}.png: what a fold made of one patch at each of its checkpoints."""
        return self.root / "progress"


@dataclass(frozen=True)
class PreparedFolder:
    """A dataset made ready for training; nnU-Net's own folders plus the split and the oracle maps.

    ``done`` exists only when everything else is whole.
    """

    root: Path
    dataset_name: str  # nnU-Net's, for example Dataset501_BraTS2023

    @property
    def done(self) -> Path:
        """JSON: the digests of dataset, split and preparation, the number of cases."""
        return self.root / "prepared.json"

    @property
    def raw(self) -> Path:
        """Value of the environment variable ``nnUNet_raw``."""
        return self.root / "nnUNet_raw"

    @property
    def preprocessed(self) -> Path:
        """Value of the environment variable ``nnUNet_preprocessed``."""
        return self.root / "nnUNet_preprocessed"

    @property
    def raw_dataset(self) -> Path:
        """imagesTr, labelsTr and dataset.json (links where nothing changes)."""
        return self.raw / self.dataset_name

    @property
    def dataset(self) -> Path:
        """Plans, fingerprint, splits_final.json, dataset.json."""
        return self.preprocessed / self.dataset_name

    @property
    def plans(self) -> Path:
        """nnU-Net plans, named nnUNetPlans."""
        return self.dataset / "nnUNetPlans.json"

    @property
    def splits(self) -> Path:
        """nnU-Net's split file: a list of {train: [case], val: [case]}, one entry per fold."""
        return self.dataset / "splits_final.json"

    @property
    def oracle(self) -> Path:
        """CASE.npy, float16, (D, H, W) of the preprocessed grid: q, for phantoms only."""
        return self.dataset / "oracle"


CASE_MAPS = ("uncertainty", "uncertainty_unmasked", "wt_probability", "error", "variance_stable")
"""The head's map inside the dilated prediction and everywhere, p(WT), and the error memory's two averages."""
PREDICTION_MAPS = (
    "uncertainty",
    "between_folds",
    "wt_probability",
    "tc_probability",
    "et_probability",
    *ONE_PASS,
    *SEVERAL_PASS_MAPS,
)
"""Of a new case."""


@dataclass(frozen=True)
class CaseFiles:
    """A case's out-of-fold outputs: CASE.nii.gz (labels), CASE_MAP.nii.gz, CASE.json (the row of scores)."""

    folder: Path
    case_id: str

    @property
    def segmentation(self) -> Path:
        """Labels 1 NCR, 2 ED, 3 ET, uint8."""
        return self.folder / f"{self.case_id}.nii.gz"

    def map(self, name: str) -> Path:
        """One of :data:`CASE_MAPS` or :data:`PREDICTION_MAPS`, float32 in [0, 1]."""
        return self.folder / f"{self.case_id}_{name}.nii.gz"

    @property
    def overlay(self) -> Path:
        """PNG of a new case."""
        return self.folder / f"{self.case_id}.png"

    @property
    def scores(self) -> Path:
        """The case's row; written last, so that it says the case is done."""
        return self.folder / f"{self.case_id}.json"
