"""The folder of a study: many runs below one parent, the trials of a sweep or the trainings of a benchmark."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from uncseg.errors import Problem, ProblemsFound
from uncseg.layout import RunFolder


@dataclass(frozen=True)
class StudyFolder:
    """What the folders of all kinds of studies hold."""

    root: Path
    kind: ClassVar[str]
    """Name of the command that makes it."""
    runs_name: ClassVar[str]

    @property
    def content(self) -> Path:
        """JSON: the study's file and its base experiment as resolved."""
        return self.root / f"{self.kind}.json"

    @property
    def manifest(self) -> Path:
        """JSON: the study's own run in MLflow."""
        return self.root / "manifest.json"

    @property
    def runs(self) -> Path:
        """Run folders, one per trial of a sweep or per training and seed of a benchmark."""
        return self.root / self.runs_name

    @property
    def tables(self) -> Path:
        """Parquet (the truth), csv and Markdown (for reading)."""
        return self.root / "tables"

    @property
    def figures(self) -> Path:
        """PNG."""
        return self.root / "figures"

    def require_place(self) -> None:
        """Refuse a folder that belongs to a run or to another kind of study.

        Raises:
            ProblemsFound: naming the folder.
        """
        study = find_study(self.root)
        if isinstance(study, type(self)) or (study is None and not RunFolder(self.root).experiment.is_file()):
            return
        found = f"a {'run' if study is None else study.kind} of this name"
        problem = Problem(str(self.root), found, f"a folder for the {self.kind}", "write another name")
        raise ProblemsFound(f"The {self.kind} has no place.", [problem])


class SweepFolder(StudyFolder):
    """Everything of one sweep."""

    kind, runs_name = "sweep", "trials"

    @property
    def tune(self) -> Path:
        """Ray Tune's own state."""
        return self.root / "tune"

    @property
    def promoted(self) -> Path:
        """JSON: ids of the trials that were promoted."""
        return self.root / "promoted.json"

    @property
    def best(self) -> Path:
        """The best trial as an experiment file."""
        return self.root / "best.yaml"

    @property
    def front(self) -> Path:
        """The trials of the Pareto front as experiment files."""
        return self.root / "front"


class BenchmarkFolder(StudyFolder):
    """Everything of one benchmark."""

    kind, runs_name = "benchmark", "trainings"

    def shared_labels(self, run: str, case_id: str) -> Path:
        """The segmentation of a case on which all maps are scored, by the run that made it; NIfTI."""
        return self.root / "shared" / run / f"{case_id}.nii.gz"

    def case(self, run: str, case_id: str) -> Path:
        """JSON: scores of a run's maps of one case; the counts lie beside it, .npz."""
        return self.root / "cases" / run / f"{case_id}.json"

    @property
    def costs(self) -> Path:
        """JSON: seconds of training steps and of predicting one case."""
        return self.root / "costs.json"

    @property
    def page(self) -> Path:
        """HTML that needs no network."""
        return self.root / "report.html"


def find_study(root: Path) -> SweepFolder | BenchmarkFolder | None:
    """Return the study that a folder holds; None where it holds none."""
    for study in (SweepFolder(root), BenchmarkFolder(root)):
        if study.content.is_file():
            return study
    return None
