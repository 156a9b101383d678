"""A run as the report reads it, however far it has come, and the figures in its folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from uncseg.config.experiment import Experiment
from uncseg.dataset.cases import Case
from uncseg.evaluation.figures import region_dices
from uncseg.layout import CaseFiles, RunFolder
from uncseg.outputs import Outputs
from uncseg.report.case_figure import draw_case
from uncseg.report.case_images import read_case
from uncseg.report.case_level import draw_folds, draw_risk_coverage
from uncseg.report.overlay import draw_overlay
from uncseg.report.training_curves import TrainedEpochs, draw_training
from uncseg.table_files import read_table
from uncseg.tasks.task import Task
from uncseg.tracking.spool import epoch_table


@dataclass(frozen=True)
class ReportedRun:
    """A run that a page shows."""

    name: str
    folder: RunFolder
    experiment: Experiment
    cases: Sequence[Case]
    """The cases whose images are at hand."""

    @property
    def task(self) -> Task:
        """What the run's images, labels and regions mean."""
        return self.experiment.dataset.task

    def table(self, name: str) -> pd.DataFrame | None:
        """Return a table of the run; None before its evaluation."""
        return read_table(self.folder.tables, name)

    def predicted(self) -> dict[str, Case]:
        """Return the cases by id whose prediction is at hand too: one that a later evaluation refused has no files."""
        files = {case.case_id: CaseFiles(self.folder.out_of_fold, case.case_id) for case in self.cases}
        return {case.case_id: case for case in self.cases if files[case.case_id].segmentation.is_file()}

    def training(self) -> TrainedEpochs:
        """Return the epochs of all folds so far."""
        return TrainedEpochs(self.name, epoch_table(self.folder.spool), self.experiment.evaluation.last_epochs)


FIGURES = tuple(f"figures/{name}.png" for name in ("figure2", "folds", "risk_coverage", "overlay"))
"""Of a run alone, beside those of its cases."""


def page_outputs(run: RunFolder) -> Outputs:
    """Return what is noted of a run's pages, figures and their tables, which people may edit, or write themselves."""
    return Outputs(run.root, "report", "name to that file")


def draw_run(run: ReportedRun) -> None:
    """Draw what a run has so far, in its folder ``figures``.

    ``figure2.png`` shows metrics over epochs, ``folds.png`` and ``risk_coverage.png`` the scores of all cases, and
    ``overlay.png`` the case of median Dice. ``cases/figure1_CASE.png`` are the cases of :func:`telling_cases`; those
    that belong to an earlier evaluation are removed.

    Raises:
        ProblemsFound: someone else's file has the name of one, or someone has edited ours; nothing is drawn.
    """
    outputs, drawn, cases = page_outputs(run.folder), _drawn(run), run.folder.figures / "cases"
    names = {*FIGURES, *(figure1(run.folder, case).relative_to(run.folder.root).as_posix() for case in drawn)}
    with outputs.noting(among=sorted(names)):
        _draw(run, drawn)
    before = f"{cases.relative_to(run.folder.root).as_posix()}/figure1_"
    outputs.remove(name for name in outputs.noted() if drawn and name.startswith(before) and name not in names)


def _drawn(run: ReportedRun) -> dict[str, Sequence[str]]:
    """Return the cases that are drawn, with their reasons."""
    per_case, scores = run.table("per_case"), run.table("scores")
    if per_case is None or scores is None or per_case.empty:
        return {}
    known = run.predicted()
    return {case: why for case, why in telling_cases(per_case, scores, run.task).items() if case in known}


def _draw(run: ReportedRun, drawn: Mapping[str, Sequence[str]]) -> None:
    figures, training, task = run.folder.figures, run.training(), run.task
    if len(training.epochs):
        draw_training(figures / "figure2.png", training, task)
    per_case, scores = run.table("per_case"), run.table("scores")
    if per_case is None or scores is None or per_case.empty:
        return
    draw_folds(figures / "folds.png", per_case, task)
    if "mean_uncertainty" in scores:
        draw_risk_coverage(figures / "risk_coverage.png", scores, task)
    known, rows = run.predicted(), dict(per_case.set_index("case").iterrows())
    for case, why in drawn.items():
        images, row = read_case(run.folder, known[case], task), rows[case]
        dice = ", ".join(f"{name.removeprefix('Dice ')} {row[key]:.3f}" for key, name in region_dices(task).items())
        draw_case(figure1(run.folder, case), images, f"{case}, fold {row['fold']}: {', '.join(why)}. Dice {dice}", task)
        if "median Dice" in why:
            title = f"{case}, fold {row['fold']} (median Dice {row['dice_mean']:.2f})"
            shown = ("error memory", "uncertainty" if "uncertainty" in images.maps else "variance_stable")
            labels = {"reference": images.reference, "prediction": images.prediction}
            maps = {name: images.maps[name] for name in shown}
            draw_overlay(figures / "overlay.png", images.image, labels, maps, title, task)


def figure1(folder: RunFolder, case_id: str) -> Path:
    """The file of a case's Figure 1."""
    return folder.figures / "cases" / f"figure1_{case_id}.png"


def telling_cases(per_case: pd.DataFrame, scores: pd.DataFrame, task: Task) -> Mapping[str, Sequence[str]]:
    """Choose the worst, the median and the best case by mean Dice, and the most uncertain one, each with its reasons.

    The out-of-fold scores have one row per case in ``per_case``, which is not empty, and one per region of the task in
    ``scores``.
    """
    ranked = per_case.dropna(subset=["dice_mean"]).sort_values(["dice_mean", "case"], ignore_index=True)["case"]
    chosen: dict[str, list[str]] = {}
    if len(ranked):
        for place, what in ((0, "lowest mean Dice"), (len(ranked) // 2, "median Dice"), (-1, "highest mean Dice")):
            chosen.setdefault(str(ranked.iloc[place]), []).append(what)
    if "mean_uncertainty" in scores:
        main = scores[scores["region"] == task.main_region].dropna(subset=["mean_uncertainty"])
        if len(main):
            most = main["case"].iloc[int(main["mean_uncertainty"].argmax())]
            chosen.setdefault(str(most), []).append("the most uncertain")
    return chosen
