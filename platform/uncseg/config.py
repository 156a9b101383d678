"""Experiment: every knob, its unit, its default, checked all at once.

experiment, path = load_experiment(Path("experiments/demo.yaml"), overrides=["loss.unc_weight=0.2"])
"""

from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from uncseg.errors import Problem, ProblemsFound

Positive = Annotated[int, Field(gt=0)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
LABEL_NAMES = ("background", "ncr", "ed", "et")


class Section(BaseModel):
    """A part of an experiment. Unknown keys are errors, values cannot change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Phantoms(Section):
    """Synthetic cases, as ``uncseg phantom`` writes them."""

    cases: Positive = 20
    size: Annotated[int, Field(ge=24)] = 48
    """Voxels along each axis, 1 mm each."""
    seed: int = 0


class Dataset(Section):
    """The cases."""

    path: Path
    """BraTS folder: one folder a case."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9]+$")] = "BraTS2023"
    """Name in nnU-Net's dataset name, letters and digits."""
    id: Annotated[int, Field(ge=1, le=999)] = 501
    """Number in nnU-Net's dataset name."""
    expected_cases: Positive | None = None
    """Number of cases after exclusion; another number is an error. None: any."""
    exclude: tuple[str, ...] | Path = ()
    """Case ids to leave out, or a text file with one a line."""
    phantoms: Phantoms | None = None
    """Written to ``path`` first, where nothing lies there yet."""


class Split(Section):
    """Cross-validation split, grouped by patient, balanced by tumour volume."""

    folds: Annotated[int, Field(ge=2)] = 5
    seed: int = 12345


class Plan(Section):
    """What nnU-Net's planner is told. None leaves nnU-Net's own choice."""

    configuration: Literal["2d", "3d_fullres"] = "3d_fullres"
    preset: Literal["resenc_m", "resenc_l", "resenc_xl"] | None = None
    """nnU-Net's residual encoder presets. None: its standard U-Net."""
    target_spacing_mm: tuple[float, float, float] | None = None
    """Voxel size of the preprocessed grid, in nnU-Net's axis order (z, y, x)."""
    patch_size: tuple[Positive, ...] | None = None
    """Voxels; each a multiple of the network's total stride."""
    batch_size: Positive | None = None
    base_features: Positive | None = None
    """Feature maps of the first stage (nnU-Net: 32)."""
    max_features: Positive | None = None
    """Most feature maps of any stage (nnU-Net: 320 in 3D)."""
    max_stages: Annotated[int, Field(ge=2)] | None = None
    """Most resolution stages of the network."""
    memory_target_gib: Annotated[float, Field(gt=0)] | None = None
    """GPU memory the planner aims at. None: 8, or the preset's own (8, 24, 40)."""


class Model(Section):
    """The network's output."""

    head: Literal["labels", "regions"] = "labels"
    """labels: softmax over background, NCR, ED, ET. regions: sigmoid of WT, TC, ET."""
    uncertainty: bool = True
    """False: nnU-Net without the uncertainty head (the baseline)."""
    deep_supervision: bool = True


class Loss(Section):
    """l_seg + unc_weight·l_unc + rmsd_weight·mean(rmsd) + corr_weight·(1 − mean(corr))."""

    unc_weight: Weight = 0.4
    rmsd_weight: Weight = 0.5
    corr_weight: Weight = 0.4
    weight_ce: tuple[Weight, Weight, Weight, Weight] | None = None
    """Class weights of the cross-entropy: background, NCR, ED, ET. Only with model.head: labels."""
    cancer_mask: Literal["target", "union"] = "target"
    """target: the reference (paper protocol). union: reference or prediction, dilated by 2 voxels."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs over which the uncertainty terms rise linearly to full weight."""
    output_l2: Weight = 0
    """Weight of an L2 penalty on the outputs, against over-prediction."""


class Memory(Section):
    """The per-case average of the model's own errors."""

    alpha: Annotated[float, Field(gt=0, le=1)] = 1 / 30
    """Smallest step of the average: a running mean over 1/alpha visits, an exponential one after."""


class Training(Section):
    """Optimisation, with nnU-Net's defaults."""

    epochs: Positive = 500
    iterations_per_epoch: Positive = 250
    val_iterations_per_epoch: Positive = 50
    initial_lr: Annotated[float, Field(gt=0)] = 0.01
    weight_decay: Weight = 3e-5
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    oversample_foreground: Annotated[float, Field(ge=0, le=1)] = 0.33
    """Share of a batch's patches that are forced to contain foreground."""
    seed: int = 0
    checkpoint_every: Positive = 10
    """Epochs between checkpoints: what a killed worker can lose at most."""
    precision: Literal["fp32", "fp16", "bf16"] | None = None
    """Of forward passes; the loss terms are always float32. None: fp16 on a GPU, fp32 on a CPU."""
    compile: bool | None = None
    """Whether torch.compile builds the network. None: on a GPU."""
    accumulate: Positive = 1
    """Parts that a batch is trained in, one after the other, where the whole does not fit on the GPU."""
    loader_processes: Annotated[int, Field(ge=0)] | None = None
    """Processes that load and augment, per fold. None: the fold's CPUs less one with a GPU, else a quarter of them."""


class Autoscaler(Section):
    """Nodes of one kind that a cluster's autoscaler adds when folds wait."""

    nodes: Positive
    """Most of them at a time, those that are there included."""
    cpus: Annotated[float, Field(gt=0)]
    gpus: Annotated[float, Field(ge=0)] = 0


class Resources(Section):
    """What a fold takes. None: found (a GPU each if there are any, else CPUs)."""

    gpus_per_fold: Annotated[float, Field(ge=0)] | None = None
    cpus_per_fold: Annotated[float, Field(gt=0)] | None = None
    folds_at_once: Positive | None = None
    """Most folds side by side; the others wait."""
    ray_address: str | None = None
    """None: a local Ray, started by the command. "auto" or HOST:PORT: a running cluster."""
    autoscaler: Autoscaler | None = None
    """None: found on the head of a cluster of Ray's launcher; on Kubernetes it has to be said."""


class Tracking(Section):
    """MLflow."""

    uri: str | None = None
    """None: sqlite:///STORAGE/mlflow.db"""
    experiment: str = "uncseg"
    model: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] | None = None
    """Name in MLflow's registry under which a finished run is a version of a model. None: the experiment's name."""


class Storage(Section):
    """Where runs lie."""

    path: Path = Path("runs")


class Evaluation(Section):
    """Out-of-fold prediction and the tables."""

    tile_step: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Step of the sliding window, in patch sizes."""
    mirroring: bool = False
    """Test-time mirroring (8 passes) instead of one forward pass."""
    last_epochs: Positive = 30
    """Epochs averaged for the *_ema figures."""
    baseline: str | None = None
    """Name of the run without the head, for Table 1."""


class Experiment(Section):
    """One experiment file: comparable runs come out."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    dataset: Dataset
    split: Split = Split()
    plan: Plan = Plan()
    model: Model = Model()
    loss: Loss = Loss()
    memory: Memory = Memory()
    training: Training = Training()
    resources: Resources = Resources()
    tracking: Tracking = Tracking()
    storage: Storage = Storage()
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="after")
    def _fields_fit_together(self) -> "Experiment":
        wrong = []
        if self.model.head == "regions" and self.loss.weight_ce is not None:
            wrong.append(
                "loss.weight_ce weighs classes, and model.head: regions has none; "
                "remove loss.weight_ce or write model.head: labels"
            )
        dimensions = 2 if self.plan.configuration == "2d" else 3
        if self.plan.patch_size is not None and len(self.plan.patch_size) != dimensions:
            wrong.append(
                f"plan.patch_size has {len(self.plan.patch_size)} numbers, and {self.plan.configuration} needs "
                f"{dimensions}; write {dimensions} numbers"
            )
        if self.plan.target_spacing_mm is not None and min(self.plan.target_spacing_mm) <= 0:
            wrong.append("plan.target_spacing_mm must be positive; write millimetres per voxel, as [1.0, 1.0, 1.0]")
        if urlsplit(self.tracking.uri or "").password is not None:
            wrong.append(
                "tracking.uri holds a password, which would be kept with the run and shown; write the address without "
                "it, and put it into the environment: MLFLOW_TRACKING_PASSWORD for a server, PGPASSWORD for PostgreSQL"
            )
        if self.loss.warmup_epochs > self.training.epochs:
            wrong.append(
                f"loss.warmup_epochs ({self.loss.warmup_epochs}) is longer than training.epochs "
                f"({self.training.epochs}); write at most {self.training.epochs}"
            )
        if wrong:
            raise ValueError("\n".join(wrong))
        return self

    def resolved(self) -> "Experiment":
        """The same with absolute paths, for processes that have another working directory."""
        exclude = self.dataset.exclude
        exclude = exclude.resolve() if isinstance(exclude, Path) else exclude
        dataset = self.dataset.model_copy(update={"path": self.dataset.path.resolve(), "exclude": exclude})
        storage = self.storage.model_copy(update={"path": self.storage.path.resolve()})
        return self.model_copy(update={"dataset": dataset, "storage": storage})

    @property
    def run_folder(self) -> Path:
        """Absolute folder of this experiment's run."""
        return self.storage.path.resolve() / self.name

    @property
    def tracking_uri(self) -> str:
        """MLflow tracking URI, the SQLite default filled in."""
        return self.tracking.uri or f"sqlite:///{self.storage.path.resolve() / 'mlflow.db'}"


def _problem(file: Path, location: tuple[Any, ...], message: str, found: Any) -> list[Problem]:
    field = ".".join(str(part) for part in location)
    if not field:  # from _fields_fit_together: one line a problem, "what; what to do"
        problems = []
        for line in message.removeprefix("Value error, ").splitlines():
            what, _, advice = line.rpartition("; ")
            problems.append(Problem(f"{file}: {what.split()[0]}", what, "settings that fit together", advice))
        return problems
    if message == "Extra inputs are not permitted":
        return [Problem(f"{file}: {field}", "an unknown field", "a field of the experiment", "correct or remove it")]
    if message == "Field required":
        return [Problem(f"{file}: {field}", "nothing", "a value", "write this field")]
    return [Problem(f"{file}: {field}", repr(found), message[0].lower() + message[1:], "write a value that fits")]


def apply_override(content: dict[str, Any], assignment: str) -> Problem | None:
    """Put the value of ``FIELD=VALUE`` into content; what is wrong with the assignment, or None."""
    field, equals, value = assignment.partition("=")
    where = f"--set {assignment}"
    if not equals or not field:
        return Problem(where, "no FIELD=VALUE", "for example loss.unc_weight=0.2", "write field, =, value")
    *sections, last = field.split(".")
    for section in sections:
        content = content.setdefault(section, {})
        if not isinstance(content, dict):
            return Problem(where, f"{section} is not a section", "SECTION.FIELD=VALUE", "correct the field's name")
    content[last] = yaml.safe_load(value)
    return None


def problems_of(file: Path, error: ValidationError) -> list[Problem]:
    """What pydantic found wrong in a file, for people."""
    return [p for item in error.errors() for p in _problem(file, item["loc"], item["msg"], item["input"])]


def read_yaml(path: Path, title: str, example: str) -> dict[str, Any]:
    """The fields of a YAML file.

    Args:
        path: the file.
        title: of the error.
        example: a file to start from, named where this one is empty.

    Raises:
        ProblemsFound: where it cannot be read, or holds no fields.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        problem = Problem(str(path), error.strerror or str(error), "a readable YAML file", "correct the path")
        raise ProblemsFound(title, [problem]) from error
    except yaml.YAMLError as error:
        where = str(path)
        if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
            where = f"{path}, line {error.problem_mark.line + 1}"
        problem = Problem(where, "text that is not YAML", "SECTION: and FIELD: VALUE lines", "correct the syntax")
        raise ProblemsFound(title, [problem]) from error
    if not isinstance(content, dict):
        raise ProblemsFound(title, [Problem(str(path), "no fields", "name, …", f"start from {example}")])
    return content


def load_experiment(path: Path, overrides: list[str] | None = None) -> Experiment:
    """Read and check an experiment file.

    Relative paths in the file are taken from the working directory.

    Args:
        path: YAML file.
        overrides: ``FIELD=VALUE`` assignments, the value in YAML, applied in order.

    Raises:
        ProblemsFound: with every problem of file and overrides at once.
    """
    title = f"The experiment {path} cannot be used."
    content = read_yaml(path, title, "experiments/demo.yaml")
    problems = [p for p in (apply_override(content, assignment) for assignment in overrides or []) if p is not None]
    try:
        experiment = Experiment.model_validate(content)
    except ValidationError as error:
        raise ProblemsFound(title, problems + problems_of(path, error)) from error
    if problems:
        raise ProblemsFound(title, problems)
    return experiment


def save_experiment(experiment: Experiment, path: Path) -> None:
    """Write an experiment as resolved: every field, defaults included, paths absolute."""
    from uncseg.files import write_text

    content = experiment.resolved().model_dump(mode="json")
    write_text(path, yaml.safe_dump(content, sort_keys=False))
