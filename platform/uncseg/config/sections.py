"""The sections of an experiment: every setting, its unit and its default. ``rules`` says which fit together."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, create_model

from uncseg.config.case_lists import FoldList, PatientList
from uncseg.config.values import (
    LARGEST_PHANTOM,
    MOST_PHANTOMS,
    Features,
    GpusPerFold,
    MlflowName,
    Names,
    RayAddress,
    Spacing,
    TrackingUri,
    Year,
)
from uncseg.estimators.chosen_map import MapChoice
from uncseg.estimators.registry import ESTIMATORS, ONE_PASS, SEVERAL_PASSES
from uncseg.section import FilePath, Name, Positive, RunName, Section, Seed
from uncseg.tasks.built_in_tasks import built_in, built_in_names, paper_task
from uncseg.tasks.task import Task


def _task(value: Any) -> Any:
    """Take the name of a built-in task for the task."""
    return built_in(value) if isinstance(value, str) and value in built_in_names() else value


class Phantoms(Section):
    """Synthetic cases, as ``uncseg phantom`` writes them."""

    cases: Annotated[int, Field(gt=0, le=MOST_PHANTOMS)] = 20
    size: Annotated[int, Field(ge=24, le=LARGEST_PHANTOM)] = 48
    """Number of voxels along each axis, of 1 mm each."""
    seed: Seed = 0


class Dataset(Section):
    """The cases."""

    path: FilePath
    """Folder with one folder per case, or nnU-Net's raw dataset (imagesTr, labelsTr, dataset.json)."""
    task: Annotated[Task, BeforeValidator(_task)] = Field(default_factory=paper_task)
    """What images, labels, regions and lesions mean: the name of a built-in task, a task's fields, or a file with them
    (.yaml, or nnU-Net's dataset.json). None: as nnU-Net's dataset says, else the paper's task, gli-2023."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9]+$", max_length=50)] = "BraTS2023"
    """Name of the dataset for nnU-Net, of letters and digits."""
    id: Annotated[int, Field(ge=1, le=999)] = 501
    """Number of the dataset for nnU-Net, which stands before its name."""
    expected_cases: Positive | None = None
    """Number of cases after exclusion; another number is an error. None: any number is right."""
    exclude: Annotated[tuple[str, ...] | FilePath, Names] = ()
    """Names to leave out, of cases, folders or image files, or a text file with one per line."""
    patients: PatientList | str | None = None
    """Who is a patient: a csv file (columns case and patient; its name ends in .csv), or a regular expression that is
    searched for in a case's name, and whose first group is the patient. None: the names tell, as in
    ``dataset/patients.py``."""
    convention: Year | None = None
    """Which of the task's conventions numbers the labels, for example 2018, where ET is 4. None: as files are named."""
    phantoms: Phantoms | None = None
    """Phantoms that are written to ``path`` first, unless something is there. None: the cases are there."""


class Split(Section):
    """The split into folds: grouped by patient and balanced by the main region's volume, or one's own."""

    folds: Annotated[int, Field(ge=2, le=1000)] = 5
    """Number of folds; ``file`` and ``groups`` tell it themselves."""
    seed: Seed = 12345
    """Of the draw."""
    drawn: Literal["patients", "cases"] = "patients"
    """patients: they stay together, and folds are balanced. cases: one by one, as nnU-Net draws them; two of one
    patient may then be in different folds, which ``allow_shared_patients`` has to say is meant."""
    file: FoldList | None = None
    """A split of one's own: nnU-Net's splits_final.json, or a csv file (columns case and fold; folds from 0)."""
    groups: FoldList | None = None
    """A csv file (columns case and group), for one fold per group, which leaves this group out, in sorted order."""
    allow_shared_patients: bool = False
    """Whether in a split of one's own, or of cases one by one, a patient may be in several folds."""

    @property
    def given(self) -> FoldList | None:
        """The split of one's own; None: the folds are drawn."""
        return self.file or self.groups


class Plan(Section):
    """What nnU-Net's planner is told. None: nnU-Net's own choice."""

    configuration: Literal["2d", "3d_fullres"] = "3d_fullres"
    """nnU-Net's configuration: a network of slices, or of volumes at full resolution."""
    preset: Literal["resenc_m", "resenc_l", "resenc_xl"] | None = None
    """Preset of nnU-Net's residual encoder. None: its standard U-Net."""
    target_spacing_mm: tuple[Spacing, Spacing, Spacing] | None = None
    """Voxel size of the preprocessed grid in millimetres, in nnU-Net's order of axes, (z, y, x)."""
    patch_size: tuple[Annotated[int, Field(gt=0, le=2048)], ...] | None = None
    """Voxels of a patch along each axis, each a multiple of the network's total stride."""
    batch_size: Annotated[int, Field(gt=0, le=10_000)] | None = None
    """Patches per batch."""
    base_features: Features | None = None
    """Number of feature maps of the first stage (nnU-Net: 32)."""
    max_features: Features | None = None
    """Largest number of feature maps of a stage (nnU-Net: 320 in 3D)."""
    max_stages: Annotated[int, Field(ge=2, le=20)] | None = None
    """Largest number of resolution stages."""
    memory_target_gib: Annotated[float, Field(ge=0.1, le=10_000)] | None = None
    """GPU memory in GiB that the planner aims at. None: 8, or the preset's own (8, 24, 40)."""
    foreground_samples: Positive | None = None
    """Number of intensities per channel for the fingerprint, equally many per case, at least 1. None: 100 million,
    which take most of the time of a few small cases. MR images are normalised case by case, without them."""


class Autoscaler(Section):
    """Nodes of one kind, each with these CPUs and GPUs, that a cluster's autoscaler adds when folds wait."""

    nodes: Annotated[int, Field(gt=0, le=100_000)]
    """Largest number of them at a time, those that are there included."""
    cpus: Annotated[float, Field(gt=0, le=100_000)]
    gpus: Annotated[float, Field(ge=0, le=1000)] = 0


class Resources(Section):
    """What a fold takes of the cluster."""

    gpus_per_fold: GpusPerFold | None = None
    """GPUs per fold. None: 1 if the cluster has any."""
    cpus_per_fold: Annotated[float, Field(ge=0.01, le=100_000)] | None = None
    """CPUs per fold. None: a fair share of the cluster's."""
    folds_at_once: Positive | None = None
    """Largest number of folds side by side; the others wait. None: as many as fit."""
    ray_address: RayAddress | None = None
    """Address of a running cluster, "auto" or HOST:PORT. None: a local Ray that the command starts."""
    autoscaler: Autoscaler | None = None
    """Nodes that an autoscaler may add. None: as the head node of Ray's launcher says; on Kubernetes, write them."""


class Tracking(Section):
    """Where MLflow keeps the runs."""

    uri: TrackingUri | None = None
    """Tracking URI. None: sqlite:///STORAGE/mlflow.db"""
    experiment: MlflowName = "uncseg"
    """Name of the MLflow experiment that collects the runs."""
    model: Name | None = None
    """Name of the model in MLflow's registry that a finished run becomes a version of. None: the run's name."""


class Storage(Section):
    """Where runs are kept."""

    path: FilePath = Path("runs")
    """Folder of the run folders and of what is prepared for them."""


_SEVERAL_PASS_FIELDS: dict[str, Any] = {
    estimator.name: (bool, False) if estimator.settings is None else (estimator.settings | None, None)
    for estimator in SEVERAL_PASSES
}


class Estimators(create_model("SeveralPasses", __base__=Section, **_SEVERAL_PASS_FIELDS)):  # type: ignore[misc]
    """Maps beside the head's: ``one_pass``, and a field for each estimator of several passes. None: left out."""

    one_pass: tuple[Literal[ONE_PASS], ...] = ()  # type: ignore[valid-type]
    """Maps of one pass that ``predict`` writes and ``evaluate --dataset`` scores; a run's own tables have all."""

    @property
    def several_pass(self) -> tuple[str, ...]:
        """Names of the chosen estimators of several passes, each with a segmentation of its own."""
        return tuple(estimator.name for estimator in SEVERAL_PASSES if getattr(self, estimator.name))

    @property
    def combine_members(self) -> bool:
        """Whether one of them needs all members of the run."""
        return any(ESTIMATORS[name].combines_members for name in self.several_pass)


class Evaluation(Section):
    """Out-of-fold prediction, and the tables."""

    tile_step: Annotated[float, Field(ge=0.01, le=1)] = 0.5
    """Step of the sliding window, as a share of the patch size."""
    mirroring: bool = False
    """Whether predictions are averaged over mirrored copies, which takes 8 passes in 3D."""
    last_epochs: Positive = 30
    """Number of last epochs that are averaged for the ``*_ema_last`` figures."""
    baseline: RunName | None = None
    """Name of the run without the head that Table 1 compares with. None: Table 1 shows this run alone."""
    training_gap_cases: Annotated[int, Field(ge=0, le=10**6)] = 0
    """Number of training cases that each fold's final network predicts as well, beside its new ones. 0: none."""
    uncertainty: MapChoice | None = None
    """The map that is a case's uncertainty. None: the head's, else the cross-fitted one, else calibrated p."""
    estimators: Estimators = Estimators()
    """Estimators beside the head whose maps are computed."""
