"""What ``uncseg predict`` asks for, and all that the prediction of a case depends on."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from uncseg.dataset.cases import Case
from uncseg.evaluation.case_scores import SCORES_VERSION
from uncseg.files import digest, file_states
from uncseg.runs.model_sources import PredictionModel


@dataclass(frozen=True)
class PredictionOptions:
    """What a command asks for beside labels and uncertainty; None: as the model's experiment says."""

    probabilities: bool = False
    """Write CASE_wt_probability.nii.gz, CASE_tc_probability.nii.gz and CASE_et_probability.nii.gz."""
    overlays: bool = False
    """Draw CASE.png."""
    mirroring: bool | None = None
    """Test-time mirroring, 8 passes."""
    review_below: float | None = None
    """Flag cases whose expected WT Dice is lower."""
    scores: bool = False
    """Score each fold, all folds together and the estimators' maps against the cases' references."""


@dataclass(frozen=True)
class PredictionTask:
    """What to predict with, what to write, and where."""

    model: PredictionModel
    options: PredictionOptions
    output: Path
    threads: int
    trust: bool = False
    """Let checkpoints run code of their own."""

    @property
    def mirroring(self) -> bool:
        """Whether predictions are averaged over mirrored copies."""
        chosen = self.options.mirroring
        return self.model.evaluation.mirroring if chosen is None else chosen

    @property
    def review_below(self) -> float:
        """Expected WT Dice below which a case is flagged."""
        chosen = self.options.review_below
        return self.model.review_below if chosen is None else chosen

    def sources(self, cases: Sequence[Case]) -> dict[str, str]:
        """Return a digest per case of what its outputs depend on: checkpoints, settings, options, the case's files."""
        model, evaluation = self.model, self.model.evaluation
        options = asdict(self.options) | {"mirroring": self.mirroring, "review_below": self.review_below}
        networks = [folder.state(model.folds) for folder in (model.folder, *model.members)]
        source = digest([SCORES_VERSION, networks, options, evaluation.tile_step, evaluation.estimators.model_dump()])
        if not self.options.scores:
            return {case.case_id: digest([source, file_states(case.images)]) for case in cases}
        return {case.case_id: digest([source, file_states(case.files), case.convention]) for case in cases}
