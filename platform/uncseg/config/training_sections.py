"""The sections of an experiment that a training depends on: network, loss, what the head learns, and optimisation."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field

from uncseg.config.backbones import Backbones
from uncseg.section import Positive, RunName, Section, Seed, Weight

Protocol = Literal["reference", "union"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
"""Masks in which uncertainty is compared with error: the reference tumour, as in the paper, or the union of reference
and prediction, dilated by 2 voxels."""


class ErrorNetwork(Section):
    """A network that learns where a finished run's segmentation fails (Jungo et al. 2020); the run is not changed."""

    run: RunName
    """Name of a run in the same storage, with the same folds and the same backbone."""
    kind: Literal["features", "image_and_prediction"] = "features"
    """features: three layers on the last features of the segmentation network. image_and_prediction: a second network
    with the same plans."""


class Model(Backbones):
    """The network and its outputs."""

    output: Literal["labels", "regions"] = "labels"
    """labels: softmax over the background and the task's labels. regions: sigmoid of each of its regions."""
    uncertainty: bool = True
    """Whether there is an uncertainty head. False: plain nnU-Net, the baseline."""
    deep_supervision: bool = True
    """Whether outputs of lower resolutions are trained too, which only the networks of nnU-Net's plans have."""
    head: Literal["output_layer", "decoder_stages"] = "output_layer"
    """What gives the head's map: one more channel of the output layer, as in the paper, or layers of its own that read
    all stages of the decoder, with two convolutions of 3³."""
    residual: bool = False
    """Whether the head adds to calibrated p of the network's own decision, as evidence for the main region, in place of
    giving the whole map."""
    detached: bool = False
    """Whether the head's loss trains the head alone; nnU-Net's clipping of all gradients' norm still couples both."""
    heteroscedastic: bool = False
    """Whether the log-variance of the logits replaces the head; the loss sees draws of them (Kendall and Gal 2017)."""
    logit_samples: Annotated[int, Field(gt=0, le=10_000)] = 10
    """Number of draws of the logits per training step, with ``heteroscedastic``."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0
    """Share of the channels around the bottleneck that are dropped, in training and in the samples of mc_dropout."""
    error_network: ErrorNetwork | None = None
    """The error network that is trained in place of the head. None: the network segments."""


class Loss(Section):
    """l_seg + unc_weight·l_unc + rmsd_weight·mean(rmsd) + corr_weight·(1 − mean(corr)) + entropy_weight·l_entropy;
    weights have no unit."""

    unc_weight: Weight = 0.4
    unc_mean: Literal["patch", "mask"] = "patch"
    """The voxels over which l_unc is a mean: all of the patch, as in the paper's formula, most of which are outside the
    mask and make it small, or those of the mask."""
    rmsd_weight: Weight = 0.5
    corr_weight: Weight = 0.4
    entropy_weight: Weight = 0
    """Weight of the cross-entropy between map and error, a proper score, the mean over the voxels of the mask."""
    weight_ce: tuple[Weight, ...] | None = None
    """Class weights of the cross-entropy, with ``model.output: labels`` only: of the background, then of each label
    of the task. None: 1 each."""
    cancer_mask: Protocol = "reference"
    """Mask in which the uncertainty terms are computed; see ``PROTOCOLS``."""
    warmup_epochs: Annotated[int, Field(ge=0, le=10**9)] = 0
    """Number of epochs over which the uncertainty terms rise linearly to their full weights."""
    output_l2: Weight = 0
    """Weight of an L2 penalty on the outputs, against over-prediction."""


class PublishedMemory(Section):
    """How a public trainer with the paper's function names keeps its error memory, where that differs from ours.

    Each field is one difference. They are mistakes, or change what a figure means. ``shifted_labels`` is inferred.
    """

    older: ClassVar[Mapping[str, Any]] = {"inside_reference": False, "shifted_labels": False}

    slots: bool = True
    """One memory for each place in the batch, in patch coordinates, for all cases, of training and validation."""
    writes_first: bool = True
    """A step compares with the memory after its own visit."""
    smaller_step: bool = True
    """After the first visit, steps of min(1/n, ``alpha``) in place of max(1/n, ``alpha``): the memory stands still."""
    inside_reference: bool = True
    """Failures and variances are kept as 0 outside of the reference, false positives too."""
    shifted_labels: bool = True
    """A voxel fails where its class's channel, counted from 0, is not its label, counted from 1: nearly all of the
    reference, and nothing else. Inferred from the paper's failure rates of 0.74 to 0.85."""
    pooled: bool = True
    """A failure, and a variance, is the mean over 3³ voxels."""
    compressed: bool = True
    """Errors E and variances are compared as sigmoid(E − mean E), the mean over the reference of the batch."""
    variance_of_channels: bool = True
    """The variance of a visit is that across the classes of each one's own sigmoid, in place of 4·p·(1 − p)."""
    raw_logit: bool = True
    """The correlation that is trained and shown is that of the uncertainty's logit."""


class Memory(Section):
    """What the head learns: how wrong the network is, voxel by voxel."""

    gone: ClassVar[Mapping[str, Any]] = {"coordinates": "case"}

    alpha: Annotated[float, Field(ge=1e-9, le=1)] = 1 / 30
    """Smallest step of a case's average error: a plain mean over the first 1/alpha visits, an exponential one after."""
    source: Literal["cases", "visit", "teacher", "members", "cross_fitted"] = "cases"
    """cases: the average of the network's errors on each case. visit: the failure of this visit alone. teacher: the
    errors of a copy with averaged weights. members: |p − own decision|, p the mean of the members of ``run``.
    cross_fitted: P(own decision is wrong), by what the folds of ``run`` have learnt from each other's failures."""
    run: RunName | None = None
    """Name of a finished run in the same storage, with the same folds and the same plan, whose networks or failures
    teach the head. None: the source needs none."""
    teacher_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Share of the teacher's weights that a step keeps."""
    published: PublishedMemory | None = None
    """The memory as a public trainer keeps it, for the study of the paper's figures. None: ours."""


class Training(Section):
    """Optimisation, with nnU-Net's defaults; an iteration is one batch."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Transformers are trained with adamw, which needs a smaller ``initial_lr``, such as 0.0001."""
    epochs: Positive = 500
    iterations_per_epoch: Positive = 250
    val_iterations_per_epoch: Positive = 50
    initial_lr: Annotated[float, Field(gt=0, le=1000)] = 0.01
    """Learning rate of the first epoch, which falls to 0 by nnU-Net's polynomial."""
    weight_decay: Weight = 3e-5
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Momentum of sgd."""
    oversample_foreground: Annotated[float, Field(ge=0, le=1)] = 0.33
    """Share of a batch's patches that are forced to contain foreground."""
    seed: Seed = 0
    """Seed of the weights, the batches and their augmentation."""
    averaged_epochs: Annotated[int, Field(ge=0, le=10**9)] = 0
    """Number of last epochs over whose steps the final network's weights are averaged (Izmailov et al. 2018). 0: they
    are those of the last step."""
    members: Annotated[int, Field(gt=0, le=1000)] = 1
    """Number of networks trained per fold, which differ in their seeds; more than one make a deep ensemble."""
    checkpoint_every: Positive = 10
    """Epochs from one checkpoint to the next: the most that a killed worker can lose."""
    precision: Literal["fp32", "fp16", "bf16"] | None = None
    """Precision of forward passes; the loss terms are always float32. None: fp16 on a GPU, fp32 on a CPU."""
    compile: bool | None = None
    """Whether torch.compile builds the network. None: yes on a GPU, no on a CPU."""
    accumulate: Positive = 1
    """Number of parts that a batch is trained in, one after the other; more than 1 if a batch does not fit on a GPU."""
    loader_processes: Annotated[int, Field(ge=0, le=1000)] | None = None
    """Number of processes per fold that load and augment. None: the fold's CPUs less one with a GPU, else a quarter."""

    @property
    def member_seeds(self) -> tuple[int, ...]:
        """Seeds of the members, 1000 apart, so that experiments with seeds 0, 1, 2 … share none."""
        return tuple(self.seed + 1000 * number for number in range(self.members))
