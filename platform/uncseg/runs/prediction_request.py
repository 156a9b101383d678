"""What ``uncseg predict`` asks for, and all that the prediction of a case depends on."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

from uncseg.dataset.cases import Case
from uncseg.estimators.chosen_map import MapChoice, learns_for_choice
from uncseg.estimators.registry import LEARNT
from uncseg.evaluation.case_scores import definition_of_scores
from uncseg.evaluation.expectation import REVIEW_BELOW
from uncseg.files import digest, file_contents
from uncseg.runs.model_sources import PredictionModel
from uncseg.tasks.task import Task

READERS = 8
"""Cases whose files are read side by side."""


@dataclass(frozen=True)
class PredictionOptions:
    """What a command asks for beside labels and uncertainty; None: as the model's experiment says."""

    probabilities: bool = False
    """Write CASE_REGION_probability.nii.gz for each region."""
    overlays: bool = False
    """Draw CASE.png."""
    mirroring: bool | None = None
    """Test-time mirroring, 8 passes."""
    review_below: float | None = None
    """Flag cases whose expected Dice of the main region is lower."""
    scores: bool = False
    """Score each fold, all folds together and the estimators' maps against the cases' references."""
    scored_as: Task | None = None
    """Task of the cases, which has the regions of the model's and may have another lesion rule; None: the model's."""


@dataclass(frozen=True)
class PredictionRequest:
    """What to predict with, what to write, and where."""

    model: PredictionModel
    options: PredictionOptions
    output: Path
    threads: int
    trust: bool = False
    """Let checkpoints run code of their own."""

    @property
    def scoring(self) -> Task:
        """The task by whose lesion rule predictions are scored."""
        return self.model.task if self.options.scored_as is None else self.options.scored_as

    @property
    def mirroring(self) -> bool:
        """Whether predictions are averaged over mirrored copies."""
        chosen = self.options.mirroring
        return self.model.evaluation.mirroring if chosen is None else chosen

    def review_below(self, chosen_map: str | None) -> float:
        """Return the expected Dice of the main region, by a map, below which a case is flagged."""
        chosen = self.options.review_below
        return self.model.review_below.get(chosen_map or "", REVIEW_BELOW) if chosen is None else chosen

    def sources(self, cases: Sequence[Case]) -> dict[str, str]:
        """Return a digest per case of what its outputs depend on: checkpoints, settings, options, the
        content of the case's files, wherever they lie."""
        model, evaluation = self.model, self.model.evaluation
        options = asdict(self.options) | {
            "mirroring": self.mirroring,
            "review_below": [*map(self.review_below, get_args(MapChoice))],
        }
        options["scored_as"] = definition_of_scores(self.scoring)
        learnt = learns_for_choice(evaluation.uncertainty, model.folder.has_head)
        learnt = learnt or bool({*LEARNT} & {*evaluation.estimators.one_pass})
        networks = [model.folder.content(model.folds, learnt), *(m.content(model.folds) for m in model.members)]
        applied = evaluation.tile_step, evaluation.uncertainty, evaluation.estimators.model_dump()
        source = digest([networks, options, *applied])
        scored = self.options.scores

        def source_of(case: Case) -> str:
            content = file_contents(case.files if scored else case.images)
            return digest([source, content, self.scoring.values(case.convention) if scored else None])

        with ThreadPoolExecutor(READERS) as pool:
            return dict(zip((case.case_id for case in cases), pool.map(source_of, cases), strict=True))
