"""The folder of a study: many runs below one parent, the trials of a sweep or the trainings of a benchmark."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from uncseg.errors import Problem, ProblemsFound
from uncseg.layout import STUDY_FILES, Below, RunFolder
from uncseg.outputs import Outputs, require_free
from uncseg.runs.run_opening import warn_if_changed


@dataclass(frozen=True)
class StudyFolder:
    """What the folders of all kinds of studies hold."""

    root: Path
    kind: ClassVar[str]
    """Name of the command that makes it."""
    content: ClassVar[Below]
    """JSON: the study's file and its base experiment as resolved."""
    runs: ClassVar[Below]
    """Run folders, one per trial of a sweep or per training and seed of a benchmark."""
    manifest = Below("manifest.json")
    """JSON: the study's own run in MLflow."""
    tables = Below("tables")
    """Parquet (the truth), csv and Markdown (for reading)."""
    figures = Below("figures")
    """PNG."""

    def begun(self) -> list[RunFolder]:
        """Return its runs that have begun, by their names."""
        return [RunFolder(file.parent) for file in sorted(self.runs.glob("*/experiment.yaml"))]

    def require_place(self) -> None:
        """Refuse a folder that belongs to a run or to another kind of study, or holds someone's files.

        Raises:
            ProblemsFound: naming the folder.
        """
        study = find_study(self.root)
        if isinstance(study, type(self)):
            return
        if study is None and not RunFolder(self.root).experiment.is_file():
            require_free(self.root, self.kind)
            return
        found = f"a {'run' if study is None else study.kind} of this name"
        problem = Problem(str(self.root), found, f"a folder for the {self.kind}", "write another name")
        raise ProblemsFound(f"The {self.kind} has no place.", [problem])


class SweepFolder(StudyFolder):
    """Everything of one sweep."""

    kind, content, runs = "sweep", Below(STUDY_FILES[0]), Below("trials")
    tune = Below("tune")
    """Ray Tune's own state."""
    promoted = Below("promoted.json")
    """JSON: ids of the trials that were promoted."""
    best = Below("best.yaml")
    """The best trial as an experiment file."""
    front = Below("front")
    """The trials of the Pareto front as experiment files."""

    @property
    def outputs(self) -> Outputs:
        """What is noted of the experiment files, which people edit."""
        return Outputs(self.root, self.kind, "name to the file, or to the sweep")


class BenchmarkFolder(StudyFolder):
    """Everything of one benchmark."""

    kind, content, runs = "benchmark", Below(STUDY_FILES[1]), Below("trainings")
    costs = Below("costs.json")
    """JSON: seconds of training steps and of predicting one case."""
    page = Below("report.html")
    """HTML that needs no network."""

    def shared_labels(self, run: str, case_id: str) -> Path:
        """The segmentation of a case on which all maps are scored, by the run that made it; NIfTI."""
        return self.root / "shared" / run / f"{case_id}.nii.gz"

    def case(self, run: str, case_id: str) -> Path:
        """JSON: scores of a run's maps of one case; the counts lie beside it, .npz."""
        return self.root / "cases" / run / f"{case_id}.json"


def find_study(root: Path) -> SweepFolder | BenchmarkFolder | None:
    """Return the study that a folder holds; None where it holds none."""
    return next((study for study in (SweepFolder(root), BenchmarkFolder(root)) if study.content.is_file()), None)


def warn_of_changed_runs(root: Path, why: str) -> None:
    """Print what is not as a run, or the runs of a study, were begun with; the runs of a study have the same cases.

    Args:
        root: folder of the run or the study.
        why: see :func:`~uncseg.runs.run_opening.warn_of_changes`.
    """
    study = find_study(root)
    runs = [RunFolder(root)] if study is None else study.begun()
    first = next((run for run in runs if run.data.is_file()), None)
    for run in runs:
        warn_if_changed(run.root, why, cases=study is None or run == first)
