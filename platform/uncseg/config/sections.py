"""The sections of an experiment: every knob, its unit, its default. How they fit together is config.py's."""

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, create_model

from uncseg.config.backbones import Backbones
from uncseg.estimators.registry import ESTIMATORS, ONE_PASS, SEVERAL_PASSES
from uncseg.section import Name, Positive, Section, Weight

Protocol = Literal["reference", "union"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
"""Masks in which uncertainty and error are compared: the reference tumour, or reference or prediction, dilated."""
SEEDS_APART = 1000
"""Between the members of an ensemble."""
LABEL_NAMES = ("background", "ncr", "ed", "et")


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
    foreground_samples: Positive | None = None
    """Intensities of each channel that the fingerprint draws, all cases together, the same number of each and at least
    one. None: nnU-Net's 100 million, most of the time that a few small cases take. MR images are normalised case by
    case, which does not look at them."""


class ErrorNetwork(Section):
    """A network that learns where a finished run's segmentation fails (Jungo et al. 2020); that one stays as it is."""

    run: str
    """Name of a run in the same storage, with the same folds and the same backbone."""
    kind: Literal["features", "image_and_prediction"] = "features"
    """features: three layers on the last features of the segmentation network. image_and_prediction: a second network
    of the same plans."""


class Model(Backbones):
    """The network and its output."""

    output: Literal["labels", "regions"] = "labels"
    """labels: softmax over background, NCR, ED, ET. regions: sigmoid of WT, TC, ET."""
    uncertainty: bool = True
    """False: nnU-Net without the uncertainty head (the baseline)."""
    deep_supervision: bool = True
    """Only with the networks of nnU-Net's plans."""
    detached: bool = False
    """The head reads the last features and does not train them: its loss moves the segmentation at most by nnU-Net's
    clipping of the norm of all gradients together."""
    heteroscedastic: bool = False
    """A log-variance of the logits in place of the head; the loss sees logits drawn with it (Kendall and Gal 2017)."""
    logit_samples: Positive = 10
    """Draws in a training step, with heteroscedastic."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0
    """Share of the channels that are dropped around the bottleneck, in training and in the samples of mc_dropout."""
    error_network: ErrorNetwork | None = None
    """In place of the head."""


class Loss(Section):
    """l_seg + unc_weight·l_unc + rmsd_weight·mean(rmsd) + corr_weight·(1 − mean(corr))."""

    unc_weight: Weight = 0.4
    rmsd_weight: Weight = 0.5
    corr_weight: Weight = 0.4
    weight_ce: tuple[Weight, Weight, Weight, Weight] | None = None
    """Class weights of the cross-entropy: background, NCR, ED, ET. Only with model.output: labels."""
    cancer_mask: Protocol = "reference"
    """reference: the reference tumour, as in the paper. union: reference or prediction, dilated by 2 voxels."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs over which the uncertainty terms rise linearly to full weight."""
    output_l2: Weight = 0
    """Weight of an L2 penalty on the outputs, against over-prediction."""


class Memory(Section):
    """What the head learns: the per-case average of the model's own errors."""

    alpha: Annotated[float, Field(gt=0, le=1)] = 1 / 30
    """Smallest step of the average: a running mean over 1/alpha visits, an exponential one after."""
    source: Literal["cases", "teacher"] = "cases"
    """cases: that average. teacher: how wrong a copy of the network is, whose weights are averaged over the steps."""
    teacher_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Share of the teacher's weights that stays in a step."""
    coordinates: Literal["case", "patch"] = "case"
    """patch is wrong on purpose, for one study: it averages over whatever anatomy the patches happened to show."""


class Training(Section):
    """Optimisation, with nnU-Net's defaults."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    """adamw is what transformers are trained with; it wants a smaller initial_lr, as 0.0001."""
    epochs: Positive = 500
    iterations_per_epoch: Positive = 250
    val_iterations_per_epoch: Positive = 50
    initial_lr: Annotated[float, Field(gt=0)] = 0.01
    weight_decay: Weight = 3e-5
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Of sgd."""
    oversample_foreground: Annotated[float, Field(ge=0, le=1)] = 0.33
    """Share of a batch's patches that are forced to contain foreground."""
    seed: int = 0
    members: Positive = 1
    """Networks trained on each fold, which differ in their seeds: more than one are a deep ensemble."""
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

    @property
    def member_seeds(self) -> tuple[int, ...]:
        """Of the members, so far apart that experiments with seeds 0, 1, 2 … share none."""
        return tuple(self.seed + number * SEEDS_APART for number in range(self.members))


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
    model: Name | None = None
    """Name in MLflow's registry under which a finished run is a version of a model. None: the experiment's name."""


class Storage(Section):
    """Where runs lie."""

    path: Path = Path("runs")


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
    """Out-of-fold prediction and the tables."""

    tile_step: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Step of the sliding window, in patch sizes."""
    mirroring: bool = False
    """Test-time mirroring (8 passes) instead of one forward pass."""
    last_epochs: Positive = 30
    """Epochs averaged for the *_ema figures."""
    baseline: str | None = None
    """Name of the run without the head, for Table 1."""
    estimators: Estimators = Estimators()
    """Maps beside those that one pass gives."""
